"""Housekeeping by itself: who may do it, what a round does, and that it never opens the database's files."""

import builtins
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.engine import checkpoints
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.processes.liveness import is_dead, machine_id, remove_orphans, remove_traces
from channels_sqlite.processes.lock_files import ElectionLock, LockFile
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.waking.wake_socket import WakeSocket
from tests.faults.support import Clock, count_messages, housekeep, query, receive, set_clock
from tests.processes.evidence import suspend_without_the_lock
from tests.support import inside
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ROOT, ProcessFactory
from tests.support.waiting import aeventually, eventually

LARGE = b"x" * 500_000
LARGE_MESSAGES = 40
GONE_PID = 2**22 + 1  # more than Linux ever gives

# Holds what SQLite calls WAL_CKPT_LOCK until its input ends.
HOLD_CHECKPOINT_LOCK = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(fd, fcntl.LOCK_EX, 1, 121)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def clock() -> Iterator[Clock]:
    with set_clock() as clock:
        yield clock


@pytest.fixture
def place(no_leaks: None) -> Iterator[MeetingPlace]:
    """A meeting place whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="cs-") as folder:
        database = Path(folder, "c.sqlite3")
        database.touch()
        yield MeetingPlace(str(database))


def place_of(layer: SqliteChannelLayer) -> MeetingPlace:
    process = engine_of(layer)
    assert process.database.place is not None
    return process.database.place


def wal_bytes(database: ChannelDatabase) -> int:
    """The size of the WAL, found without opening it."""
    try:
        return os.stat(f"{database.path}-wal").st_size
    except FileNotFoundError:
        return 0


# The election


def test_one_process_at_a_time_is_elected(place: MeetingPlace) -> None:
    with ElectionLock(place, "housekeeping") as first, ElectionLock(place, "housekeeping") as second:
        assert (first, second) == (True, False)
    with ElectionLock(place, "housekeeping") as again:
        assert again is True


async def test_who_is_not_elected_does_nothing(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(message_retention=100)
    await layer.send("jobs", {"n": 1})
    lock = ElectionLock(place_of(layer), "housekeeping")
    # The layer's own thread may be at it just now.
    await aeventually(lock.__enter__)
    try:
        clock.shift_s += 200
        await housekeep(layer)
        assert count_messages(database.path) == 1
    finally:
        lock.__exit__()
    await aeventually(lambda: count_messages(database.path) == 0)


async def test_a_round_that_never_ends_keeps_nobody_from_anything(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    """As when a process is suspended in the middle of its round."""
    layer = make_layer(message_retention=100, capacity=1000)
    await layer.send("jobs", {"n": 0})
    lock = ElectionLock(place_of(layer), "housekeeping")
    await aeventually(lock.__enter__)
    try:
        for number in range(LARGE_MESSAGES):
            await layer.send("jobs", {"n": number, "data": LARGE})
        clock.shift_s += 200
        await aeventually(lambda: count_messages(database.path) == 0, 60)
        await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)
    finally:
        lock.__exit__()


async def test_a_checkpoint_that_never_ends_keeps_others_from_theirs_where_two_could_do_damage_and_is_told(
    make_layer: LayerFactory,
    database: ChannelDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As when a process is suspended in the middle of one, with its lock but not yet SQLite's own."""
    monkeypatch.setattr(checkpoints, "has_wal_reset_bug", lambda version: True)
    monkeypatch.setattr(checkpoints, "HELD_UP_BYTES", LARGE_MESSAGES * len(LARGE) // 2)
    monkeypatch.setattr(checkpoints, "HELD_UP_S", 0.1)
    layer = make_layer(capacity=1000)
    await layer.send("jobs", {"n": 0})
    lock = ElectionLock(place_of(layer), "checkpoint")
    await aeventually(lock.__enter__)
    try:
        for number in range(LARGE_MESSAGES):
            await layer.send("jobs", {"n": number, "data": LARGE})
        await aeventually(lambda: f"process {os.getpid()} began one and does not end it" in caplog.text)
        assert wal_bytes(database) > LARGE_MESSAGES * len(LARGE)
        # A later SQLite minds itself that there is one at a time.
        monkeypatch.setattr(checkpoints, "has_wal_reset_bug", lambda version: False)
        await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)
    finally:
        lock.__exit__()


async def test_a_reader_that_does_not_come_to_its_end_is_told(
    make_layer: LayerFactory,
    database: ChannelDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(checkpoints, "HELD_UP_BYTES", LARGE_MESSAGES * len(LARGE) // 2)
    monkeypatch.setattr(checkpoints, "HELD_UP_S", 0.1)
    layer = make_layer(capacity=1000)
    await layer.send("jobs", {"n": 0})
    with closing(sqlite3.connect(database.path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM channels_sqlite_message").fetchall()
        for number in range(LARGE_MESSAGES):
            await layer.send("jobs", {"n": number, "data": LARGE})
        await aeventually(lambda: "could empty the write-ahead log" in caplog.text, 20)
        reader.execute("ROLLBACK")
    await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)


async def test_a_checkpoint_of_sqlites_own_that_does_not_end_is_told(
    make_layer: LayerFactory,
    database: ChannelDatabase,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SQLite's lock for checkpoints is a byte of the -shm file (https://www.sqlite.org/walformat.html#locks)."""
    monkeypatch.setattr(checkpoints, "HELD_UP_BYTES", LARGE_MESSAGES * len(LARGE) // 2)
    monkeypatch.setattr(checkpoints, "HELD_UP_S", 0.1)
    layer = make_layer(capacity=1000)
    await layer.send("jobs", {"n": 0})
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_CHECKPOINT_LOCK, f"{database.path}-shm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for number in range(LARGE_MESSAGES):
            await layer.send("jobs", {"n": number, "data": LARGE})
        await aeventually(lambda: "no checkpoint for" in caplog.text)
        assert wal_bytes(database) > LARGE_MESSAGES * len(LARGE)
        holder.communicate()
    await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)


# Checkpoints


async def test_a_large_wal_is_brought_in_and_emptied(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(capacity=1000)
    for number in range(LARGE_MESSAGES):
        await layer.send("jobs", {"n": number, "data": LARGE})
    await aeventually(lambda: wal_bytes(database) < 1_000_000, 60)  # a disk may be slow
    # All but what the WAL may have: the checkpoint can come before the last message.
    assert database.path.stat().st_size > LARGE_MESSAGES * len(LARGE) - 1_000_000
    assert (await receive(layer, "jobs"))["n"] == 0


async def test_connections_never_checkpoint_by_themselves(make_layer: LayerFactory) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    process = engine_of(layer)
    assert process.database.connections is not None
    for connection in (
        process.database.connections.inline,
        process.database.connections.reader,
        process.database.connections.patient,
    ):
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
    return ProcessRow(client, pid, machine, f"{client}.sock", 0, "{}", 0)


def test_who_holds_its_lock_lives(place: MeetingPlace) -> None:
    lock = LockFile(str(lock_of(place, "alive")))
    assert not is_dead(row("alive", GONE_PID, ""), place)
    lock.release()


def test_who_makes_its_lock_file_anew_is_never_taken_for_dead(place: MeetingPlace) -> None:
    """A cleaner of temporary files removes it again and again, while another process sweeps."""
    row = ProcessRow("client", os.getpid(), machine_id(), "client.sock", 0, "{}", 0)
    lock = LockFile(place.path("client.lock"))
    done = threading.Event()
    program = """if 1:
        import sys
        from channels_sqlite.processes.meeting_place import MeetingPlace
        from channels_sqlite.processes.liveness import is_dead, remove_orphans
        from channels_sqlite.storage.readers import ProcessRow
        place = MeetingPlace(sys.argv[1])
        row = ProcessRow("client", int(sys.argv[2]), sys.argv[3], "client.sock", 0, "{}", 0)
        print("ready", flush=True)
        dead = 0
        for _ in range(20000):
            dead += is_dead(row, place)
            if not _ % 50:
                remove_orphans(place, lambda client: False)
        print(dead, flush=True)
    """
    path = str(place.folder).removesuffix(".wake")
    command = [sys.executable, "-c", program, path, str(row.pid), row.machine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as sweeping:
        assert sweeping.stdout is not None
        assert sweeping.stdout.readline() == "ready\n"

        def clean() -> None:
            while not done.is_set():
                Path(lock.path).unlink(missing_ok=True)
                lock.acquire()

        cleaner = threading.Thread(target=clean)
        cleaner.start()
        dead = sweeping.stdout.readline()
        done.set()
        cleaner.join()
    assert dead == "0\n"
    lock.release()
    remove_orphans(place, lambda client: False)
    assert [path.name for path in place.folder.iterdir()] == []


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


def test_orphaned_files_go_at_once_unless_somebody_holds_them(place: MeetingPlace) -> None:
    names = ("dead", "held", "known", "housekeeping")
    for name in names:
        lock_of(place, name).touch()
    Path(place.path("dead.sock")).touch()
    lock = LockFile(str(lock_of(place, "held")))
    remove_orphans(place, {"known"}.__contains__)
    assert {name for name in names if lock_of(place, name).exists()} == {"held", "known", "housekeeping"}
    assert not Path(place.path("dead.sock")).exists()
    lock.release()


def test_of_sockets_without_a_lock_file_those_go_that_nobody_has_bound(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "alive")) as alive, closing(WakeSocket(place, "known")) as known:
        dead = WakeSocket(place, "dead")
        for each in (dead, known):
            each.abandon()
        remove_orphans(place, {"known"}.__contains__)
        assert [each.missing() for each in (alive, known, dead)] == [False, False, True]


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
    suspend_without_the_lock(suspended, database)
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
    process = engine_of(layer)
    await aeventually(lambda: not inside.ticks(process), 15, what="no more ticks")
    await layer.send("jobs", {"n": 2})
    assert inside.ticks(process)
