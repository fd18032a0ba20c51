"""What the tests of faults share: a clock that can be set, a look into the file, somebody who holds the write lock."""

import asyncio
import os
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.support import inside
from tests.support.databases import fresh_file
from tests.support.waiting import aeventually

RECEIVE_DEADLINE_S = 10.0
NOTICED_S = 10.0  # "a few seconds", on a machine that does other things too


class Clock(ModuleType):
    """The `time` module as the package sees it, with a wall clock that the test can set."""

    def __init__(self) -> None:
        super().__init__("time")
        self.shift_s = 0.0

    def time(self) -> float:
        """Seconds since 1970 by the clock on this wall."""
        return time.time() + self.shift_s

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


@contextmanager
def set_clock() -> Iterator[Clock]:
    """The whole package reads this clock until the block ends. Monotonic time runs on untouched."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.split(".")[0] == "channels_sqlite" and getattr(module, "time", None) is time:
                patch.setattr(module, "time", clock)
        yield clock


def query(path: Path, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Run one statement on the file, through SQLite, and commit it."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        return connection.execute(statement, parameters).fetchall()


def count_messages(path: Path, prefix: str = "asgi") -> int:
    """How many message rows this prefix has, read ones included."""
    count: int = query(path, "SELECT count(*) FROM channels_sqlite_message WHERE prefix = ?", prefix)[0][0]
    return count


@contextmanager
def write_lock(path: Path) -> Iterator[sqlite3.Connection]:
    """Another connection holds the write lock until the block ends."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        if connection.in_transaction:
            connection.execute("ROLLBACK")


async def receive(layer: SqliteChannelLayer, channel: str, deadline_s: float = RECEIVE_DEADLINE_S) -> dict[str, Any]:
    """The next message, with a deadline for the test's sake."""
    return await asyncio.wait_for(layer.receive(channel), deadline_s)


async def receive_numbers(layer: SqliteChannelLayer, channel: str, count: int) -> list[int]:
    """The `n` of the next `count` messages."""
    return [(await receive(layer, channel))["n"] for _ in range(count)]


async def next_is_marker(layer: SqliteChannelLayer, channel: str) -> bool:
    """Whether a message sent now is the next to come, so that nothing waits before it. No waiting for nothing."""
    await layer.send(channel, {"type": "marker"})
    return await receive(layer, channel) == {"type": "marker"}


CALLS: dict[str, Callable[[SqliteChannelLayer], Awaitable[object]]] = {
    "send": lambda layer: layer.send("jobs", {"type": "refused"}),
    "group_send": lambda layer: layer.group_send("room", {"type": "refused"}),
    "group_add": lambda layer: layer.group_add("room", "refused"),
    "group_discard": lambda layer: layer.group_discard("room", "jobs"),
    "presence_join": lambda layer: layer.presence_join("room", "refused", "key"),
    "presence_update": lambda layer: layer.presence_update("room", "refused", {}),
    "presence_leave": lambda layer: layer.presence_leave("room", "refused"),
    "presence_watch": lambda layer: layer.presence_watch("room", "refused"),
    "presence_list": lambda layer: layer.presence_list("room"),
    "presence_count": lambda layer: layer.presence_count("room"),
    "presence_groups": lambda layer: layer.presence_groups("key"),
    "flush": lambda layer: layer.flush(),
    "group_channels": lambda layer: layer.group_channels("room"),
    "new_channel": lambda layer: layer.new_channel(),
    "receive": lambda layer: receive(layer, "jobs"),
}
"""Every call that needs the database."""


async def refusals(layer: SqliteChannelLayer, *names: str) -> list[str]:
    """What these calls, by default all, say when they are refused. Fails when one is not."""
    texts = []
    for name in names or CALLS:
        with pytest.raises(ChannelDatabaseError) as raised:
            await CALLS[name](layer)
        texts.append(str(raised.value))
    return texts


async def refusal(layer: SqliteChannelLayer, deadline_s: float = NOTICED_S) -> str:
    """Send until that is refused, and return what is said."""
    texts: list[str] = []

    async def refused() -> bool:
        try:
            await layer.send("unheard", {"type": "x"})
        except ChannelDatabaseError as error:
            texts.append(str(error))
            return True
        return False

    await aeventually(refused, deadline_s, what="a send is refused")
    return texts[-1]


async def assert_works(layer: SqliteChannelLayer) -> None:
    """Fail unless messages get through on every way."""
    channel = await layer.new_channel()
    normal = f"works-{uuid.uuid4().hex}"
    group = f"works-{uuid.uuid4().hex}"
    await layer.group_add(group, channel)
    await layer.group_add(group, normal)
    await layer.send(channel, {"n": 1})
    await layer.send(normal, {"n": 1})
    await layer.group_send(group, {"n": 2})
    assert await receive_numbers(layer, channel, 2) == [1, 2]
    assert await receive_numbers(layer, normal, 2) == [1, 2]


class Patient:
    """What lived before the fault: a channel in the group `room`, and receivers that wait there and on `work`."""

    def __init__(self, layer: SqliteChannelLayer) -> None:
        self._layer = layer
        self._tasks: list[asyncio.Task[dict[str, Any]]] = []
        self.channel = ""

    async def start(self) -> None:
        self.channel = await self._layer.new_channel()
        await self._layer.group_add("room", self.channel)
        self._tasks = [asyncio.create_task(self._layer.receive(name)) for name in (self.channel, "work")]
        await aeventually(self._waits)

    def _waits(self) -> bool:
        inbox = engine_of(self._layer).inbox
        return inbox.boxes.unread().channels == 1 and "work" in inbox.claims.listening()

    async def assert_served(self, sender: SqliteChannelLayer) -> None:
        """Fail unless both receivers still wait, and get what is sent now to the group and to `work`."""
        assert not [task for task in self._tasks if task.done()]

        async def is_member() -> bool:
            return self.channel in await sender.group_channels("room")

        await aeventually(is_member, NOTICED_S, what="the membership is in the file")
        await sender.group_send("room", {"type": "to-group"})
        await sender.send("work", {"type": "to-work"})
        assert await self.received() == [{"type": "to-group"}, {"type": "to-work"}]

    async def received(self) -> list[dict[str, Any]]:
        """What the two receivers got."""
        return await asyncio.wait_for(asyncio.gather(*self._tasks), RECEIVE_DEADLINE_S)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def patient_of(layer: SqliteChannelLayer) -> AsyncIterator[Patient]:
    """A patient that has begun to wait."""
    patient = Patient(layer)
    try:
        await patient.start()
        yield patient
    finally:
        await patient.stop()


async def housekeep(layer: SqliteChannelLayer) -> None:
    """One round of housekeeping now, where it always runs: on the layer's thread.

    Nothing is done while another layer is at it, so that what must have happened is waited for where there are several.
    """
    process = engine_of(layer)
    await inside.background(process).acall(inside.housekeeping(process).run)


def files_of(path: Path) -> list[Path]:
    """The database file and what SQLite keeps beside it."""
    return [path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", "-journal"))]


def remove(path: Path) -> None:
    """Delete the database as a user would: all its files."""
    for file in files_of(path):
        file.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Delete it in one go: processes put files into it meanwhile."""
    gone = folder.with_name(f"gone-{time.monotonic_ns()}")
    folder.rename(gone)
    shutil.rmtree(gone)


def replace(path: Path) -> None:
    """Put a fresh migrated database in the place of this one."""
    fresh = fresh_file(path.parent, f"fresh-{time.monotonic_ns()}.sqlite3")
    for file in files_of(path)[1:]:
        file.unlink(missing_ok=True)
    os.replace(fresh, path)


def move(path: Path, to: Path) -> None:
    """Move a database with what SQLite keeps beside it."""
    for source, target in zip(files_of(path), files_of(to), strict=True):
        if source.exists():
            shutil.move(source, target)
