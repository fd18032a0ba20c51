"""What processes leave behind, on disk and in the database, and how the tests look at it."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from channels_sqlite.layers import SqliteChannelLayer
from tests.support.databases import ChannelDatabase
from tests.support.waiting import eventually

SETTLE_DEADLINE_S = 20.0
"""For what takes milliseconds on a free machine, and may take seconds on a loaded one."""

BURIAL_DEADLINE_S = 8.0
"""A dead process is noticed within seconds."""


class Journal:
    """A file with one JSON value a line, written at once, so that it outlives a SIGKILL of its writer."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, value: object) -> None:
        os.write(self._fd, json.dumps(value).encode() + b"\n")

    def close(self) -> None:
        os.close(self._fd)


def read_journal(path: Path) -> list[Any]:
    """Everything in a journal; nothing when it does not exist yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def count_lines(path: Path) -> int:
    """How many values a journal has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def query(database: ChannelDatabase, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Ask the database behind the layer's back, through SQLite."""
    with closing(sqlite3.connect(database.path, timeout=10)) as connection:
        return connection.execute(sql, parameters).fetchall()


def count_rows(database: ChannelDatabase) -> int:
    """How many message rows there are."""
    return int(query(database, "SELECT count(*) FROM channels_sqlite_message")[0][0])


def count_waiting(database: ChannelDatabase) -> int:
    """How many messages wait on normal channels."""
    return int(query(database, "SELECT count(*) FROM channels_sqlite_message WHERE kind = 0 AND state = 0")[0][0])


def registered_clients(database: ChannelDatabase) -> set[str]:
    """The clients in the registry of processes."""
    return {client for (client,) in query(database, "SELECT client FROM channels_sqlite_process")}


def wake_folder(database: ChannelDatabase) -> list[str]:
    """The names of the files that processes keep beside the database while they live."""
    folder = Path(f"{database.path}.wake")
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def newest_message(database: ChannelDatabase) -> int:
    """The id of the message that was sent last."""
    return int(query(database, "SELECT max(id) FROM channels_sqlite_message")[0][0])


class Suspendable(Protocol):
    """A process of the tests."""

    def suspend(self) -> None:
        """Return once it has stopped."""

    def resume(self) -> None:
        """Let it go on."""


def suspend_without_the_lock(child: Suspendable, database: ChannelDatabase) -> None:
    """Suspend a process when it does not hold the write lock, with which it would keep everybody from writing."""

    def suspended() -> bool:
        child.suspend()
        try:
            with closing(sqlite3.connect(database.path, isolation_level=None, timeout=0.2)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            child.resume()
            return False
        return True

    eventually(suspended, SETTLE_DEADLINE_S)


def traces_of(database: ChannelDatabase, client: str, read_up_to: int = 0) -> list[str]:
    """What a client has in the database and beside it; nothing once it was cleaned up after.

    Messages up to the id `read_up_to` had been read, and are kept for looking back.
    """
    traces = [name for name in wake_folder(database) if client in name]
    for table in ("process", "membership", "listener"):
        rows = query(database, f"SELECT count(*) FROM channels_sqlite_{table} WHERE client = ?", client)
        traces += [f"{rows[0][0]} rows in {table}"] if rows[0][0] else []
    statement = "SELECT count(*) FROM channels_sqlite_message WHERE kind = 1 AND client = ? AND id > ?"
    unread = query(database, statement, client, read_up_to)
    traces += [f"{unread[0][0]} messages"] if unread[0][0] else []
    return traces


def client_of(channel: str) -> str:
    """The part of a process-specific name that its process owns."""
    return channel.partition("!")[0].rpartition(".")[2]


def numbered(sender: str, number: int) -> dict[str, object]:
    """A message that says who sent it and in which place, with a filling by which a torn message would show."""
    return {"type": "numbered", "sender": sender, "number": number, "filling": f"{sender}-{number};" * 20}


def is_whole(message: dict[str, Any]) -> bool:
    """Whether a numbered message came as it was sent."""
    return message == numbered(message["sender"], message["number"])


def by_sender(messages: list[dict[str, Any]]) -> dict[Any, list[int]]:
    """The numbers of each sender in the order in which they came."""
    numbers: dict[Any, list[int]] = {}
    for message in messages:
        numbers.setdefault(message["sender"], []).append(message["number"])
    return numbers


async def until_gone(
    database: ChannelDatabase, client: str, deadline_s: float = BURIAL_DEADLINE_S, *, read_up_to: int = 0
) -> None:
    """Wait until a client has left nothing; AssertionError, saying what is left, when that takes too long."""
    end = time.monotonic() + deadline_s
    while traces := traces_of(database, client, read_up_to):
        if time.monotonic() >= end:
            raise AssertionError(f"client {client} has after {deadline_s:g} s: {', '.join(traces)}")
        await asyncio.sleep(0.05)


async def receive_within(layer: SqliteChannelLayer, channel: str, deadline_s: float = SETTLE_DEADLINE_S) -> Any:
    """The next message on `channel`; TimeoutError when none comes."""
    return await asyncio.wait_for(layer.receive(channel), deadline_s)


async def stays_true(condition: Callable[[], object], duration_s: float) -> bool:
    """Whether `condition()` holds at every look for so long: the way to see that something does not happen."""
    end = time.monotonic() + duration_s
    while time.monotonic() < end:
        if not condition():
            return False
        await asyncio.sleep(0.05)
    return True
