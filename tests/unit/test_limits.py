"""Capacity: exact counts, whose they are, and what ChannelFull says."""

import asyncio

import pytest
from channels.exceptions import ChannelFull

from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import count_messages, next_is_marker, receive_numbers
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually


async def accepted(layer: SqliteChannelLayer, channel: str, attempts: int) -> int:
    """How many of so many sends were not refused."""
    count = 0
    for number in range(attempts):
        try:
            await layer.send(channel, {"n": number})
        except ChannelFull:
            continue
        count += 1
    return count


@pytest.mark.parametrize("kind", ["normal", "specific"])
@pytest.mark.parametrize("capacity", [1, 2, 7, 100])
async def test_a_channel_takes_exactly_its_capacity(make_layer: LayerFactory, capacity: int, kind: str) -> None:
    layer, reader = make_layer(capacity=capacity), make_layer(capacity=capacity)
    channel = "jobs" if kind == "normal" else await reader.new_channel()
    assert await accepted(layer, channel, capacity + 5) == capacity
    assert await receive_numbers(reader, channel, capacity) == list(range(capacity))


async def test_reading_makes_room_for_exactly_what_was_read(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=10)
    await accepted(layer, "jobs", 10)
    await receive_numbers(layer, "jobs", 4)
    assert await accepted(layer, "jobs", 10) == 4


async def test_reading_an_own_specific_channel_makes_room_at_once(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=10)
    channel = await layer.new_channel()
    assert await accepted(layer, channel, 15) == 10
    await receive_numbers(layer, channel, 4)
    assert await accepted(layer, channel, 10) == 4


async def test_a_reader_elsewhere_makes_room_within_a_tenth(make_layer: LayerFactory) -> None:
    layer, reader = make_layer(capacity=50), make_layer(capacity=50)
    channel = await reader.new_channel()
    assert await accepted(layer, channel, 60) == 50
    await receive_numbers(reader, channel, 20)
    assert await accepted(layer, channel, 50) >= 15


async def test_sends_gathered_in_one_loop_are_counted_each(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=10)
    outcomes = await asyncio.gather(
        *(layer.send("jobs", {"n": number}) for number in range(25)), return_exceptions=True
    )
    assert [isinstance(outcome, ChannelFull) for outcome in outcomes] == [False] * 10 + [True] * 15
    assert await receive_numbers(layer, "jobs", 10) == list(range(10))
    assert await next_is_marker(layer, "jobs")


async def test_several_layers_share_one_capacity(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layers = [make_layer(capacity=20) for _ in range(4)]
    taken = 0
    for _ in range(10):
        for layer in layers:
            taken += await accepted(layer, "jobs", 1)
    assert taken == 20
    assert count_messages(database.path) == 20


async def test_prefixes_have_capacities_of_their_own(make_layer: LayerFactory) -> None:
    assert await accepted(make_layer(capacity=3), "jobs", 5) == 3
    assert await accepted(make_layer(capacity=3, prefix="other"), "jobs", 5) == 3


async def test_specific_channels_share_their_count_up_to_the_mark(make_layer: LayerFactory) -> None:
    layer, reader = make_layer(capacity=6), make_layer(capacity=6)
    first, second = await reader.new_channel(), await reader.new_channel()
    assert await accepted(layer, first, 4) == 4
    assert await accepted(layer, second, 4) == 2


async def test_another_prefix_of_new_channel_has_a_count_of_its_own(make_layer: LayerFactory) -> None:
    layer, reader = make_layer(capacity=3), make_layer(capacity=3)
    assert await accepted(layer, await reader.new_channel(), 5) == 3
    assert await accepted(layer, await reader.new_channel("other"), 5) == 3


async def test_the_limit_grows_with_the_receivers_that_wait(make_layer: LayerFactory) -> None:
    layer, reader = make_layer(capacity=2), make_layer(capacity=2)
    channels = [await reader.new_channel() for _ in range(10)]
    waiting = [asyncio.create_task(reader.receive(channel)) for channel in channels]
    process = reader._process
    await aeventually(lambda: reader._process is not None and reader._process.inbox._published.channels == 10)
    assert process is not None
    for number in range(2):
        for channel in channels:
            await layer.send(channel, {"n": number})
    assert [message["n"] for message in await asyncio.gather(*waiting)] == [0] * 10
    for channel in channels:
        assert await receive_numbers(reader, channel, 1) == [1]


async def test_a_broadcast_takes_what_room_there_is_and_never_raises(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer(capacity=3)
    specific = await layer.new_channel()
    for name in ("jobs", specific):
        await layer.group_add("room", name)
    for number in range(10):
        await layer.group_send("room", {"n": number})
    for name in ("jobs", specific):
        assert await receive_numbers(layer, name, 3) == [0, 1, 2]
        assert await next_is_marker(layer, name)


async def test_the_error_names_the_channel_and_the_numbers(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=2)
    await accepted(layer, "jobs", 2)
    with pytest.raises(ChannelFull, match=r"channel 'jobs' holds 2 of 2 unread messages; raise \"capacity\""):
        await layer.send("jobs", {"n": 3})


async def test_channels_have_the_capacity_of_the_first_pattern_that_matches(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=4, channel_capacity={"jobs.urgent": 1, "jobs.*": 2})
    counts = {name: await accepted(layer, name, 6) for name in ("jobs.urgent", "jobs.later", "other")}
    assert counts == {"jobs.urgent": 1, "jobs.later": 2, "other": 4}


async def test_a_refused_message_leaves_nothing(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(capacity=1)
    await accepted(layer, "jobs", 10)
    assert count_messages(database.path) == 1
