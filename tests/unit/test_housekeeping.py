"""Housekeeping by itself: who may do it, what a round does, and that it never opens the database's files."""

import builtins
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from channels_sqlite.background import BackgroundThread
from channels_sqlite.presence import (
    HousekeepingLock,
    LockFile,
    MeetingPlace,
    is_dead,
    machine_id,
    remove_orphans,
    remove_traces,
)
from channels_sqlite.store import ProcessRow
from tests.faults.support import Clock, count_messages, housekeep, query, receive, set_clock
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually, eventually

LARGE = b"x" * 500_000
LARGE_MESSAGES = 40
GONE_PID = 2**22 + 1  # more than Linux ever gives


@pytest.fixture
def clock() -> Iterator[Clock]:
    with set_clock() as clock:
        yield clock


@pytest.fixture
def place(no_leaks: None, tmp_path: Path) -> MeetingPlace:
    database = tmp_path / "channels.sqlite3"
    database.touch()
    return MeetingPlace(str(database))


def wal_bytes(database: ChannelDatabase) -> int:
    """The size of the WAL, found without opening it."""
    try:
        return os.stat(f"{database.path}-wal").st_size
    except FileNotFoundError:
        return 0


# The election


def test_one_process_at_a_time_is_elected(place: MeetingPlace) -> None:
    with HousekeepingLock(place) as first, HousekeepingLock(place) as second:
        assert (first, second) == (True, False)
    with HousekeepingLock(place) as again:
        assert again is True


async def test_who_is_not_elected_does_nothing(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(message_retention=100)
    await layer.send("jobs", {"n": 1})
    process = layer._process
    assert process is not None
    assert process._place is not None
    lock = HousekeepingLock(process._place)
    # The layer's own thread may be at it just now.
    await aeventually(lock.__enter__)
    try:
        clock.shift_s += 200
        await housekeep(layer)
        assert count_messages(database.path) == 1
    finally:
        lock.__exit__()
    await aeventually(lambda: count_messages(database.path) == 0)


async def test_a_round_that_never_ends_keeps_others_from_checkpoints_alone(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    """As when a process is suspended in the middle of its round."""
    layer = make_layer(message_retention=100, capacity=1000)
    await layer.send("jobs", {"n": 0})
    process = layer._process
    assert process is not None
    assert process._place is not None
    lock = HousekeepingLock(process._place)
    await aeventually(lock.__enter__)
    try:
        for number in range(LARGE_MESSAGES):
            await layer.send("jobs", {"n": number, "data": LARGE})
        clock.shift_s += 200
        await aeventually(lambda: count_messages(database.path) == 0, 60)
        await housekeep(layer)
        assert wal_bytes(database) > LARGE_MESSAGES * len(LARGE)
    finally:
        lock.__exit__()
    await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)


# Checkpoints


async def test_a_large_wal_is_brought_in_and_emptied(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(capacity=1000)
    for number in range(LARGE_MESSAGES):
        await layer.send("jobs", {"n": number, "data": LARGE})
    await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)  # a disk may be slow
    assert database.path.stat().st_size > LARGE_MESSAGES * len(LARGE)
    assert (await receive(layer, "jobs"))["n"] == 0


async def test_connections_never_checkpoint_by_themselves(make_layer: LayerFactory) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    process = layer._process
    assert process is not None
    assert process._connections is not None
    for connection in (process._connections.inline, process._connections.reader, process._connections.patient):
        assert connection.raw.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)


async def test_a_reader_in_a_transaction_does_not_make_housekeeping_fail(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(message_retention=0, capacity=1000)
    await layer.send("jobs", {"n": 0})
    with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM channels_sqlite_message").fetchall()  # keeps the WAL from being reset
        for number in range(1, LARGE_MESSAGES):
            await layer.send("jobs", {"n": number, "data": LARGE})
        await housekeep(layer)
        await housekeep(layer)
        reader.execute("COMMIT")
    await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)  # a disk may be slow
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert (await receive(layer, "jobs"))["n"] == 0


async def test_the_files_of_the_database_are_never_opened_by_hand(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing a file that was opened by hand would drop SQLite's locks on it, in the whole process."""
    opened: list[str] = []

    def note(function: Any) -> Any:
        def noted(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int):
                opened.append(os.fspath(path))
            return function(path, *arguments, **options)

        return noted

    monkeypatch.setattr(os, "open", note(os.open))
    monkeypatch.setattr(builtins, "open", note(builtins.open))
    layer = make_layer(message_retention=10, expiry=5)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(10):
        await layer.send("jobs", {"n": number, "data": b"x" * 500_000})
    clock.shift_s += 20
    await housekeep(layer)
    await layer.close()
    assert opened, "nothing was noted: this test tests nothing"
    assert not [path for path in opened if path.startswith(str(database.path)) and ".wake" not in path]


# The dead


def lock_of(place: MeetingPlace, client: str) -> Path:
    return Path(place.path(f"{client}.lock"))


def row(client: str, pid: int, machine: str) -> ProcessRow:
    return ProcessRow(client, pid, machine, f"{client}.sock", 0, 0, 0)


def test_who_holds_its_lock_lives(place: MeetingPlace) -> None:
    lock = LockFile(str(lock_of(place, "alive")))
    assert not is_dead(row("alive", GONE_PID, ""), place)
    lock.release()


def test_who_left_its_lock_file_unlocked_is_dead_and_its_files_go(place: MeetingPlace) -> None:
    lock_of(place, "dead").touch()
    Path(place.path("dead.sock")).touch()
    dead = row("dead", os.getpid(), "")
    assert is_dead(dead, place)
    # Not before all that it left in the database is gone: whoever continues a burial needs the proof again.
    assert is_dead(dead, place)
    remove_traces(dead, place)
    assert not lock_of(place, "dead").exists()
    assert not Path(place.path("dead.sock")).exists()


def test_without_a_lock_file_only_the_kernel_says_who_is_gone(place: MeetingPlace) -> None:
    here = machine_id()
    assert is_dead(row("gone", GONE_PID, here), place)
    assert not is_dead(row("alive", os.getpid(), here), place)
    assert is_dead(row("before-the-restart", os.getpid(), "another-boot/1"), place)
    assert not is_dead(row("elsewhere", GONE_PID, f"{here.partition('/')[0]}/another-namespace"), place)


def test_orphaned_files_go_once_they_are_old_unless_somebody_holds_them(place: MeetingPlace) -> None:
    names = ("old", "held", "known", "young")
    lock = LockFile(str(lock_of(place, "held")))
    for name in names:
        lock_of(place, name).touch()
        if name != "young":
            os.utime(lock_of(place, name), (0, 0))
    remove_orphans(place, {"known"})
    assert {name for name in names if lock_of(place, name).exists()} == {"held", "known", "young"}
    lock.release()


async def hold_a_channel(parent: Parent) -> None:
    layer = parent.make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    parent.say(channel)
    await layer.receive(channel)


@pytest.mark.processes
async def test_a_round_buries_a_killed_process_and_leaves_a_suspended_one(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory, clock: Clock
) -> None:
    killed, suspended = (start_process(hold_a_channel, database=database) for _ in range(2))
    channels = [await child.ahear() for child in (killed, suspended)]
    layer = make_layer()
    suspended.suspend()
    killed.kill()
    for channel in channels:
        await layer.send(channel, {"n": 1})
    clock.shift_s += 50  # a clock says nothing about who is dead

    async def only_the_suspended_one_is_left() -> bool:
        return await layer.group_channels("room") == [channels[1]]

    await aeventually(only_the_suspended_one_is_left, 20)  # it may have been suspended while it was elected
    assert len(query(database.path, "SELECT * FROM channels_sqlite_process")) == 1
    await housekeep(layer)
    assert await layer.group_channels("room") == [channels[1]]
    suspended.resume()


# The thread


def test_a_job_that_comes_after_the_thread_was_told_to_stop_is_run() -> None:
    ticks = 0

    def tick() -> float:
        nonlocal ticks
        ticks += 1
        return 0.01

    thread = BackgroundThread("channels-sqlite[test]", tick)
    thread.submit(lambda: None)
    eventually(lambda: ticks >= 2)
    thread.stopping.set()
    time.sleep(0.05)  # longer than a tick, which finds that the thread is to stop
    ran = threading.Event()
    thread.submit(ran.set)
    assert ran.wait(5)
    thread.stop(5)


def test_what_a_job_raises_is_told_and_the_next_one_is_run(caplog: pytest.LogCaptureFixture) -> None:
    thread = BackgroundThread("channels-sqlite[test]", lambda: None)
    ran = threading.Event()
    thread.submit(lambda: 1 / 0)
    thread.submit(ran.set)
    assert ran.wait(5)
    thread.stop(5)
    assert "ZeroDivisionError" in caplog.text


# When there is nothing to do


@pytest.mark.slow
async def test_a_layer_that_only_sent_empties_the_wal_before_it_sleeps(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    for number in range(3):
        await layer.send("jobs", {"n": number, "data": LARGE})
    assert wal_bytes(database) > len(LARGE)
    await aeventually(lambda: wal_bytes(database) < 64 * 1024, 15)


async def test_a_layer_that_only_sent_lets_its_thread_sleep(make_layer: LayerFactory) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    process = layer._process
    assert process is not None
    await aeventually(lambda: process._sleeping, 15, what="no more ticks")
    await layer.send("jobs", {"n": 2})
    assert not process._sleeping
