"""What a history has no place for any more: never returned, gone within seconds, and said by `recovered`."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from channels_sqlite.engine import history_trimming
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import Clock, count_messages, housekeep, query, set_clock
from tests.history.conftest import KeepingFactory
from tests.history.test_reading import send, texts
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.waiting import aeventually

DAY_S = 86400
GOES_WITHIN_S = 20.0  # a few seconds, on a machine that does other things too

KEPT = "SELECT count(*) FROM channels_sqlite_message WHERE kind = 6 AND state = 2"


@pytest.fixture
def clock() -> Iterator[Clock]:
    with set_clock() as clock:
        yield clock


def count_kept(path: Path) -> int:
    count: int = query(path, KEPT)[0][0]
    return count


async def test_what_is_beyond_the_size_goes_by_itself(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping(history={"room*": {"size": 3, "ttl": 300}}, message_retention=0)
    await send(layer, *range(10))
    await aeventually(lambda: count_messages(database.path) == 3, GOES_WITHIN_S)
    assert texts(await layer.group_history("room", last=10)) == [7, 8, 9]


async def test_what_is_older_than_the_ttl_is_not_returned_and_goes_by_itself(
    make_keeping: KeepingFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_keeping(history={"room*": {"size": 10, "ttl": 100}}, message_retention=0)
    start = (await layer.group_history("room")).position
    await send(layer, 1)
    clock.shift_s += 60
    await send(layer, 2)
    middle = await layer.group_history("room", since=start)
    assert (texts(middle), middle.recovered) == ([1, 2], True)
    clock.shift_s += 45
    late = await layer.group_history("room", since=start)
    assert (texts(late), late.recovered) == ([2], False)
    assert texts(await layer.group_history("room", last=10)) == [2]
    await aeventually(lambda: count_messages(database.path) == 1, GOES_WITHIN_S)


async def test_a_short_ttl_is_kept_to_within_seconds(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping(history={"room*": {"size": 10, "ttl": 0.2}}, message_retention=0, expiry=0.2)
    await send(layer, 1, 2)
    await send(layer, 3, group="room.2")
    await aeventually(lambda: count_messages(database.path) == 0, GOES_WITHIN_S)


async def test_a_row_stays_while_retention_asks_for_it_and_goes_when_nothing_does(
    make_keeping: KeepingFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_keeping(history={"room*": {"size": 10, "ttl": 100}}, message_retention=1000)
    await send(layer, 1, 2)
    clock.shift_s += 101
    await aeventually(lambda: count_kept(database.path) == 0, GOES_WITHIN_S)
    assert count_messages(database.path) == 2
    assert (await layer.group_history("room", last=10)).entries == []
    clock.shift_s += 890
    await housekeep(layer)
    assert count_messages(database.path) == 2
    clock.shift_s += 20
    await aeventually(lambda: count_messages(database.path) == 0, GOES_WITHIN_S)


async def test_a_row_stays_while_history_asks_for_it_and_goes_when_nothing_does(
    make_keeping: KeepingFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_keeping(history={"room*": {"size": 10, "ttl": 1000}}, message_retention=100)
    await send(layer, 1, 2)
    await layer.group_send("room", {"type": "typing"}, history=False)
    await layer.send("jobs", {"n": 3})
    clock.shift_s += 110
    await aeventually(lambda: count_messages(database.path) == 2, GOES_WITHIN_S)
    assert texts(await layer.group_history("room", last=10)) == [1, 2]
    clock.shift_s += 900
    await aeventually(lambda: count_messages(database.path) == 0, GOES_WITHIN_S)


async def test_without_retention_a_row_stays_until_every_reader_has_passed_it(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping(history={"room*": {"size": 1, "ttl": 300}}, message_retention=0)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await send(layer, *range(3))
    await aeventually(lambda: count_kept(database.path) == 1, GOES_WITHIN_S)
    received = [await layer.receive(channel) for _ in range(3)]
    assert [message["n"] for message in received] == [0, 1, 2]
    await aeventually(lambda: count_messages(database.path) == 1, GOES_WITHIN_S)


async def test_without_retention_other_rows_go_though_older_ones_are_kept(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping(message_retention=0)
    channel = await layer.new_channel()
    await send(layer, *range(5))
    for number in range(20):
        await layer.send(channel, {"n": number})
        assert (await layer.receive(channel))["n"] == number
    await aeventually(lambda: count_messages(database.path) == 5, GOES_WITHIN_S)


async def test_a_live_message_is_delivered_though_its_history_has_no_place_for_it(make_keeping: KeepingFactory) -> None:
    layer, other = make_keeping(history={"room*": {"size": 2, "ttl": 300}}), make_keeping()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await send(other, *range(10))
    await housekeep(layer)
    received = [await layer.receive(channel) for _ in range(10)]
    assert [message["n"] for message in received] == list(range(10))
    assert all("__position__" in message for message in received)


# What trimming says


async def test_trimming_says_what_is_missing_and_no_more(make_keeping: KeepingFactory) -> None:
    layer = make_keeping(history={"room*": {"size": 3, "ttl": 300}})
    positions = []
    for number in range(6):
        positions.append((await layer.group_history("room")).position)
        await send(layer, number)
    await housekeep(layer)
    for number, position in enumerate(positions):
        history = await layer.group_history("room", since=position)
        assert history.recovered is (number >= 3), f"after {number} messages"
        assert texts(history) == list(range(max(3, number), 6))


async def test_a_quiet_group_stays_recovered_however_much_others_are_sent(
    make_keeping: KeepingFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_keeping(history={"room*": {"size": 3, "ttl": 100}}, message_retention=0)
    never = (await layer.group_history("room.never")).position
    await send(layer, 1, group="room.quiet")
    before = (await layer.group_history("room.quiet", last=1)).entries[0].position
    await send(layer, *range(50), group="room.busy")
    clock.shift_s += DAY_S
    await aeventually(lambda: count_messages(database.path) == 0, GOES_WITHIN_S)
    for group, position in (("room.quiet", before), ("room.never", never)):
        history = await layer.group_history(group, since=position)
        assert (history.entries, history.recovered) == ([], True), group
    assert not (await layer.group_history("room.quiet", since=never)).recovered
    assert not (await layer.group_history("room.busy", since=before)).recovered


async def test_what_is_deleted_by_hand_is_missing_and_said_to_be(
    keeping: SqliteChannelLayer, database: ChannelDatabase
) -> None:
    start = (await keeping.group_history("room")).position
    await send(keeping, 1, 2, 3)
    entries = (await keeping.group_history("room", last=3)).entries
    query(database.path, "DELETE FROM channels_sqlite_message WHERE id = ?", int(entries[1].position.split("-")[1]))
    history = await keeping.group_history("room", since=start)
    assert (texts(history), history.recovered) == ([1, 3], False)
    history = await keeping.group_history("room", since=entries[1].position)
    assert (texts(history), history.recovered) == ([3], True)


async def test_what_cannot_be_decoded_is_left_out_and_said(
    keeping: SqliteChannelLayer, database: ChannelDatabase
) -> None:
    start = (await keeping.group_history("room")).position
    await send(keeping, 1, 2, 3)
    second = int((await keeping.group_history("room", last=2)).entries[0].position.split("-")[1])
    query(database.path, "UPDATE channels_sqlite_message SET payload = x'c1' WHERE id = ?", second)
    history = await keeping.group_history("room", since=start)
    assert (texts(history), history.recovered) == ([1, 3], False)
    assert not (await keeping.group_history("room", last=3)).recovered
    assert (await keeping.group_history("room", since=history.entries[1].position)).recovered


# How much at once


async def test_trimming_goes_in_batches(make_keeping: KeepingFactory) -> None:
    layer = make_keeping(history={"room*": {"size": 1, "ttl": 300}}, message_retention=0, trim_batch_size=7)
    await layer.group_send_many("room", [{"n": number} for number in range(50)])
    engine = engine_of(layer)
    connections = engine.database.connections
    assert connections is not None
    statements: list[str] = []
    raw = inside.connection_of(connections.patient.store)
    raw.set_trace_callback(statements.append)
    await housekeep(layer)
    raw.set_trace_callback(None)
    deletions: list[set[str]] = [set()]
    for statement in statements:  # traced once more for each statement of a trigger
        if statement.startswith("BEGIN IMMEDIATE"):
            deletions.append(set())
        elif re.match(r"\s*DELETE FROM channels_sqlite_message WHERE id = ", statement):
            deletions[-1].add(statement)
    assert [len(deleted) for deleted in deletions if deleted] == [7] * 7


async def test_without_auto_trim_nothing_goes_by_itself(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping(history={"room*": {"size": 1, "ttl": 300}}, message_retention=0, auto_trim=False)
    await send(layer, *range(5))
    await housekeep(layer)
    assert count_kept(database.path) == 5
    assert texts(await layer.group_history("room", last=10)) == [4]


async def test_what_no_pattern_matches_any_more_goes(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping(message_retention=0)
    await send(layer, 1, 2)
    await layer.close()
    other = make_keeping(history=None, message_retention=0)
    await other.new_channel()
    await aeventually(lambda: count_kept(database.path) == 0, GOES_WITHIN_S)


async def test_a_round_without_anything_to_trim_takes_no_write_lock(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping()
    await send(layer, *range(5))
    await housekeep(layer)
    trimming = inside.housekeeping(engine_of(layer)).histories
    with closing(sqlite3.connect(database.path, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert await inside.background(engine_of(layer)).acall(trimming.trim_fully) == 0
        connection.execute("ROLLBACK")


# Groups that have ended


async def test_of_groups_that_have_ended_so_many_are_remembered(
    make_keeping: KeepingFactory, database: ChannelDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_trimming, "MOST_FLOORS", 3)
    layer = make_keeping(history={"room*": {"size": 3, "ttl": 100}}, trim_batch_size=2)
    start = (await layer.group_history("room")).position
    positions = []
    for number in range(10):
        await send(layer, number, group=f"room.{number}")
        positions.append((await layer.group_history("room")).position)
    clock.shift_s += DAY_S
    trimming = inside.housekeeping(engine_of(layer)).histories
    await inside.background(engine_of(layer)).acall(trimming.trim_fully)
    await inside.background(engine_of(layer)).acall(trimming.trim_fully)
    floors = query(database.path, "SELECT group_name FROM channels_sqlite_historyfloor ORDER BY floor")
    assert floors == [("room.7",), ("room.8",), ("room.9",)]
    for number, position in enumerate(positions):
        history = await layer.group_history(f"room.{number}", since=position)
        assert history.recovered is (number >= 6), "what is not known any more is not said to be"
        assert not (await layer.group_history(f"room.{number}", since=start)).recovered
