"""How long rows stay, and that they go in small transactions."""

import asyncio
import re

import pytest

from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import Clock, count_messages, housekeep, receive_numbers
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

DAY_S = 86400


async def send_some(layer: SqliteChannelLayer, count: int, channel: str = "jobs") -> None:
    for number in range(count):
        await layer.send(channel, {"n": number})


def deletions_per_transaction(statements: list[str]) -> list[int]:
    """How many message rows each transaction deleted, of those that deleted any. One row a statement."""
    deletions: list[set[str]] = [set()]
    for statement in statements:  # traced once more for each statement of a trigger
        if re.match(r"\s*BEGIN", statement):
            deletions.append(set())
        elif re.match(r"\s*DELETE FROM channels_sqlite_message WHERE id = ", statement):
            deletions[-1].add(statement)
    return [len(deleted) for deleted in deletions if deleted]


# Retention


async def test_read_and_unread_rows_stay_for_their_retention_and_go_by_themselves(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(message_retention=1000)
    await send_some(layer, 5)
    assert await receive_numbers(layer, "jobs", 3) == [0, 1, 2]
    clock.shift_s += 990
    await housekeep(layer)
    assert count_messages(database.path) == 5
    await layer.send("jobs", {"n": 5})
    clock.shift_s += 10
    await aeventually(lambda: count_messages(database.path) == 1)


@pytest.mark.slow
async def test_rows_of_a_layer_that_fell_silent_go_by_themselves(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    for prefix in ("one", "two"):  # made at the same moment, so that they keep house in step
        await send_some(make_layer(prefix=prefix, expiry=1, message_retention=9), 4)
    await aeventually(lambda: count_messages(database.path, "one") + count_messages(database.path, "two") == 0, 25)


async def test_a_retention_below_expiry_keeps_messages_deliverable(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(expiry=60, message_retention=1)
    specific = await layer.new_channel()
    sender = make_layer(expiry=60, message_retention=1)
    await sender.send("jobs", {"n": 1})
    await sender.send(specific, {"n": 2})
    clock.shift_s += 59
    await housekeep(layer)
    await housekeep(sender)
    assert await receive_numbers(layer, "jobs", 1) == [1]
    assert await receive_numbers(layer, specific, 1) == [2]
    clock.shift_s += 1
    await aeventually(lambda: count_messages(database.path) == 0)


async def test_without_auto_trim_rows_stay(make_layer: LayerFactory, database: ChannelDatabase, clock: Clock) -> None:
    layer = make_layer(auto_trim=False, message_retention=100)
    await send_some(layer, 5)
    clock.shift_s += DAY_S
    await housekeep(layer)
    await housekeep(layer)
    assert count_messages(database.path) == 5


async def test_without_retention_and_auto_trim_rows_of_normal_channels_still_go_when_read(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer(auto_trim=False, message_retention=0)
    await send_some(layer, 3)
    await receive_numbers(layer, "jobs", 2)
    await aeventually(lambda: count_messages(database.path) == 1)


async def test_prefixes_in_one_file_keep_their_own_retention(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    short = make_layer(prefix="short", message_retention=100)
    long = make_layer(prefix="long", message_retention=10_000)
    for layer in (long, short, long):
        await layer.new_channel()  # who receives keeps house all the time
        await send_some(layer, 4)
    clock.shift_s += 100
    await aeventually(lambda: count_messages(database.path, "short") == 0)
    await housekeep(long)
    assert count_messages(database.path, "long") == 8
    clock.shift_s += 9900
    await aeventually(lambda: count_messages(database.path, "long") == 0)


# No retention


async def test_without_retention_read_rows_go_at_once_and_unread_ones_when_they_expire(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(message_retention=0, expiry=60)
    specific = await layer.new_channel()
    await layer.group_add("room", specific)
    await send_some(layer, 4)
    await receive_numbers(layer, "jobs", 3)
    await layer.send(specific, {"n": 1})
    await layer.group_send("room", {"n": 2})
    assert await receive_numbers(layer, specific, 2) == [1, 2]
    await aeventually(lambda: count_messages(database.path) == 1, what="only the unread one is left")
    clock.shift_s += 60
    await aeventually(lambda: count_messages(database.path) == 0)


async def test_without_retention_nothing_goes_that_a_process_has_not_read(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    quick, slow = make_layer(message_retention=0), make_layer(message_retention=0)
    channels = [await layer.new_channel() for layer in (quick, slow)]
    for layer, channel in zip((quick, slow), channels, strict=True):
        await layer.group_add("room", channel)
    sender = make_layer(message_retention=0)
    for number in range(10):
        await sender.group_send("room", {"n": number})
    assert await receive_numbers(quick, channels[0], 10) == list(range(10))
    for layer in (quick, sender):
        await housekeep(layer)
    assert await receive_numbers(slow, channels[1], 10) == list(range(10))
    await aeventually(lambda: count_messages(database.path) == 0)


async def test_without_retention_a_cancelled_receiver_loses_nothing(make_layer: LayerFactory) -> None:
    layer = make_layer(message_retention=0)
    for number in range(50):
        waiting = asyncio.create_task(layer.receive("jobs"))
        await asyncio.sleep(0)
        await layer.send("jobs", {"n": number})
        waiting.cancel()
        got = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(got[0], BaseException):
            assert await receive_numbers(layer, "jobs", 1) == [number]
        else:
            assert got[0] == {"n": number}


# Batches


@pytest.mark.parametrize("retention", [0, 100])
async def test_rows_go_in_transactions_of_the_batch_size(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock, retention: float
) -> None:
    layer = make_layer(expiry=50, message_retention=retention, trim_batch_size=7, capacity=1000)
    await send_some(layer, 100)
    process = engine_of(layer)
    assert process.database.connections is not None
    statements: list[str] = []
    process.database.connections.patient.raw.set_trace_callback(statements.append)
    clock.shift_s += 200
    await aeventually(lambda: count_messages(database.path) == 0)
    counts = deletions_per_transaction(statements)
    assert sum(counts) == 100
    assert max(counts) <= 7
    assert len(counts) >= 15


async def test_a_write_of_another_process_gets_in_between_two_batches(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(expiry=50, message_retention=100, trim_batch_size=1, capacity=10_000)
    other = make_layer(capacity=10_000)
    await other.send("other", {"n": 0})
    await send_some(layer, 2000)
    clock.shift_s += 200
    trimming = asyncio.create_task(housekeep(layer))
    sent = 0
    while not trimming.done():
        await other.send("other", {"n": sent})
        sent += 1
        await asyncio.sleep(0.001)  # leave the processor to the thread that trims
    await trimming
    assert sent > 10
