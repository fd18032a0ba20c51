"""Where nothing happens, polling rests; and whatever is committed is found as soon as it would be without that."""

import asyncio
import select
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from channels_sqlite.concurrency.gate import Stop
from channels_sqlite.engine.engine import Engine
from channels_sqlite.layers import SqliteChannelLayer, close_layer, engine_of
from channels_sqlite.sync.own import SqliteBlocking
from channels_sqlite.waking.pace import Pace
from channels_sqlite.waking.wake_socket import WakeSocket
from channels_sqlite.waking.write_alarm import WriteAlarm
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually, eventually

INTERVAL_S = 0.02
DEADLINE_S = 20.0

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel tells of writes on Linux alone")


# The alarm


@pytest.fixture
def alarm(no_leaks: None) -> Iterator[WriteAlarm]:
    with closing(WriteAlarm()) as made:
        yield made


@pytest.fixture
def wal(no_leaks: None, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a database with a WAL."""
    with closing(connect(tmp_path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t(a)")
        yield connection


def connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "c.sqlite3", isolation_level=None, timeout=0)


def rings(alarm: WriteAlarm) -> bool:
    return bool(select.select([alarm], [], [], 0)[0])


@linux
def test_an_alarm_rings_at_a_commit_and_must_be_set_again(
    alarm: WriteAlarm, wal: sqlite3.Connection, tmp_path: Path
) -> None:
    path = str(tmp_path / "c.sqlite3-wal")
    for number in range(3):
        assert alarm.set(path)
        assert not rings(alarm)
        wal.execute("INSERT INTO t VALUES (?)", (number,))
        assert rings(alarm)


@linux
def test_taking_the_write_lock_for_a_moment_rings_nobodys_alarm(
    alarm: WriteAlarm, wal: sqlite3.Connection, tmp_path: Path
) -> None:
    """Else the processes of one database would wake each other for ever."""
    assert alarm.set(str(tmp_path / "c.sqlite3-wal"))
    with closing(connect(tmp_path)) as other:
        before = wal.execute("PRAGMA data_version").fetchone()
        other.execute("DELETE FROM t WHERE 0")
        assert wal.execute("PRAGMA data_version").fetchone() == before
    assert not rings(alarm)


def test_an_alarm_on_a_missing_file_cannot_be_set(alarm: WriteAlarm, tmp_path: Path) -> None:
    assert not alarm.set(str(tmp_path / "missing"))


@linux
def test_a_closed_alarm_can_be_set_again(alarm: WriteAlarm, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert alarm.set(str(file))
    alarm.close()
    alarm.close()
    assert alarm.set(str(file))
    file.write_text("x")
    assert rings(alarm)


# The pace


class Polls:
    """What a pace asks for, and what it is told."""

    wake_socket: WakeSocket | None = None

    def __init__(self) -> None:
        self.interval_s = INTERVAL_S
        self.changed = False
        self.quiet = True
        self.during_rest: Callable[[], object] = lambda: None

    def pace(self, interval_s: float = INTERVAL_S) -> Pace:
        self.interval_s = interval_s
        return Pace(self)

    def look(self) -> bool:
        return True

    def poll(self) -> bool:
        return self.changed

    def failed(self, what: str, error: Exception) -> None:
        raise error

    def rest(self, alarm: WriteAlarm) -> bool:
        self.during_rest()
        return self.quiet


def rests(pace: Pace) -> bool:
    return pace.resting


def poll(pace: Pace, times: int = 20) -> None:
    for _ in range(times):
        pace.poll()


def test_polling_rests_after_some_that_found_nothing_and_goes_on_when_roused() -> None:
    pace = Polls().pace()
    pace.poll()
    assert pace.interval_s == INTERVAL_S
    poll(pace)
    assert rests(pace)
    assert pace.interval_s > INTERVAL_S
    pace.rouse()
    assert pace.interval_s == INTERVAL_S


def test_polling_does_not_rest_while_something_changes_or_somebody_writes() -> None:
    polls = Polls()
    pace = polls.pace()
    polls.changed = True
    poll(pace)
    assert not rests(pace)
    polls.changed, polls.quiet = False, False
    poll(pace)
    assert not rests(pace)
    polls.quiet = True
    poll(pace)
    assert rests(pace)
    polls.changed = True
    pace.poll()
    assert not rests(pace)


def test_being_roused_while_the_alarm_is_set_counts() -> None:
    """As when the database is opened anew meanwhile, by another thread."""
    polls = Polls()
    pace = polls.pace()
    polls.during_rest = pace.rouse
    poll(pace)
    assert not rests(pace)


def test_a_long_interval_leaves_nothing_to_rest_from() -> None:
    pace = Polls().pace(interval_s=5)
    poll(pace)
    assert pace.interval_s == 5


# A whole layer


def loop_rests(process: Engine) -> bool:
    return process.watches.of(asyncio.get_running_loop()).pace.resting


@linux
@pytest.mark.parametrize("channel", ["work", "own"])
async def test_what_a_stranger_inserts_while_polling_rests_is_found(
    channel: str, database: ChannelDatabase, make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stranger wakes nobody, and the slow polls of a resting loop would come too late."""
    layer, sender = make_layer(polling_interval=INTERVAL_S), make_layer()
    monkeypatch.setattr("channels_sqlite.waking.pace.REST_S", 3600)
    own = await layer.new_channel()
    name = own if channel == "own" else "work"
    for number in range(3):
        waiting = asyncio.ensure_future(layer.receive(name))
        await aeventually(lambda: loop_rests(engine_of(layer)), DEADLINE_S)
        with monkeypatch.context() as mute:
            mute.setattr("channels_sqlite.waking.sender.Sender.wake", lambda sender, clients: 0)
            await sender.send(name, {"type": "t", "number": number})
            message = await asyncio.wait_for(waiting, DEADLINE_S)
        assert message["number"] == number


@linux
async def test_polling_does_not_rest_in_the_middle_of_a_transaction(
    database: ChannelDatabase, make_layer: LayerFactory
) -> None:
    """It may have written to the file already, so that no alarm would ring when it commits."""
    layer = make_layer(polling_interval=INTERVAL_S)
    waiting = asyncio.ensure_future(layer.receive(await layer.new_channel()))
    await aeventually(lambda: loop_rests(engine_of(layer)), DEADLINE_S)
    process = engine_of(layer)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        assert not process.inbox.reader.nobody_writes()
        writer.execute("ROLLBACK")
    await aeventually(process.inbox.reader.nobody_writes, DEADLINE_S)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@linux
def test_a_waiting_thread_rests_and_finds_what_a_stranger_inserts(
    database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_sqlite.waking.pace.REST_S", 3600)
    monkeypatch.setattr("channels_sqlite.waking.sender.Sender.wake", lambda sender, clients: 0)
    reader = SqliteChannelLayer(database=database.alias, polling_interval=INTERVAL_S)
    sender = SqliteChannelLayer(database=database.alias)
    found: list[object] = []

    def receive() -> None:
        until = time.monotonic() + DEADLINE_S
        found.append(SqliteBlocking(reader).receive(["work"], until, Stop(), patient=False))

    with ExitStack() as stack:
        stack.callback(close_layer, reader)
        stack.callback(close_layer, sender)
        thread = threading.Thread(target=receive)
        thread.start()
        eventually(lambda: engine_of(reader).watches.threads.pace.resting, DEADLINE_S)
        blocking = SqliteBlocking(sender)
        blocking.send("work", [blocking.encode({"type": "t"})], None)
        thread.join(DEADLINE_S)
        assert found == [("work", {"type": "t"})]
