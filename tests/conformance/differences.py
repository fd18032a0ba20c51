"""Where Channels' in-memory layer and ours differ, and why: the one list of it.

A test of such a behaviour says so: `@differs(Difference.ASCII_NAMES)`. It holds for ours, and must fail on the
in-memory layer (`conftest.py` sees to that): should that one change its ways, the test tells, and the entry goes.
"""

import enum

import pytest

__all__ = ["Difference", "differs"]


class Difference(enum.Enum):
    """A behaviour of ours that the in-memory layer does not have; the value says why ours has it."""

    ASCII_NAMES = (
        "the specification allows ASCII in names; the in-memory layer's expressions also match other digits, other "
        "letters after the !, and a line feed at the end"
    )
    NEW_CHANNEL_CHECKS_ITS_PREFIX = (
        "a name from new_channel() that send() then refuses helps nobody; the in-memory layer does not look at it"
    )
    ERRORS_ARE_NO_ASSERTIONS = (
        "wrong arguments raise TypeError or ValueError, as assert statements are gone under python -O; the in-memory "
        "layer asserts"
    )
    ACCEPTS_MAPPINGS = (
        "any Mapping is a message, TypedDicts and read-only views included; the in-memory layer wants dict"
    )
    VALUES_BECOME_PLAIN = (
        "a message that crosses processes is bytes: tuples come out as lists, bytearrays as bytes, subclasses as their "
        "base; the in-memory layer hands over a deepcopy"
    )
    REFUSES_UNSERIALIZABLE = (
        "what cannot cross processes is refused when it is sent, with its path; the in-memory layer takes any object"
    )
    LIMITS_MESSAGE_SIZE = "a message that is too large raises MessageTooLarge; the in-memory layer has no limit"
    CHANNEL_CAPACITY_WORKS = (
        "the in-memory layer iterates over the keys of its channel_capacity as if they were compiled pairs, and fails"
    )
    CAPACITY_IS_OF_THE_PROCESS = (
        "the specification counts the capacity of process-specific channels on the part up to the !; the in-memory "
        "layer has a queue for each full name"
    )
    GROUP_EXPIRY_NONE = "memberships may last until they are discarded; the in-memory layer needs a number"
    EXPIRY_SPARES_MEMBERSHIPS = (
        "an expired message is the message's end, not the membership's; the in-memory layer takes the channel out of "
        "all its groups"
    )
    EXPIRED_WHILE_FULL = (
        "expired messages do not count for capacity; the in-memory layer drops them at the next receive() only, and "
        "its channel stays full until then"
    )
    LOCAL_PART_IS_OPTIONAL = (
        "receive() takes the part of a name up to and including the !, as the specification has it, and the message "
        "then carries its full name; the in-memory layer takes that part for a channel of its own"
    )
    OTHER_PROCESSES_CHANNELS_ARE_REFUSED = (
        "a receiver that waits on a name of another process would wait for ever; the in-memory layer lets it wait"
    )
    CANCELLING_SPARES_OTHER_RECEIVERS = (
        "the in-memory layer forgets an empty channel when one of its receivers is cancelled, and with it those that "
        "still wait"
    )
    FLUSH_SPARES_RECEIVERS = (
        "receivers that wait go on waiting after flush(); the in-memory layer forgets them with their channels"
    )
    CLOSE_ENDS_RECEIVERS = (
        "close() ends what waits with an error, for it would wait for ever; in memory it does nothing"
    )
    CLOSE_ENDS_MEMBERSHIPS = (
        "a closed layer's process-specific channels can never receive again, so they leave their groups; in memory "
        "close() does nothing"
    )


def differs(difference: Difference) -> pytest.MarkDecorator:
    """Mark a test of a behaviour that ours has and that the in-memory layer must turn out not to have."""
    return pytest.mark.differs(difference)
