"""What must not grow: the files over many messages, the process over many connections."""

import asyncio
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import count_messages, receive, set_clock
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MIB = 1024 * 1024
MESSAGES = 100_000
MESSAGE_BYTES = 1000
MESSAGES_A_MINUTE = 10_000
CHUNK = 100
WAL_LIMIT_BYTES = 64 * MIB  # a checkpoint begins at 16, and the writers go on meanwhile; some 400 are written
CONNECTIONS = 10_000


class Sizes:
    """The largest that the files have been. Only `os.stat` looks at them: opening them would drop SQLite's locks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.database_bytes = 0
        self.wal_bytes = 0

    def look(self) -> None:
        self.database_bytes = max(self.database_bytes, os.stat(self._path).st_size)
        self.wal_bytes = max(self.wal_bytes, self.wal_now_bytes())

    def wal_now_bytes(self) -> int:
        try:
            return os.stat(f"{self._path}-wal").st_size
        except FileNotFoundError:
            return 0


async def exchange(
    layer: SqliteChannelLayer, channel: str, messages: int, sizes: Sizes, *, message_bytes: int = MESSAGE_BYTES
) -> None:
    """Send and receive so many messages on one channel, with a look at the files now and then."""

    async def receive_into(received: list[int]) -> None:
        received.append((await layer.receive(channel))["n"])

    payload = "x" * message_bytes
    for start in range(0, messages, CHUNK):
        numbers = range(start, start + CHUNK)
        await asyncio.gather(*(layer.send(channel, {"n": number, "data": payload}) for number in numbers))
        received: list[int] = []
        await asyncio.wait_for(asyncio.gather(*(receive_into(received) for _ in numbers)), 30)
        assert received == list(numbers)
        sizes.look()


async def test_the_files_stay_small_over_a_hundred_thousand_messages(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer(expiry=60, message_retention=60, capacity=1000)
    specific = await layer.new_channel()
    sizes = Sizes(database.path)
    with set_clock() as clock:
        for start in range(0, MESSAGES, MESSAGES_A_MINUTE):
            await exchange(layer, "jobs" if start < MESSAGES // 2 else specific, MESSAGES_A_MINUTE, sizes)
            clock.shift_s += 61
            await aeventually(lambda: count_messages(database.path) == 0, 30, what="what is too old goes")
    written = MESSAGES * MESSAGE_BYTES
    assert sizes.database_bytes < written * 0.3
    assert sizes.wal_bytes < WAL_LIMIT_BYTES
    # Once it is idle the WAL is brought in and emptied.
    await aeventually(lambda: sizes.wal_now_bytes() < 64 * 1024, 15, what="the WAL is emptied when idle")


async def test_a_reader_that_sleeps_does_not_let_the_wal_grow(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, idle = make_layer(message_retention=0, capacity=1000), make_layer(message_retention=0)
    # It has a connection open, has read, and waits in receive() for something that does not come.
    waiting = asyncio.create_task(idle.receive("never"))
    await asyncio.sleep(0)
    sizes = Sizes(database.path)
    await exchange(layer, "jobs", 6000, sizes, message_bytes=20_000)
    assert sizes.wal_bytes < WAL_LIMIT_BYTES
    assert sizes.database_bytes < 8 * MIB
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_the_wal_is_bounded_without_any_options(tmp_path: Path, no_leaks: None) -> None:
    with channel_database(tmp_path, options={}) as database:
        layer = SqliteChannelLayer(message_retention=0, capacity=1000)
        try:
            sizes = Sizes(database.path)
            await exchange(layer, "jobs", 6000, sizes, message_bytes=20_000)
            assert sizes.wal_bytes < WAL_LIMIT_BYTES
        finally:
            await layer.close()


# Connections that come and go


async def one_connection(layer: SqliteChannelLayer) -> None:
    """What a consumer does with the layer in its life."""
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_send("room", {"type": "x"})
    assert await receive(layer, channel) == {"type": "x"}
    await layer.group_discard("room", channel)


async def one_cut_off_connection(layer: SqliteChannelLayer) -> None:
    """One that ends while it waits, in a group of its own, and never hears of its last message."""
    channel = await layer.new_channel()
    await layer.group_add(channel.partition("!")[2], channel)
    waiting = asyncio.create_task(layer.receive(channel))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await layer.group_discard(channel.partition("!")[2], channel)


def caches() -> list[Any]:
    """The caches of functions of the package."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "channels_sqlite"]
    return [thing for module in modules for thing in vars(module).values() if hasattr(thing, "cache_parameters")]


def objects() -> int:
    gc.collect()
    return len(gc.get_objects())


def blocks() -> int:
    """Memory blocks in use: strings and numbers, of which the collector knows nothing, count here."""
    for cache in caches():
        cache.cache_clear()  # bounded, see the test above; empty they cannot be taken for a leak
    gc.collect()
    return sys.getallocatedblocks()


def test_every_cache_is_bounded() -> None:
    assert not [cache for cache in caches() if not 0 < (cache.cache_parameters()["maxsize"] or 0) <= 20_000]


@pytest.mark.parametrize("connection", [one_connection, one_cut_off_connection])
async def test_connections_that_came_and_went_leave_no_objects(
    make_layer: LayerFactory,
    connection: Callable[[SqliteChannelLayer], Awaitable[None]],
) -> None:
    layer = make_layer(message_retention=0)
    for _ in range(500):  # caches fill, the tables of the interpreter grow
        await connection(layer)
    objects_before, blocks_before = objects(), blocks()
    for _ in range(CONNECTIONS):
        await connection(layer)
    # A leak of one object or string for each connection would be 10,000.
    await aeventually(lambda: objects() - objects_before < 200, what="objects as before")
    await aeventually(lambda: blocks() - blocks_before < 2000, what="memory blocks as before")
