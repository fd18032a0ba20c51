"""The helpers that other tests lean on: a check that cannot fail checks nothing."""

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import psutil
import pytest
import pytest_django
from django.db import connections

from tests.support.child import Parent
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.leaks import belongings, leftovers
from tests.support.processes import ChildFailedError, ProcessFactory
from tests.support.programs import runs
from tests.support.waiting import aeventually, eventually

SHORT_S = 0.1


@contextmanager
def _thread() -> Iterator[None]:
    go = threading.Event()
    thread = threading.Thread(target=go.wait, name="left behind")
    thread.start()
    yield
    go.set()
    thread.join()


@contextmanager
def _socket() -> Iterator[None]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM):
        yield


@contextmanager
def _file() -> Iterator[None]:
    with Path(__file__).open():
        yield


@contextmanager
def _connection() -> Iterator[None]:
    connection = sqlite3.connect(":memory:")
    yield
    connection.close()


@contextmanager
def _process() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        yield
        child.kill()


@pytest.mark.parametrize(
    ("leak", "name"),
    [
        (_thread, "thread 'left behind'"),
        (_socket, "socket:"),
        (_file, "test_support.py"),
        (_connection, "open SQLite connection"),
        (_process, "child process"),
    ],
)
def test_leftovers_are_found_and_named(leak: Callable[[], AbstractContextManager[None]], name: str) -> None:
    before = belongings()
    with leak():
        found = leftovers(before, SHORT_S)
    assert any(name in text for text in found), found
    assert leftovers(before) == []


async def test_layers_run_on_the_fresh_database(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    sender, receiver = make_layer(), make_layer(capacity=1)
    await sender.send("channel", {"type": "hello"})
    assert await asyncio.wait_for(receiver.receive("channel"), 5) == {"type": "hello"}
    with closing(sqlite3.connect(database.path)) as connection:
        assert connection.execute("SELECT count(*) FROM channels_sqlite_message").fetchone() == (1,)


def test_channel_database_is_an_alias_only_inside_the_block(
    tmp_path: Path, django_db_blocker: pytest_django.DjangoDbBlocker
) -> None:
    assert "further" not in connections
    with channel_database(tmp_path, alias="further", options={}) as database, django_db_blocker.unblock():
        with connections["further"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM channels_sqlite_message")
            assert cursor.fetchone() == (0,)
        assert Path(connections["further"].settings_dict["NAME"]) == database.path
        assert connections["further"].settings_dict["OPTIONS"] == {}
    assert "further" not in connections


def test_channel_database_puts_the_alias_back(tmp_path: Path) -> None:
    before = connections["channels"].settings_dict["NAME"]
    with channel_database(tmp_path):
        assert connections["channels"].settings_dict["NAME"] != before
    assert connections["channels"].settings_dict["NAME"] == before


def test_channel_database_can_be_left_unmade(tmp_path: Path) -> None:
    with channel_database(tmp_path, migrated=False) as database:
        assert not database.path.exists()


def _doubles(parent: Parent, *, start: int) -> None:
    parent.say(start)
    print("not a message")  # noqa: T201
    while True:
        parent.say(parent.hear() * 2)


async def _receives(parent: Parent, *, channel: str) -> None:
    layer = parent.make_layer()
    parent.say("ready")
    parent.say(await layer.receive(channel))
    parent.say(await parent.ahear())


def _fails(parent: Parent) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.processes
def test_process_talks_stops_and_is_killed(start_process: ProcessFactory) -> None:
    child = start_process(_doubles, start=7)
    assert child.hear() == 7
    child.say(4)
    assert child.hear() == 8
    child.suspend()
    child.say(5)
    with pytest.raises(ChildFailedError, match="said nothing"):
        child.hear(SHORT_S)
    child.resume()
    assert child.hear() == 10
    assert "not a message" in child.stderr
    child.kill()
    assert not child.running
    with pytest.raises(ChildFailedError, match="exit status -9"):
        child.hear()


@pytest.mark.processes
async def test_process_receives_from_a_layer_here(
    start_process: ProcessFactory, make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    child = start_process(_receives, database=database, config={"capacity": 5}, channel="across")
    assert await child.ahear() == "ready"
    await make_layer().send("across", {"from": os.getpid()})
    assert await child.ahear() == {"from": os.getpid()}
    child.say(["done"])
    assert await asyncio.to_thread(child.hear_all) == [["done"]]


@pytest.mark.processes
def test_process_that_fails_is_told_with_its_stderr(start_process: ProcessFactory) -> None:
    child = start_process(_fails)
    with pytest.raises(ChildFailedError, match="on purpose"):
        child.hear()
    child.wait(expected=1)


async def test_eventually_returns_what_it_waited_for() -> None:
    results = iter([0, None, 3])
    assert eventually(lambda: next(results)) == 3
    results = iter([0, None, 3])
    assert await aeventually(lambda: next(results)) == 3

    async def at_last() -> int:
        return 5

    assert await aeventually(at_last) == 5


async def test_eventually_gives_up_with_the_last_result() -> None:
    with pytest.raises(AssertionError, match=r"the moon.*last result: \[\]"):
        eventually(list, SHORT_S, what="the moon")
    with pytest.raises(AssertionError, match=r"not within 0.1 s: list"):
        await aeventually(list, SHORT_S)


# Programs

FIRST_THREAD_ENDS = """
import ctypes, sys, threading
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="how Linux shows a process whose first thread has ended")
def test_a_process_whose_first_thread_has_ended_still_runs() -> None:
    with subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        process = psutil.Process(child.pid)
        eventually(lambda: process.status() == psutil.STATUS_ZOMBIE, what="the end of the first thread")
        assert runs(process)
        child.stdin.close()
        eventually(lambda: not runs(process), what="the end of the process")
