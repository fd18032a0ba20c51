"""Capacity: when a channel is full, and what that means for senders and groups."""

import asyncio
import re

import pytest
from channels.exceptions import ChannelFull

from tests.conformance.backends import AT_ONCE, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import Caller, CallerMaker
from tests.conformance.steps import Clock, assert_nothing_comes, collect, soon


async def fill(layer: Caller, channel: str, most: int = 50) -> int:
    """How many messages `channel` takes until it raises ChannelFull; they have n = 0, 1, and so on."""
    for number in range(most):
        try:
            await layer.send(channel, {"n": number})
        except ChannelFull:
            return number
    return most


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_channel_takes_exactly_its_capacity(make: CallerMaker, specific: bool, capacity: int) -> None:
    layer = make(capacity=capacity)
    channel = await layer.new_channel() if specific else "channel"
    assert await fill(layer, channel) == capacity
    with pytest.raises(ChannelFull):
        await layer.send(channel, {"n": "too many"})
    assert await collect(layer, channel, capacity) == [{"n": number} for number in range(capacity)]
    await assert_nothing_comes(layer, channel)


async def test_default_capacity_is_100(subject: Caller) -> None:
    assert await fill(subject, "channel", 150) == 100


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_gathered_sends_stop_at_the_capacity(make: CallerMaker, specific: bool) -> None:
    layer = make(capacity=5)
    channel = await layer.new_channel() if specific else "channel"
    outcomes = await asyncio.gather(*(layer.send(channel, {"n": n}) for n in range(20)), return_exceptions=True)
    assert outcomes[:5] == [None] * 5
    assert all(isinstance(outcome, ChannelFull) for outcome in outcomes[5:])
    assert await collect(layer, channel, 5) == [{"n": n} for n in range(5)]


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_receiving_makes_room(make: CallerMaker, specific: bool) -> None:
    layer = make(capacity=2)
    channel = await layer.new_channel() if specific else "channel"
    for round_number in range(5):
        assert await fill(layer, channel) == 2, round_number
        await collect(layer, channel, 1)
        await layer.send(channel, {"n": "last"})
        assert await collect(layer, channel, 2) == [{"n": 1}, {"n": "last"}]


async def test_full_channel_is_no_other_channels_concern(make: CallerMaker) -> None:
    layer = make(capacity=2)
    assert await fill(layer, "one") == 2
    assert await fill(layer, "another") == 2


async def test_full_member_is_skipped_and_the_others_get_the_message(make: CallerMaker) -> None:
    layer = make(capacity=2)
    specific = await layer.new_channel()
    for member in ("full", "empty", specific):
        await layer.group_add("group", member)
    await fill(layer, "full")
    await layer.group_send("group", {"n": "all"})
    assert await collect(layer, "full", 2) == [{"n": 0}, {"n": 1}]
    await assert_nothing_comes(layer, "full")
    assert await collect(layer, "empty", 1) == [{"n": "all"}]
    assert await collect(layer, specific, 1) == [{"n": "all"}]


async def test_broadcasts_beyond_a_members_capacity_are_dropped_newest_first(make: CallerMaker) -> None:
    layer = make(capacity=3)
    member = await layer.new_channel()
    for channel in (member, "normal"):
        await layer.group_add("group", channel)
    for number in range(6):
        await layer.group_send("group", {"n": number})
    for channel in (member, "normal"):
        assert await collect(layer, channel, 3) == [{"n": 0}, {"n": 1}, {"n": 2}]
        await assert_nothing_comes(layer, channel)


@differs(Difference.CAPACITY_IS_OF_THE_PROCESS)
async def test_capacity_is_shared_by_all_names_up_to_the_mark(make: CallerMaker) -> None:
    layer = make(capacity=3)
    first, second = await layer.new_channel(), await layer.new_channel()
    await layer.send(first, {"n": 0})
    assert await fill(layer, second) == 2
    with pytest.raises(ChannelFull):
        await layer.send(first, {"n": "too many"})


@only(AT_ONCE)
@differs(Difference.CAPACITY_IS_OF_THE_PROCESS)
async def test_limit_is_the_capacity_times_the_channels_with_a_receiver(make: CallerMaker) -> None:
    layer = make(capacity=3)
    for _ in range(4):
        waiting = await layer.wait_on(await layer.new_channel())
        assert not waiting.done()
    stalled = [await layer.new_channel() for _ in range(4)]
    for channel in stalled[:3]:
        # Not full for the sender, as the process has twelve places; the channel itself holds three and drops the rest.
        assert await fill(layer, channel, 20) == 20
    assert await fill(layer, stalled[3]) == 3
    for channel in stalled:
        with pytest.raises(ChannelFull):
            await layer.send(channel, {"n": "too many"})
    for channel in stalled:
        assert await collect(layer, channel, 3) == [{"n": 0}, {"n": 1}, {"n": 2}]
        await assert_nothing_comes(layer, channel)


@only(AT_ONCE)
async def test_channel_with_a_receiver_is_not_full_because_of_another(make: CallerMaker) -> None:
    layer = make(capacity=3)
    waiting = [(channel, await layer.wait_on(channel)) for channel in [await layer.new_channel() for _ in "ab"]]
    stalled = await layer.new_channel()
    assert await fill(layer, stalled, 3) == 3
    for channel, task in waiting:
        await layer.send(channel, {"to": channel})
        assert await soon(task) == {"to": channel}
        again = await layer.wait_on(channel)  # as consumers do; the limit is for those that wait
        assert not again.done()


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
@differs(Difference.EXPIRED_WHILE_FULL)
async def test_expired_messages_make_room(make: CallerMaker, clock: Clock, specific: bool) -> None:
    layer = make(capacity=3, expiry=10)
    channel = await layer.new_channel() if specific else "channel"
    assert await fill(layer, channel) == 3
    clock.advance(11)
    assert await fill(layer, channel) == 3


@differs(Difference.CHANNEL_CAPACITY_WORKS)
async def test_first_matching_pattern_gives_the_capacity(make: CallerMaker) -> None:
    layer = make(
        capacity=2,
        channel_capacity={
            "http.request": 3,
            "http.*": 4,
            re.compile(r"^ws\.(chat|game)$"): 5,
            "ws.[a-c]*": 6,
            "*.chat": 7,
            "?": 8,
        },
    )
    expected = {
        "http.request": 3,
        "http.response": 4,
        "http.request.more": 4,
        "xhttp.request": 2,
        "ws.chat": 5,
        "ws.game": 5,
        "ws.games": 2,
        "ws.close": 6,
        "a.chat": 7,
        "x": 8,
        "anything": 2,
    }
    assert {channel: await fill(layer, channel) for channel in expected} == expected


@differs(Difference.CHANNEL_CAPACITY_WORKS)
async def test_expressions_match_from_the_beginning_and_globs_the_whole_name(make: CallerMaker) -> None:
    layer = make(capacity=2, channel_capacity={re.compile("chat"): 3, "room": 4})
    expected = {"chat": 3, "chat.long.name": 3, "my.chat": 2, "room": 4, "room.1": 2, "my.room": 2}
    assert {channel: await fill(layer, channel) for channel in expected} == expected


@differs(Difference.CHANNEL_CAPACITY_WORKS)
async def test_patterns_match_the_full_name_of_process_specific_channels(make: CallerMaker) -> None:
    layer = make(capacity=2, channel_capacity={"specific.*!*": 3, re.compile(r"private\..*!"): 4})
    assert await fill(layer, await layer.new_channel()) == 3
    assert await fill(layer, await layer.new_channel("private")) >= 1
