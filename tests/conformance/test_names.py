"""Channel and group names: what is refused, in every method that takes one, and what is accepted."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from tests.conformance.differences import Difference, differs
from tests.conformance.faces import Caller
from tests.conformance.steps import collect

# Wrong arguments of every type go into these: that is what is tested.
Call = Callable[[Caller, Any], Awaitable[object]]

CHANNEL_CALLS: dict[str, Call] = {
    "send": lambda layer, name: layer.send(name, {"type": "a.message"}),
    "receive": lambda layer, name: layer.receive(name, 0.02),  # one that is accepted would wait
    "group_add": lambda layer, name: layer.group_add("group", name),
    "group_discard": lambda layer, name: layer.group_discard("group", name),
}
GROUP_CALLS: dict[str, Call] = {
    "group_add": lambda layer, name: layer.group_add(name, "channel"),
    "group_discard": lambda layer, name: layer.group_discard(name, "channel"),
    "group_send": lambda layer, name: layer.group_send(name, {"type": "a.message"}),
}

BAD_ANYWHERE: Mapping[str, object] = {
    "empty": "",
    "space": "a room",
    "slash": "a/room",
    "colon": "a:room",
    "null": "a\0room",
    "umlaut": "größe",
    "snowman": "☃",
    "line feed inside": "a\nroom",
    "line feed first": "\nroom",
    "100 characters": "a" * 100,
    "1000 characters": "a" * 1000,
    "None": None,
    "int": 7,
    "bytes": b"room",
    "list": ["room"],
}
BAD_CHANNELS: Mapping[str, object] = {
    **BAD_ANYWHERE,
    "two !": "a!b!c",
    "! first": "!local",
    "! alone": "!",
    "space after !": "a.client!b c",
    "100 characters with !": "a." + "b" * 48 + "!" + "c" * 49,
}
# An empty prefix makes a valid name.
BAD_PREFIXES = {**{key: value for key, value in BAD_ANYWHERE.items() if key != "empty"}, "!": "a!", "! inside": "a!b"}
BAD_GROUPS: Mapping[str, object] = {**BAD_ANYWHERE, "!": "group!", "! inside": "group!local"}

# What expressions with \d, \w and $ let through.
LOOKS_FINE: Mapping[str, object] = {
    "line feed at the end": "room\n",
    "Arabic digits": "room\N{ARABIC-INDIC DIGIT ONE}",
    "full-width digits": "room\N{FULLWIDTH DIGIT ONE}",
}
LOOKS_FINE_AFTER_MARK: Mapping[str, object] = {
    **LOOKS_FINE,
    "line feed after !": "a.client!b\n",
    "umlaut after !": "a.client!größe",
    "digit after !": "a.client!\N{DEVANAGARI DIGIT FIVE}",
}

GOOD = ["a", "azAZ09-_.", "-._", "42", "a" * 99]


async def accepted(subject: Caller, call: Call, names: Mapping[str, object]) -> set[str]:
    """The keys of those `names` for which `call` does not raise TypeError."""
    found = set()
    for key, name in names.items():
        try:
            await call(subject, name)
        except TypeError:
            continue
        except TimeoutError:
            pass
        found.add(key)
    return found


@pytest.mark.parametrize("call", CHANNEL_CALLS)
async def test_bad_channel_names_raise_type_error(subject: Caller, call: str) -> None:
    assert await accepted(subject, CHANNEL_CALLS[call], BAD_CHANNELS) == set()


@pytest.mark.parametrize("call", GROUP_CALLS)
async def test_bad_group_names_raise_type_error(subject: Caller, call: str) -> None:
    assert await accepted(subject, GROUP_CALLS[call], BAD_GROUPS) == set()


@differs(Difference.ASCII_NAMES)
@pytest.mark.parametrize("call", CHANNEL_CALLS)
async def test_channel_names_beyond_ascii_raise_type_error(subject: Caller, call: str) -> None:
    assert await accepted(subject, CHANNEL_CALLS[call], LOOKS_FINE_AFTER_MARK) == set()


@differs(Difference.ASCII_NAMES)
@pytest.mark.parametrize("call", GROUP_CALLS)
async def test_group_names_beyond_ascii_raise_type_error(subject: Caller, call: str) -> None:
    assert await accepted(subject, GROUP_CALLS[call], LOOKS_FINE) == set()


@differs(Difference.NEW_CHANNEL_CHECKS_ITS_PREFIX)
async def test_new_channel_with_bad_prefix_raises_type_error(subject: Caller) -> None:
    bad = {**BAD_PREFIXES, **LOOKS_FINE}
    assert await accepted(subject, lambda layer, prefix: layer.new_channel(prefix), bad) == set()


async def test_refused_names_leave_nothing_behind(subject: Caller) -> None:
    for call in CHANNEL_CALLS.values():
        assert await accepted(subject, call, BAD_CHANNELS) == set()
    await subject.group_send("group", {"n": 1})
    await subject.send("channel", {"n": 2})
    assert await collect(subject, "channel", 1) == [{"n": 2}]


async def test_good_names_are_accepted_everywhere(subject: Caller) -> None:
    for name in GOOD:
        await subject.send(name, {"n": 1})
        assert await collect(subject, name, 1) == [{"n": 1}]
        await subject.group_add(name, name)
        await subject.group_send(name, {"n": 2})
        assert await collect(subject, name, 1) == [{"n": 2}]
        await subject.group_discard(name, name)


async def test_names_that_differ_in_case_or_punctuation_are_different_channels(subject: Caller) -> None:
    names = ["room", "Room", "ROOM", "r.oom", "r-oom", "r_oom", "room.", "-room", "rooms", "roo"]
    for name in names:
        await subject.send(name, {"name": name})
    for name in reversed(names):
        assert await collect(subject, name, 1) == [{"name": name}]


async def test_group_and_channel_of_one_name_are_different_things(subject: Caller) -> None:
    await subject.group_add("room", "lobby")
    await subject.send("room", {"to": "channel"})
    await subject.group_send("room", {"to": "group"})
    assert await collect(subject, "room", 1) == [{"to": "channel"}]
    assert await collect(subject, "lobby", 1) == [{"to": "group"}]


async def test_new_channel_gives_valid_process_specific_names_with_its_prefix(subject: Caller) -> None:
    default, named = await subject.new_channel(), await subject.new_channel("my-prefix_1")
    assert default.startswith("specific.")
    assert named.startswith("my-prefix_1.")
    for name in (default, named):
        assert name.count("!") == 1
        assert len(name) < 100
        await subject.send(name, {"name": name})
    assert await collect(subject, named, 1) == [{"name": named}]
    assert await collect(subject, default, 1) == [{"name": default}]


async def test_new_channel_never_gives_a_name_twice(subject: Caller) -> None:
    names = [await subject.new_channel() for _ in range(1000)]
    assert len(set(names)) == 1000
