"""Unread messages expire, wherever they wait; a wall clock that jumps back stops nothing.

The rule itself is in tests/conformance.
"""

import asyncio

import pytest

from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import Clock, count_messages, housekeep, next_is_marker, receive, receive_numbers, write_lock
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

HOUR_S = 3600


async def send_to(layer: SqliteChannelLayer, how: str, channel: str, number: int) -> None:
    """Send one message, straight to the channel or to the group `room`."""
    if how == "group":
        await layer.group_send("room", {"type": "x", "n": number})
    else:
        await layer.send(channel, {"type": "x", "n": number})


async def channel_of(layer: SqliteChannelLayer, kind: str) -> str:
    """A channel of that kind, a member of `room`."""
    channel = "jobs" if kind == "normal" else await layer.new_channel()
    await layer.group_add("room", channel)
    return channel


def held(layer: SqliteChannelLayer) -> int:
    """How many messages the process of this layer holds in buffers."""
    return sum(engine_of(layer).inbox.boxes.unread().held.values())


# Expiry


@pytest.mark.parametrize("how", ["send", "group"])
async def test_a_message_in_the_log_is_not_delivered_once_it_is_older_than_expiry(
    make_layer: LayerFactory, clock: Clock, how: str
) -> None:
    sender, reader = make_layer(expiry=30), make_layer(expiry=30)
    # Nobody waits at the reader, so that it reads nothing before its receive() below.
    channel = await channel_of(reader, "specific")
    await send_to(sender, how, channel, 1)
    clock.shift_s += 20
    await send_to(sender, how, channel, 2)
    clock.shift_s += 10
    assert await receive_numbers(reader, channel, 1) == [2]
    assert await next_is_marker(reader, channel)


@pytest.mark.parametrize("how", ["send", "group"])
async def test_a_message_in_a_buffer_of_the_process_is_not_delivered_once_it_is_older_than_expiry(
    make_layer: LayerFactory, clock: Clock, how: str
) -> None:
    layer = make_layer(expiry=30)
    channel = await channel_of(layer, "specific")
    await send_to(layer, how, channel, 1)
    clock.shift_s += 20
    await send_to(layer, how, channel, 2)
    await aeventually(lambda: held(layer) == 2, what="both are in the buffer")
    clock.shift_s += 10
    assert await receive_numbers(layer, channel, 1) == [2]
    assert await next_is_marker(layer, channel)


async def test_the_part_up_to_the_mark_gets_no_expired_messages_either(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=30)
    first, second = await layer.new_channel(), await layer.new_channel()
    await layer.send(first, {"n": 1})
    clock.shift_s += 20
    await layer.send(second, {"n": 2})
    clock.shift_s += 10
    assert await receive(layer, first.partition("!")[0] + "!") == {"n": 2, "__asgi_channel__": second}


async def test_a_buffer_lets_go_of_what_expired_though_nobody_receives(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=30)
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})
    await aeventually(lambda: held(layer) == 1)
    clock.shift_s += 30
    await aeventually(lambda: held(layer) == 0)


async def test_expiry_needs_no_patched_clock(make_layer: LayerFactory) -> None:
    layer = make_layer(expiry=0.3)
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})
    await layer.send("jobs", {"n": 1})
    await asyncio.sleep(0.35)  # the time that is tested
    assert await next_is_marker(layer, channel)
    assert await next_is_marker(layer, "jobs")


# The wall clock jumps back


@pytest.mark.parametrize("kind", ["normal", "specific"])
@pytest.mark.parametrize("how", ["send", "group"])
async def test_a_clock_that_jumps_back_does_not_stop_delivery(
    make_layer: LayerFactory, clock: Clock, how: str, kind: str
) -> None:
    layer, sender = make_layer(expiry=30), make_layer(expiry=30)
    channel = await channel_of(layer, kind)
    await send_to(sender, how, channel, 1)
    clock.shift_s -= HOUR_S
    await send_to(sender, how, channel, 2)
    await send_to(layer, how, channel, 3)
    assert await receive_numbers(layer, channel, 3) == [1, 2, 3]
    waiting = asyncio.create_task(receive_numbers(layer, channel, 2))
    await asyncio.sleep(0)
    await send_to(sender, how, channel, 4)
    clock.shift_s -= HOUR_S
    await send_to(sender, how, channel, 5)
    assert await waiting == [4, 5]


async def test_a_clock_that_jumps_back_does_not_stop_a_receiver_that_waits(
    make_layer: LayerFactory, clock: Clock
) -> None:
    layer, sender = make_layer(), make_layer()
    channel = await layer.new_channel()
    waiting = [asyncio.create_task(receive(layer, name)) for name in (channel, "jobs")]
    await sender.send("elsewhere", {"n": 0})
    clock.shift_s -= 24 * HOUR_S
    await sender.send(channel, {"n": 1})
    await sender.send("jobs", {"n": 2})
    assert await asyncio.gather(*waiting) == [{"n": 1}, {"n": 2}]


async def test_a_clock_that_jumps_back_ends_no_membership(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(group_expiry=60)
    channel = await channel_of(layer, "specific")
    clock.shift_s -= HOUR_S
    await housekeep(layer)
    assert await layer.group_channels("room") == [channel]
    await layer.group_send("room", {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]


async def test_a_clock_that_jumps_back_does_not_make_capacity_forget(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(capacity=2)
    await layer.send("jobs", {"n": 1})
    clock.shift_s -= HOUR_S
    await layer.send("jobs", {"n": 2})
    with pytest.raises(Exception, match="holds 2 of 2"):
        await layer.send("jobs", {"n": 3})


async def test_writes_that_wait_for_the_lock_measure_their_patience_by_no_wall_clock(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    with write_lock(database.path):
        late = asyncio.create_task(layer.send("jobs", {"n": 2}))
        await asyncio.sleep(0.05)  # let it meet the lock
        clock.shift_s += HOUR_S  # by this clock its 20 seconds are over
        await asyncio.sleep(0.05)
        clock.shift_s -= 2 * HOUR_S
        await asyncio.sleep(0.05)
        assert not late.done()
    await asyncio.wait_for(late, 10)
    assert await receive_numbers(layer, "jobs", 2) == [1, 2]


# What stays behind


async def test_an_expired_message_stays_in_the_log_for_its_retention(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(expiry=30, message_retention=HOUR_S)
    await layer.send("jobs", {"n": 1})
    clock.shift_s += 60
    await housekeep(layer)
    assert count_messages(database.path) == 1
    clock.shift_s += HOUR_S
    await housekeep(layer)
    assert count_messages(database.path) == 0
