"""Expiry of messages and of memberships."""

import pytest

from tests.conformance.backends import AS_LAYER, BY_OUR_CLOCK, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import AsLayer, CallerMaker
from tests.conformance.steps import Clock, assert_nothing_comes, collect


@only(BY_OUR_CLOCK)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_message_older_than_expiry_is_not_delivered(make: CallerMaker, clock: Clock, specific: bool) -> None:
    layer = make(expiry=10)
    channel = await layer.new_channel() if specific else "channel"
    await layer.send(channel, {"n": "old"})
    clock.advance(6)
    await layer.send(channel, {"n": "young"})
    clock.advance(6)
    assert await collect(layer, channel, 1) == [{"n": "young"}]
    await assert_nothing_comes(layer, channel)


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_message_waits_almost_until_expiry(make: CallerMaker, clock: Clock, specific: bool) -> None:
    layer = make(expiry=100)
    channel = await layer.new_channel() if specific else "channel"
    await layer.send(channel, {"n": 1})
    clock.advance(95)
    assert await collect(layer, channel, 1) == [{"n": 1}]


@only(BY_OUR_CLOCK)
async def test_default_expiry_is_a_minute(make: CallerMaker, clock: Clock) -> None:
    layer = make()
    await layer.send("channel", {"n": "old"})
    clock.advance(20)
    await layer.send("channel", {"n": "young"})
    clock.advance(41)
    assert await collect(layer, "channel", 1) == [{"n": "young"}]
    await assert_nothing_comes(layer, "channel")


@only(BY_OUR_CLOCK)
async def test_broadcast_older_than_expiry_is_not_delivered(make: CallerMaker, clock: Clock) -> None:
    layer = make(expiry=10)
    members = [await layer.new_channel(), "normal"]
    for member in members:
        await layer.group_add("group", member)
    await layer.group_send("group", {"n": 1})
    clock.advance(11)
    for member in members:
        await assert_nothing_comes(layer, member)


@differs(Difference.EXPIRY_SPARES_MEMBERSHIPS)
async def test_expired_message_does_not_end_memberships(make: CallerMaker, clock: Clock) -> None:
    layer = make(expiry=10)
    members = [await layer.new_channel(), "normal"]
    for member in members:
        await layer.group_add("group", member)
        await layer.send(member, {"n": "old"})
    clock.advance(11)
    await layer.group_send("group", {"n": "young"})
    for member in members:
        assert await layer.receive(member, 1) == {"n": "young"}


async def test_membership_ends_group_expiry_after_it_was_added(make: CallerMaker, clock: Clock) -> None:
    layer = make(group_expiry=100)
    members = [await layer.new_channel(), "normal"]
    for member in members:
        await layer.group_add("group", member)
    clock.advance(95)
    await layer.group_send("group", {"n": "in time"})
    for member in members:
        assert await collect(layer, member, 1) == [{"n": "in time"}]
    # The in-memory layer counts whole seconds.
    clock.advance(7)
    await layer.group_send("group", {"n": "late"})
    for member in members:
        await assert_nothing_comes(layer, member)


async def test_adding_again_renews_a_membership(make: CallerMaker, clock: Clock) -> None:
    layer = make(group_expiry=100)
    members = [await layer.new_channel(), "normal"]
    for _ in range(3):
        for member in members:
            await layer.group_add("group", member)
        clock.advance(60)
    await layer.group_send("group", {"n": 1})
    for member in members:
        assert await collect(layer, member, 1) == [{"n": 1}]


async def test_ended_member_that_is_added_again_sees_later_messages_alone(make: CallerMaker, clock: Clock) -> None:
    layer = make(group_expiry=100)
    members = [await layer.new_channel(), "normal"]
    for member in members:
        await layer.group_add("group", member)
    clock.advance(102)
    await layer.group_send("group", {"n": "between"})
    for member in members:
        await layer.group_add("group", member)
    await layer.group_send("group", {"n": "after"})
    for member in members:
        assert await collect(layer, member, 1) == [{"n": "after"}]


@differs(Difference.GROUP_EXPIRY_NONE)
async def test_membership_without_group_expiry_does_not_end(make: CallerMaker, clock: Clock) -> None:
    layer = make(group_expiry=None)
    members = [await layer.new_channel(), "normal"]
    for member in members:
        await layer.group_add("group", member)
    clock.advance(10 * 365 * 86400)
    await layer.group_send("group", {"n": 1})
    for member in members:
        assert await collect(layer, member, 1) == [{"n": 1}]


@only(AS_LAYER)
@pytest.mark.parametrize(("config", "expected"), [({}, 86400), ({"group_expiry": 5}, 5)])
def test_group_expiry_is_an_attribute_as_the_specification_says(
    make: CallerMaker, config: dict[str, int], expected: int
) -> None:
    layer = make(**config)
    assert isinstance(layer, AsLayer)
    assert layer.layer.group_expiry == expected
