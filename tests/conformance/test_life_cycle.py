"""Extensions, flush and close."""

import asyncio

import pytest

from tests.conformance.backends import AS_LAYER, AT_ONCE, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import AsLayer, Caller
from tests.conformance.steps import assert_nothing_comes, collect


@only(AS_LAYER)
def test_extensions_are_groups_and_flush(subject: AsLayer) -> None:
    assert sorted(subject.layer.extensions) == ["flush", "groups"]


async def test_flush_removes_messages_and_memberships(subject: Caller) -> None:
    channels = [await subject.new_channel(), "normal"]
    for channel in channels:
        await subject.group_add("group", channel)
        await subject.send(channel, {"n": 1})
    await subject.group_send("group", {"n": 2})
    await subject.flush()
    await subject.group_send("group", {"n": 3})
    for channel in channels:
        await assert_nothing_comes(subject, channel)


async def test_layer_works_on_after_flush(subject: Caller) -> None:
    channels = [await subject.new_channel(), "normal"]
    await subject.send("normal", {"n": "before"})
    await subject.flush()
    await subject.flush()
    for channel in channels:
        await subject.group_add("group", channel)
        await subject.send(channel, {"n": 1})
    await subject.group_send("group", {"n": 2})
    for channel in channels:
        assert await collect(subject, channel, 2) == [{"n": 1}, {"n": 2}]


@only(AT_ONCE)
@differs(Difference.FLUSH_SPARES_RECEIVERS)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_receiver_that_waits_goes_on_waiting_after_flush(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    waiting = await subject.wait_on(channel)
    await subject.flush()
    await subject.send(channel, {"n": 1})
    assert await asyncio.wait_for(waiting, 1) == {"n": 1}


async def test_close_is_idempotent_and_the_layer_opens_again(subject: Caller) -> None:
    await subject.close()
    await subject.send("channel", {"n": 1})
    await subject.close()
    await subject.close()
    assert await collect(subject, "channel", 1) == [{"n": 1}]
    channel = await subject.new_channel()
    await subject.group_add("group", channel)
    await subject.group_send("group", {"n": 2})
    assert await collect(subject, channel, 1) == [{"n": 2}]
    await subject.close()


async def test_messages_and_memberships_of_normal_channels_survive_close(subject: Caller) -> None:
    await subject.group_add("group", "channel")
    await subject.send("channel", {"n": 1})
    await subject.close()
    await subject.group_send("group", {"n": 2})
    assert await collect(subject, "channel", 2) == [{"n": 1}, {"n": 2}]


@only(AT_ONCE)
@differs(Difference.CLOSE_ENDS_RECEIVERS)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_close_ends_waiting_receivers(subject: Caller, specific: bool) -> None:
    waiting = await subject.wait_on(await subject.new_channel() if specific else "channel")
    await subject.close()
    with pytest.raises(RuntimeError, match="closed"):
        await asyncio.wait_for(waiting, 1)


@differs(Difference.CLOSE_ENDS_MEMBERSHIPS)
async def test_channels_from_before_close_cannot_receive(subject: Caller) -> None:
    channel = await subject.new_channel()
    await subject.group_add("group", channel)
    await subject.close()
    await subject.group_send("group", {"n": 1})
    with pytest.raises(ValueError, match="specific"):
        await subject.receive(channel, 0.5)


async def test_close_and_open_many_times(subject: Caller) -> None:
    for number in range(10):
        channel = await subject.new_channel()
        await subject.send(channel, {"n": number})
        assert await subject.receive(channel) == {"n": number}
        await subject.close()
