"""What the facade cannot make alike over all layers, and why: the one list of it.

A test of such a behaviour says so: `@differs(Difference.GROUP_MEMBERS_ARE_KNOWN)`. It holds over the other backends,
and must fail over those named here (`conftest.py` sees to that): should one of them change its ways, the test tells,
and the entry goes.

What fails over another layer by chance cannot be in the list: two threads that receive at once on one channel have two
event loops, while the queues of the in-memory layer and the locks of channels_redis belong to one.
"""

import enum
from dataclasses import dataclass

import pytest

from tests.facade.backends import IN_MEMORY, REDIS

__all__ = ["Difference", "Lack", "differs"]


@dataclass(frozen=True)
class Lack:
    """Which backends do not have a behaviour, and why."""

    backends: tuple[str, ...]
    reason: str


class Difference(enum.Enum):
    """A behaviour of the facade that depends on the layer below it."""

    GROUP_MEMBERS_ARE_KNOWN = Lack(
        (REDIS,),
        "group_channels() and group_count() ask the layer, and channels_redis offers nothing to ask: they raise "
        "NotImplementedError",
    )
    ASKING_ONCE_TAKES_NO_TIME = Lack(
        (IN_MEMORY, REDIS),
        "receive(timeout=0) gives another layer up to a quarter of a second to come up with what is there: it has to "
        "connect and to ask first, and its receive() does not tell when it has begun to wait",
    )
    LOCAL_PART_IS_OPTIONAL = Lack(
        (IN_MEMORY, REDIS),
        "receive() of ours takes the part of a name up to and including the !; the in-memory layer takes that for a "
        "channel of its own, and channels_redis waits for a message on exactly that name",
    )
    OTHER_PROCESSES_CHANNELS_RAISE_VALUE_ERROR = Lack(
        (IN_MEMORY, REDIS),
        "receive() of a name of another process raises the layer's own error: an AssertionError from channels_redis; "
        "the in-memory layer has but one process and waits",
    )
    CLOSE_ENDS_RECEIVERS = Lack(
        (IN_MEMORY, REDIS),
        "close() of another layer does not reach a receive() under way, which waits on until its timeout",
    )
    CLOSE_ENDS_MEMBERSHIPS = Lack(
        (IN_MEMORY, REDIS),
        "process-specific names of the other layers live as long as the process, close() or not",
    )
    MESSAGE_SIZE_IS_CONFIGURED = Lack(
        (IN_MEMORY, REDIS),
        "max_message_size is an option of ours; over other layers the facade keeps to its default, 16 MiB",
    )


def differs(difference: Difference) -> pytest.MarkDecorator:
    """Mark a test of a behaviour that the backends of `difference` must turn out not to have."""
    return pytest.mark.facade_differs(difference)
