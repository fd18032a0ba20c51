"""Sending, further ways: without some members, with an expiry of its own, and many at once."""

import math
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge

from tests.conformance.backends import OURS_ALONE, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import Caller, CallerMaker
from tests.conformance.steps import Clock, assert_nothing_comes, collect

ours = only(OURS_ALONE)

WRONG_SECONDS = [("soon", TypeError), (True, TypeError), (b"1", TypeError), (math.nan, ValueError)]
WRONG_SECONDS += [(math.inf, ValueError), (-1, ValueError), (10**400, ValueError)]


async def join(layer: Caller, *members: str) -> None:
    for member in members:
        await layer.group_add("room", member)


# Without some


@differs(Difference.MEMBERS_CAN_BE_EXCLUDED)
@pytest.mark.parametrize("specific", [True, False], ids=["specific", "normal"])
async def test_excluded_members_do_not_get_a_broadcast(make: CallerMaker, specific: bool) -> None:
    layer = make()
    left_out = await layer.new_channel() if specific else "left-out"
    others = [await layer.new_channel(), "normal"]
    await join(layer, left_out, *others)
    await layer.group_send("room", {"n": 1}, exclude=left_out)
    for member in others:
        assert await layer.receive(member) == {"n": 1}
    await layer.group_send("room", {"n": 2})
    assert await layer.receive(left_out) == {"n": 2}


@ours
@pytest.mark.parametrize("kind", [list, tuple, set, frozenset, deque, dict.fromkeys])
async def test_a_collection_is_excluded(make: CallerMaker, kind: Any) -> None:
    layer = make()
    members = [await layer.new_channel() for _ in range(3)]
    await join(layer, "normal", *members)
    await layer.group_send("room", {"n": 1}, exclude=kind([members[0], "normal", members[1], "unknown", "a.b!c"]))
    await layer.group_send("room", {"n": 2})
    assert await collect(layer, members[2], 2) == [{"n": 1}, {"n": 2}]
    for member in (*members[:2], "normal"):
        assert await layer.receive(member) == {"n": 2}


@ours
@pytest.mark.parametrize("exclude", ["", "no name", ["fine", "no name"], [7], 7, b"bytes", iter(["name"])])
async def test_malformed_exclusions_are_refused(make: CallerMaker, exclude: Any) -> None:
    layer = make()
    await join(layer, "normal")
    with pytest.raises(TypeError):
        await layer.group_send("room", {"n": 1}, exclude=exclude)
    with pytest.raises(TypeError):
        await layer.group_send_many("room", [{"n": 1}], exclude=exclude)
    with pytest.raises(TypeError):
        await layer.group_send_later("room", {"n": 1}, delay=0, exclude=exclude)
    await assert_nothing_comes(layer, "normal")


@ours
async def test_none_and_nobody_exclude_nobody(make: CallerMaker) -> None:
    layer = make()
    await join(layer, "normal")
    await layer.group_send("room", {"n": 1}, exclude=None)
    await layer.group_send("room", {"n": 2}, exclude=[])
    assert await collect(layer, "normal", 2) == [{"n": 1}, {"n": 2}]


# With an expiry of its own


@differs(Difference.MESSAGES_HAVE_EXPIRIES)
async def test_a_message_has_its_own_expiry(make: CallerMaker, clock: Clock) -> None:
    layer = make(expiry=10)
    own = await layer.new_channel()
    for channel in (own, "normal"):
        await layer.send(channel, {"n": "long"}, expiry=3600)
        await layer.send(channel, {"n": "short"}, expiry=2)
        await layer.send(channel, {"n": "usual"}, expiry=None)
    clock.advance(3)
    for channel in (own, "normal"):
        assert await layer.receive(channel) == {"n": "long"}
        assert await layer.receive(channel) == {"n": "usual"}


@ours
async def test_a_long_expiry_outlives_that_of_the_layer(make: CallerMaker, clock: Clock) -> None:
    layer = make(expiry=10)
    own = await layer.new_channel()
    await join(layer, own, "normal")
    await layer.send(own, {"n": 1}, expiry=3600)
    await layer.group_send("room", {"n": 2}, expiry=3600.5)
    await layer.send_many(own, [{"n": 3}], expiry=3600)
    await layer.group_send_many("room", [{"n": 4}], expiry=3600)
    clock.advance(3599)
    assert await collect(layer, own, 4) == [{"n": n} for n in (1, 2, 3, 4)]
    assert await collect(layer, "normal", 2) == [{"n": 2}, {"n": 4}]


@ours
@pytest.mark.parametrize("specific", [True, False], ids=["specific", "normal"])
async def test_what_has_expired_makes_room_whatever_waits_before_it(
    make: CallerMaker, clock: Clock, specific: bool
) -> None:
    layer = make(capacity=3)
    channel = await layer.new_channel() if specific else "normal"
    await layer.send(channel, {"n": 1})
    await layer.send_many(channel, [{"n": 2}, {"n": 3}], expiry=5)
    with pytest.raises(ChannelFull):
        await layer.send(channel, {"n": "too many"})
    clock.advance(6)
    await layer.send_many(channel, [{"n": 4}, {"n": 5}])
    assert await collect(layer, channel, 3) == [{"n": 1}, {"n": 4}, {"n": 5}]


@ours
@pytest.mark.parametrize(("expiry", "error"), [*WRONG_SECONDS, (0, ValueError)], ids=str)
async def test_wrong_expiries_are_refused(make: CallerMaker, expiry: Any, error: type[Exception]) -> None:
    layer = make()
    await join(layer, "normal")
    for call in (
        layer.send("normal", {}, expiry=expiry),
        layer.send_many("normal", [{}], expiry=expiry),
        layer.send_later("normal", {}, delay=0, expiry=expiry),
        layer.group_send("room", {}, expiry=expiry),
        layer.group_send_many("room", [{}], expiry=expiry),
        layer.group_send_later("room", {}, delay=0, expiry=expiry),
    ):
        with pytest.raises(error, match="expiry"):
            await call
    await assert_nothing_comes(layer, "normal")


# Many


@differs(Difference.MANY_CAN_BE_SENT)
async def test_many_are_sent_in_their_order(make: CallerMaker) -> None:
    layer = make()
    numbers = [{"n": n} for n in range(5)]
    await layer.send_many("normal", numbers)
    await layer.send_many("normal", ())
    await layer.send("normal", {"n": 5})
    assert await collect(layer, "normal", 6) == [*numbers, {"n": 5}]


@differs(Difference.MANY_CAN_BE_SENT)
async def test_many_are_sent_to_a_group(make: CallerMaker) -> None:
    layer = make()
    own = await layer.new_channel()
    await join(layer, own)
    await layer.group_send_many("room", [{"n": 1}, {"n": 2}])
    await layer.group_send_many("room", [])
    assert await collect(layer, own, 2) == [{"n": 1}, {"n": 2}]


@differs(Difference.MANY_ARE_SENT_TOGETHER)
async def test_all_are_sent_or_none(make: CallerMaker) -> None:
    layer = make(capacity=3)
    await layer.send("normal", {"n": 0})
    with pytest.raises(ChannelFull, match="3"):
        await layer.send_many("normal", [{"n": n} for n in (1, 2, 3)])
    await layer.send_many("normal", [{"n": n} for n in (4, 5)])
    assert await collect(layer, "normal", 3) == [{"n": n} for n in (0, 4, 5)]


@ours
async def test_a_batch_is_refused_that_exceeds_the_capacity_of_a_specific_channel(make: CallerMaker) -> None:
    layer = make(capacity=3)
    own, others = await layer.new_channel(), [await layer.new_channel() for _ in range(3)]
    waiting = [await layer.wait_on(channel) for channel in others]  # the queue has room for nine
    with pytest.raises(ChannelFull):
        await layer.send_many(own, [{"n": n} for n in range(4)])
    await layer.send_many(own, [{"n": n} for n in range(3)])
    assert await collect(layer, own, 3) == [{"n": n} for n in range(3)]
    assert not any(one.done() for one in waiting)


@ours
async def test_a_nearly_full_member_gets_the_beginning(make: CallerMaker) -> None:
    layer = make(capacity=3)
    own = await layer.new_channel()
    await join(layer, own, "normal")
    for member in (own, "normal"):
        await layer.send(member, {"n": 0})
    await layer.group_send_many("room", [{"n": n} for n in (1, 2, 3, 4)])
    for member in (own, "normal"):
        assert await collect(layer, member, 3) == [{"n": n} for n in (0, 1, 2)]
        await assert_nothing_comes(layer, member)


@ours
async def test_some_are_excluded_from_many(make: CallerMaker) -> None:
    layer = make()
    own = await layer.new_channel()
    await join(layer, own, "normal")
    await layer.group_send_many("room", [{"n": 1}, {"n": 2}], exclude=own)
    await layer.group_send("room", {"n": 3})
    assert await layer.receive(own) == {"n": 3}
    assert await collect(layer, "normal", 3) == [{"n": 1}, {"n": 2}, {"n": 3}]


@ours
@pytest.mark.parametrize(
    "messages",
    ["text", b"bytes", {"a": {}}, MappingProxyType({}), {1, 2}, iter([{}]), 7, None],
    ids=lambda value: type(value).__name__,
)
async def test_what_is_no_sequence_is_refused(make: CallerMaker, messages: Any) -> None:
    layer = make()
    for call in (layer.send_many("normal", messages), layer.group_send_many("room", messages)):
        with pytest.raises(TypeError, match="sequence"):
            await call


@ours
@pytest.mark.parametrize(
    ("third", "error", "text"),
    [
        ({"a": [object()]}, TypeError, r"^messages\[2\]\['a'\]\[0\]: object"),
        (7, TypeError, r"^messages\[2\]"),
        ({"a": "\udcff"}, TypeError, r"^messages\[2\]\['a'\]"),
        ({"__asgi_channel__": "x"}, ValueError, r"^messages\[2\]"),
        ({"a": "x" * 2000}, MessageTooLarge, r"^messages\[2\]"),
    ],
    ids=["value", "no mapping", "surrogate", "key", "size"],
)
async def test_every_message_is_checked_before_the_first_is_written(
    make: CallerMaker, third: Mapping[str, Any], error: type[Exception], text: str
) -> None:
    layer = make(max_message_size=1000)
    await join(layer, "normal")
    for call in (
        layer.send_many("normal", [{}, {}, third, {}]),
        layer.group_send_many("room", [{}, {}, third, {}]),
    ):
        with pytest.raises(error, match=text):
            await call
    await assert_nothing_comes(layer, "normal")
