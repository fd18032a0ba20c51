"""Presence diffs: what they say to a receiver, and that those put together say the same as one after the other."""

from itertools import pairwise
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels_sqlite.codec import UndecodableError
from channels_sqlite.delivery import diffs
from channels_sqlite.delivery.diffs import Diff, farewells, group_of, is_same, merged, message_of, packed

pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

LIMIT = 10_000


def info(value: object) -> bytes:
    return bytes(msgpack.packb({"v": value}))


def decoded(group: str, key: str, stored: bytes) -> dict[str, Any]:
    found: dict[str, Any] = msgpack.unpackb(stored)
    return found


def message(payload: bytes) -> dict[str, Any] | None:
    return message_of(payload, decoded)


KEYS = st.sampled_from(["ann", "bob", "cid"])
STATES = st.lists(st.dictionaries(KEYS, st.integers(0, 2)), min_size=2, max_size=8)
"""What a list shows, one moment after another."""


def between(before: dict[str, int], after: dict[str, int]) -> Diff:
    return {
        key: (info(before[key]) if key in before else None, info(after[key]) if key in after else None)
        for key in before.keys() | after.keys()
        if before.get(key) != after.get(key)
    }


def applied(state: dict[str, Any], payloads: list[bytes]) -> dict[str, Any]:
    """As a page does it. A key that joins is not there, one that leaves or is updated is."""
    state = dict(state)
    for payload in payloads:
        told = message(payload)
        assert told is not None
        for key, value in told["joins"].items():
            assert key not in state
            state[key] = value["v"]
        for key, value in told["leaves"].items():
            assert state.pop(key) == value["v"]
        for key, value in told["updates"].items():
            assert state[key] != value["v"]
            state[key] = value["v"]
    return state


@given(STATES)
def test_diffs_that_are_put_together_have_the_same_effect(states: list[dict[str, int]]) -> None:
    steps = [packed("room", between(one, other), LIMIT) for one, other in pairwise(states)]
    payloads = [payload for step in steps for payload in step]
    assert applied(states[0], payloads) == states[-1]
    together = merged(payloads, LIMIT)
    assert len(together) == (states[0] != states[-1])
    assert applied(states[0], together) == states[-1]


@given(STATES, st.integers(1, 400))
def test_diffs_that_are_split_have_the_same_effect(states: list[dict[str, int]], limit: int) -> None:
    payloads = packed("room", between(states[0], states[-1]), limit)
    assert applied(states[0], payloads) == states[-1]
    for payload in payloads:
        told = message(payload)
        assert told is not None
        one_key = sum(len(told[part]) for part in ("joins", "leaves", "updates")) == 1
        assert one_key or len(msgpack.packb(told)) <= limit


def test_a_message_of_the_largest_size_is_within_it() -> None:
    group, limit = "g" * 99, 3000
    diff = {f"key{n}": (None, info("x" * 40)) for n in range(100)}
    payloads = packed(group, diff, limit)
    sizes = [len(msgpack.packb(message(payload))) for payload in payloads]
    assert max(sizes) <= limit
    assert min(sizes[:-1]) > limit / 2
    assert {key for payload in payloads for key in (message(payload) or {})["joins"]} == diff.keys()


def test_what_looks_the_same_is_not_told() -> None:
    one, other = msgpack.packb({"a": 1, "b": [1.5]}), msgpack.packb({"b": [1.5], "a": 1})
    (payload,) = packed("room", {"ann": (one, other)}, LIMIT)
    assert message(payload) is None
    (payload,) = packed("room", {"ann": (one, other), "bob": (None, one)}, LIMIT)
    assert message(payload) == {
        "type": "presence.diff",
        "group": "room",
        "joins": {"bob": {"a": 1, "b": [1.5]}},
        "leaves": {},
        "updates": {},
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, True),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({"a": float("nan")}, {"a": float("nan")}, True),
        ({"a": 0.0}, {"a": -0.0}, False),
        ({"a": b"x"}, {"a": "x"}, False),
    ],
    ids=str,
)
def test_what_looks_the_same(one: object, other: object, same: bool) -> None:
    assert is_same(one, other) is same


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        msgpack.packb({"type": "x"}),
        msgpack.packb(["room", 5]),
        msgpack.packb([5, []]),
        msgpack.packb(["room", [["ann", None]]]),
        msgpack.packb(["room", [[5, None, None]]]),
        msgpack.packb(["room", [["ann", 5, None]]]),
    ],
)
def test_what_is_no_diff_is_refused(payload: bytes) -> None:
    with pytest.raises(UndecodableError, match="presence diff"):
        message(payload)
    with pytest.raises(UndecodableError, match="presence diff"):
        merged([payload], LIMIT)
    assert group_of(payload) == ""


def test_the_row_of_a_flush_tells_of_each_group() -> None:
    payloads = [payload for name in ("a", "b") for payload in packed(name, {"ann": (info(1), None)}, LIMIT)]
    assert list(farewells(msgpack.packb(payloads))) == list(zip(("a", "b"), payloads, strict=True))
    for nothing in (b"", b"\xc1", msgpack.packb(5), msgpack.packb([5, b"\xc1"])):
        assert list(farewells(nothing)) == []


def test_room_for_the_names_is_enough() -> None:
    empty = {"type": "presence.diff", "group": "g" * 99, "joins": {}, "leaves": {}, "updates": {}}
    assert len(msgpack.packb(empty)) + 3 * 4 <= diffs.ROOM_BYTES
