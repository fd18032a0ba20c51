"""Capacity among processes, queues and prefixes, and what ChannelFull says; the rule itself is in tests/conformance."""

import asyncio
import json
import time

import pytest
from channels.exceptions import ChannelFull

from channels_sqlite import SyncChannelLayer
from channels_sqlite.delivery.progress import Progress
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import count_messages, query, receive_numbers
from tests.support import inside
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


async def accepts_soon(layer: SqliteChannelLayer, channel: str, count: int) -> None:
    """So many more are not refused, as soon as the reader's process has told what was read."""
    for _ in range(count):

        async def taken() -> bool:
            return await accepted(layer, channel, 1) == 1

        await aeventually(taken)


@pytest.fixture
def told_by_tenths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes tell what they have read after a tenth of the capacity, and not every second besides."""
    monkeypatch.setattr(Progress, "publish_if_changed", lambda progress: None)


async def test_a_reader_elsewhere_makes_room_within_a_tenth(make_layer: LayerFactory, told_by_tenths: None) -> None:
    layer, reader = make_layer(capacity=50), make_layer(capacity=50)
    channel = await reader.new_channel()
    assert await accepted(layer, channel, 60) == 50
    await receive_numbers(reader, channel, 20)
    await accepts_soon(layer, channel, 15)


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
    process = engine_of(reader)
    await aeventually(lambda: inside.published_channels(engine_of(reader)) == 10)
    assert process is not None
    for number in range(2):
        for channel in channels:
            await layer.send(channel, {"n": number})
    assert [message["n"] for message in await asyncio.gather(*waiting)] == [0] * 10
    for channel in channels:
        assert await receive_numbers(reader, channel, 1) == [1]


async def test_the_error_names_the_channel_and_the_numbers(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=2)
    await accepted(layer, "jobs", 2)
    with pytest.raises(ChannelFull, match=r"channel 'jobs' holds 2 of 2 unread messages; raise \"capacity\""):
        await layer.send("jobs", {"n": 3})


async def test_a_refused_message_leaves_nothing(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(capacity=1)
    await accepted(layer, "jobs", 10)
    assert count_messages(database.path) == 1


# Queues beside each other

BESIDE = {"http.response.*": 6, "specific.*": 3}


async def accepted_by(face: str, layer: SqliteChannelLayer, channel: str, attempts: int) -> int:
    """As `accepted`, through one of the two faces of a layer."""
    if face == "async":
        return await accepted(layer, channel, attempts)
    facade = SyncChannelLayer(layer)

    def attempt() -> int:
        count = 0
        for number in range(attempts):
            try:
                facade.send(channel, {"n": number})
            except ChannelFull:
                continue
            count += 1
        return count

    return await asyncio.to_thread(attempt)


def held_by(layer: SqliteChannelLayer) -> int:
    return sum(engine_of(layer).inbox.boxes.unread().held.values())


async def holding(database: ChannelDatabase, reader: SqliteChannelLayer, expected: dict[str, int]) -> None:
    """Wait until other processes know that `reader` holds this, by queue."""

    def known() -> bool:
        [(text,)] = query(database.path, "SELECT held FROM channels_sqlite_process")
        return bool(json.loads(text) == expected)

    await aeventually(known, what=f"{expected} is published")


def queue_of(channel: str) -> str:
    return channel[: channel.index("!") + 1]


@pytest.mark.parametrize("face", ["async", "sync"])
@pytest.mark.parametrize("where", ["here", "elsewhere"])
@pytest.mark.parametrize("by", ["send", "group_send"])
async def test_a_full_queue_does_not_fill_the_queue_beside_it(
    make_layer: LayerFactory, database: ChannelDatabase, by: str, where: str, face: str
) -> None:
    reader = make_layer(channel_capacity=BESIDE)
    sender = reader if where == "here" else make_layer(channel_capacity=BESIDE)
    full, empty = await reader.new_channel("http.response"), await reader.new_channel()
    # Somebody waits, so that this process reads what comes; the limits stay those of one channel.
    waiting = asyncio.create_task(reader.receive(await reader.new_channel("idle")))
    if by == "send":
        assert await accepted_by(face, sender, full, 8) == 6
    else:
        await reader.group_add("room", full)
        for number in range(6):
            await sender.group_send("room", {"n": number})
    await aeventually(lambda: held_by(reader) == 6)
    await holding(database, reader, {queue_of(full): 6})
    assert await accepted_by(face, sender, empty, 5) == 3
    assert await accepted_by(face, sender, full, 2) == 0
    await holding(database, reader, {queue_of(full): 6, queue_of(empty): 3})
    assert await receive_numbers(reader, full, 6) == list(range(6))
    assert await receive_numbers(reader, empty, 3) == list(range(3))
    await holding(database, reader, {})
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.parametrize("capacity", [3, 10])
async def test_reading_from_a_small_queue_makes_room_within_a_tenth_of_that(
    make_layer: LayerFactory, told_by_tenths: None, capacity: int
) -> None:
    config = {"capacity": 100, "channel_capacity": {"specific.*": capacity}}
    sender, reader = make_layer(**config), make_layer(**config)
    channel = await reader.new_channel()
    await reader.group_add("room", await reader.new_channel("beside"))
    assert await accepted(sender, channel, capacity + 2) == capacity
    for _ in range(capacity):
        await receive_numbers(reader, channel, 1)
        await accepts_soon(sender, channel, 1)
        assert await accepted(sender, channel, 1) == 0


async def test_the_smallest_capacity_of_a_queue_says_when_to_tell(
    make_layer: LayerFactory, told_by_tenths: None
) -> None:
    config = {"capacity": 100, "channel_capacity": {"*!small": 5}}
    sender, reader = make_layer(**config), make_layer(**config)
    large = await reader.new_channel()
    small = queue_of(large) + "small"
    assert await accepted(sender, small, 7) == 5
    for _ in range(5):
        await receive_numbers(reader, small, 1)
        await accepts_soon(sender, small, 1)
        assert await accepted(sender, small, 1) == 0


def flush_as_django_does(database: ChannelDatabase) -> None:
    """What `manage.py flush` and TransactionTestCase do to the tables, ids included."""
    for table in ("message", "membership", "process", "listener", "lastid"):
        query(database.path, f"DELETE FROM channels_sqlite_{table}")


@pytest.mark.parametrize("kind", ["normal", "specific"])
async def test_counts_from_before_the_tables_were_flushed_are_worth_nothing(
    make_layer: LayerFactory, database: ChannelDatabase, kind: str
) -> None:
    layer, other = make_layer(capacity=10), make_layer(capacity=10)
    channel = "jobs" if kind == "normal" else f"specific.nobody!{kind}"
    assert await accepted(layer, "others", 9) == 9
    assert await accepted(layer, channel, 5) == 5
    flush_as_django_does(database)
    assert await accepted(other, channel, 12) == 10
    assert await accepted(layer, channel, 1) == 0


async def test_expired_messages_make_room_in_the_queue_that_is_judged(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=100, expiry=0.3, channel_capacity={"specific.*": 3})
    channel, beside = await layer.new_channel(), await layer.new_channel("beside")
    for _ in range(3):
        assert await accepted(layer, channel, 5) == 3
        assert await accepted(layer, beside, 3) == 3
        await aeventually(lambda: _oldest_has_expired(layer, channel))


def _oldest_has_expired(layer: SqliteChannelLayer, channel: str) -> bool:
    box = engine_of(layer).inbox.boxes.find(channel)
    return box is None or not box.entries or box.entries[-1].expires_at < time.time()


async def test_receivers_that_have_left_make_no_more_room_here(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=2)
    names = [await layer.new_channel() for _ in range(3)]
    tasks = [asyncio.create_task(layer.receive(name)) for name in names]
    await aeventually(lambda: engine_of(layer).inbox.boxes.waiting_channels == 3)
    await layer.send(names[0], {"n": 0})  # counted with three receivers, which is remembered for a second
    await tasks[0]
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for number in (1, 2):
        await layer.send(names[0], {"n": number})
    with pytest.raises(ChannelFull):
        await layer.send(names[0], {"n": 3})
