"""Somebody else holds the write lock for longer than the time-out: calls fail in time, say why, and nothing is lost."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.support import (
    NOTICED_S,
    assert_works,
    next_is_marker,
    patient_of,
    query,
    receive,
    receive_numbers,
    refusals,
    write_lock,
)
from tests.processes.children import send_while_suspended
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory

pytestmark = pytest.mark.faults

TIMEOUT_S = 0.3
WRITING = ("send", "group_send", "group_add", "group_discard", "flush")


@pytest.fixture
def database(no_leaks: None, tmp_path: Path) -> Iterator[ChannelDatabase]:
    """A database whose users are not patient."""
    with channel_database(tmp_path, options={"timeout": TIMEOUT_S}) as database:
        yield database


async def test_every_write_gives_up_after_the_time_out_and_says_what_may_hold_the_lock(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    with write_lock(database.path):
        for name in WRITING:
            started = time.monotonic()
            (text,) = await refusals(layer, name)
            assert TIMEOUT_S * 0.9 <= time.monotonic() - started < TIMEOUT_S + 5
            assert "locked" in text
            assert "atomic()" in text
            assert 'OPTIONS["timeout"]' in text
            assert str(database.path) in text
    await assert_works(layer)


async def test_what_was_refused_is_not_written_and_what_was_there_is_not_lost(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send("jobs", {"n": 1})
    with write_lock(database.path):
        await refusals(layer, *WRITING)
    assert await receive_numbers(layer, "jobs", 1) == [1]
    assert await next_is_marker(layer, "jobs")
    assert await layer.group_channels("room") == [channel]
    assert await next_is_marker(layer, channel)


async def test_memberships_are_as_the_file_has_them_after_a_refusal(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    stays, outside = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("room", stays)
    with write_lock(database.path):
        for call in (layer.group_discard("room", stays), layer.group_add("room", outside)):
            with pytest.raises(Exception, match="locked"):
                await call
    await layer.group_send("room", {"n": 1})
    assert await receive_numbers(layer, stays, 1) == [1]
    assert await next_is_marker(layer, outside)


async def test_writes_that_got_the_lock_in_time_keep_their_order(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 0})
    with write_lock(database.path):
        sends = [asyncio.create_task(layer.send("jobs", {"n": number})) for number in range(1, 20)]
        await asyncio.sleep(TIMEOUT_S / 3)  # let them meet the lock
        assert not [send for send in sends if send.done()]
    await asyncio.gather(*sends)
    assert await receive_numbers(layer, "jobs", 20) == list(range(20))


async def test_reading_needs_no_lock(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer, sender = make_layer(), make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await sender.send(channel, {"n": 1})
    await sender.group_send("room", {"n": 2})
    with write_lock(database.path):
        assert await receive_numbers(layer, channel, 2) == [1, 2]
        assert await layer.group_channels("room") == [channel]


async def test_a_receiver_that_waits_outlives_the_time_out(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    layer, sender = make_layer(), make_layer()
    async with patient_of(layer) as patient:
        with write_lock(database.path) as holder:
            # A message comes with the very transaction that keeps others out.
            holder.execute(
                "INSERT INTO channels_sqlite_message (prefix, kind, state, queue, created_at, expires_at, payload) "
                "VALUES ('asgi', 0, 0, 'other', ?, ?, ?)",
                (time.time(), time.time() + 60, b"\x81\xa1n\x01"),
            )
            waiting = asyncio.create_task(receive(layer, "other", 30))
            await asyncio.sleep(3 * TIMEOUT_S)  # the lock is held for longer than anybody's patience
            holder.execute("COMMIT")
            assert await waiting == {"n": 1}
        await patient.assert_served(sender)


async def test_a_message_that_could_not_be_claimed_in_time_is_claimed_later(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, sender = make_layer(), make_layer()
    assert await next_is_marker(layer, "jobs")  # from here on it is known as a listener, which takes the lock too
    await sender.send("jobs", {"n": 1})
    with write_lock(database.path):
        waiting = asyncio.create_task(receive(layer, "jobs", 30))
        await asyncio.sleep(3 * TIMEOUT_S)  # the lock is held for longer than anybody's patience
        assert not waiting.done()
    assert await waiting == {"n": 1}
    assert await next_is_marker(layer, "jobs")


async def test_a_first_use_while_the_lock_is_held_fails_in_time_and_works_later(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    with write_lock(database.path):
        for text in await refusals(layer, *WRITING, "receive", "new_channel"):
            assert "locked" in text
    await assert_works(layer)


async def test_a_file_that_is_kept_exclusively_fails_in_time_and_works_later(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    # Not in WAL mode yet, so that the layer has to switch it first.
    query(database.path, "PRAGMA journal_mode=DELETE")
    with closing(sqlite3.connect(database.path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        for text in await refusals(layer):
            assert "locked" in text
        holder.execute("ROLLBACK")
    await assert_works(layer)
    assert query(database.path, "PRAGMA journal_mode") == [("wal",)]


async def test_while_the_lock_is_held_other_calls_on_the_loop_go_on(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    with write_lock(database.path):
        refused = asyncio.create_task(refusals(layer, "send"))
        turns = 0
        while not refused.done():
            await asyncio.sleep(0.001)  # what else the loop has to do
            turns += 1
    assert turns > 20
    await refused


@pytest.mark.parametrize(
    ("options", "patience_s"),
    [
        ({"timeout": 20, "init_command": "PRAGMA busy_timeout=400"}, 0.4),
        ({"timeout": 0.4}, 0.4),
        ({"timeout": 0.1, "init_command": "PRAGMA journal_mode=WAL; PRAGMA busy_timeout=600;"}, 0.6),
    ],
)
async def test_what_the_connection_ends_up_with_is_the_time_out(
    tmp_path: Path, make_layer: LayerFactory, options: dict[str, object], patience_s: float
) -> None:
    with channel_database(tmp_path, alias="other", options=options) as database:
        layer = make_layer("other")
        await layer.send("jobs", {"n": 1})
        with write_lock(database.path):
            started = time.monotonic()
            (text,) = await refusals(layer, "send")
            assert patience_s * 0.9 <= time.monotonic() - started < patience_s + NOTICED_S / 2
            assert f"{patience_s} s" in text
        await layer.close()


@pytest.mark.processes
async def test_time_in_which_a_process_was_suspended_does_not_count(
    tmp_path: Path, start_process: ProcessFactory
) -> None:
    with channel_database(tmp_path, alias="patient", options={"timeout": 1.5}) as database:
        sender = start_process(send_while_suspended, database=database)
        assert await sender.ahear() == "ready"
        with write_lock(database.path):
            sender.say("send")
            assert await sender.ahear() == "tries"
            sender.suspend()
            await asyncio.sleep(2)  # longer than the time-out
            sender.resume()
            sender.say("go on")
            assert await sender.ahear() == "tried again"
        assert await sender.ahear() == "sent"
        sender.wait()
