"""Where the layers differ, called in one way or the other, and why: the one list of it.

A test of such a behaviour says so: `@differs(Difference.ASCII_NAMES)`. It holds for ours, and must fail for those that
the entry names (`tests/conftest.py` sees to that): should one of them change its ways, the test tells, and it goes.

What fails by chance cannot be in the list; see `backends.AT_ONCE`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.conformance.backends import IN_MEMORY, REDIS, Face, Subject

__all__ = ["Difference", "Lack", "differs", "subject_of"]

IN_MEMORY_LAYER = Subject(IN_MEMORY, Face.LAYER)
IN_MEMORY_FACADE = Subject(IN_MEMORY, Face.FACADE)
REDIS_FACADE = Subject(REDIS, Face.FACADE)
IN_MEMORY_LAYERS = (IN_MEMORY_LAYER, IN_MEMORY_FACADE)
OTHER_FACADES = (IN_MEMORY_FACADE, REDIS_FACADE)
OTHERS = (IN_MEMORY_LAYER, *OTHER_FACADES)


@dataclass(frozen=True)
class Lack:
    """Who does not have a behaviour, and why."""

    subjects: tuple[Subject, ...]
    reason: str


class Difference(enum.Enum):
    """A behaviour of ours that others do not have."""

    ASCII_NAMES = Lack(
        (IN_MEMORY_LAYER,),
        "the specification allows ASCII in names; the in-memory layer's expressions also match other digits, other "
        "letters after the !, and a line feed at the end",
    )
    NEW_CHANNEL_CHECKS_ITS_PREFIX = Lack(
        (IN_MEMORY_LAYER,),
        "a name from new_channel() that send() then refuses helps nobody; the in-memory layer does not look at it",
    )
    ERRORS_ARE_NO_ASSERTIONS = Lack(
        (IN_MEMORY_LAYER,),
        "wrong arguments raise TypeError or ValueError, as assert statements are gone under python -O; the in-memory "
        "layer asserts",
    )
    ACCEPTS_MAPPINGS = Lack(
        (IN_MEMORY_LAYER,),
        "any Mapping is a message, TypedDicts and read-only views included; the in-memory layer wants dict",
    )
    VALUES_BECOME_PLAIN = Lack(
        (IN_MEMORY_LAYER,),
        "a message that crosses processes is bytes: tuples come out as lists, bytearrays as bytes, subclasses as their "
        "base; the in-memory layer hands over a deepcopy",
    )
    REFUSES_UNSERIALIZABLE = Lack(
        (IN_MEMORY_LAYER,),
        "what cannot cross processes is refused when it is sent, with its path; the in-memory layer takes any object",
    )
    LIMITS_MESSAGE_SIZE = Lack(
        (IN_MEMORY_LAYER,), "a message that is too large raises MessageTooLarge; the in-memory layer has no limit"
    )
    CHANNEL_CAPACITY_WORKS = Lack(
        IN_MEMORY_LAYERS,
        "the in-memory layer iterates over the keys of its channel_capacity as if they were compiled pairs, and fails",
    )
    CAPACITY_IS_OF_THE_PROCESS = Lack(
        IN_MEMORY_LAYERS,
        "the specification counts the capacity of process-specific channels on the part up to the !; the in-memory "
        "layer has a queue for each full name",
    )
    GROUP_EXPIRY_NONE = Lack(OTHERS, "memberships may last until they are discarded; the others need a number")
    EXPIRY_SPARES_MEMBERSHIPS = Lack(
        IN_MEMORY_LAYERS,
        "an expired message is the message's end, not the membership's; the in-memory layer takes the channel out of "
        "all its groups",
    )
    EXPIRED_WHILE_FULL = Lack(
        IN_MEMORY_LAYERS,
        "expired messages do not count for capacity; the in-memory layer drops them at the next receive() only, and "
        "its channel stays full until then",
    )
    LOCAL_PART_IS_OPTIONAL = Lack(
        OTHERS,
        "receive() takes the part of a name up to and including the !, as the specification has it, and the message "
        "then carries its full name; the in-memory layer takes that part for a channel of its own, and channels_redis "
        "waits for a message on exactly that name",
    )
    OTHER_PROCESSES_CHANNELS_ARE_REFUSED = Lack(
        OTHERS,
        "a receiver that waits on a name of another process would wait for ever; the in-memory layer lets it wait, and "
        "channels_redis raises AssertionError",
    )
    CANCELLING_SPARES_OTHER_RECEIVERS = Lack(
        (IN_MEMORY_LAYER,),
        "the in-memory layer forgets an empty channel when one of its receivers is cancelled, and with it those that "
        "still wait",
    )
    FLUSH_SPARES_RECEIVERS = Lack(
        (IN_MEMORY_LAYER,),
        "receivers that wait go on waiting after flush(); the in-memory layer forgets them with their channels",
    )
    CLOSE_ENDS_RECEIVERS = Lack(
        OTHERS,
        "close() ends what waits with an error, for it would wait for ever; in memory it does nothing, and that of "
        "channels_redis does not reach a receive() under way, which waits on",
    )
    CLOSE_ENDS_MEMBERSHIPS = Lack(
        OTHERS,
        "a closed layer's process-specific channels can never receive again, so they leave their groups; names of the "
        "other layers live as long as the process",
    )
    BROADCASTS_ARE_COPIED = Lack(
        (REDIS_FACADE,),
        "what one member of a group does to its message is no other member's concern; channels_redis decodes a "
        "broadcast once for all process-specific channels of a process",
    )
    GROUP_MEMBERS_ARE_KNOWN = Lack(
        (REDIS_FACADE,),
        "group_channels() and group_count() ask the layer, and channels_redis offers nothing to ask: they raise "
        "NotImplementedError",
    )
    ASKING_ONCE_TAKES_NO_TIME = Lack(
        OTHER_FACADES,
        "receive(timeout=0) gives another layer up to a quarter of a second to come up with what is there: it has to "
        "connect and to ask first, and its receive() does not tell when it has begun to wait",
    )
    MEMBERS_CAN_BE_EXCLUDED = Lack(OTHERS, "others know of no member that does not get a broadcast")
    MESSAGES_HAVE_EXPIRIES = Lack(OTHERS, "others have one expiry for all messages")
    MESSAGES_CAN_BE_SENT_LATER = Lack(OTHERS, "others send at once")
    THERE_IS_PRESENCE = Lack(OTHERS, "others know channels, and nobody who is there by means of them")
    MANY_CAN_BE_SENT = Lack((IN_MEMORY_LAYER,), "others send one by one, which the facade over them does in a loop")
    MANY_ARE_SENT_TOGETHER = Lack(
        OTHERS,
        "all of send_many() or none of it is sent in one transaction; over others what comes before an error is sent",
    )
    MESSAGE_SIZE_IS_CONFIGURED = Lack(
        OTHER_FACADES,
        "max_message_size is an option of ours; over other layers the facade keeps to its default, 16 MiB",
    )


def differs(difference: Difference) -> pytest.MarkDecorator:
    """Mark a test of a behaviour that those whom `difference` names must turn out not to have."""
    return pytest.mark.differs(difference)


def subject_of(parameters: Mapping[str, object]) -> Subject:
    """What a test is about, from its parameters: the tests of the facade alone name the layer below it."""
    tested = parameters.get("tested")
    return tested if isinstance(tested, Subject) else Subject(str(parameters["backend"]), Face.FACADE)
