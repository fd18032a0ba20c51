"""A thousand sockets in one process, one of which no longer receives: it alone loses messages, and the log says so."""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import next_is_marker, receive_numbers
from tests.support import inside
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

SOCKETS = 1000
CAPACITY = 10
BROADCASTS = 30
DEADLINE_S = 60


class Sockets:
    """A thousand channels in the group `room`. All but the first receive all the time, as consumers do."""

    def __init__(self, layer: SqliteChannelLayer) -> None:
        self._layer = layer
        self.stalled = ""
        self.got: dict[str, list[int]] = {}

    async def open(self) -> None:
        self.stalled = await self._layer.new_channel()
        await self._layer.group_add("room", self.stalled)
        for _ in range(SOCKETS - 1):
            channel = await self._layer.new_channel()
            await self._layer.group_add("room", channel)
            self.got[channel] = []

    async def serve(self, channel: str) -> None:
        while True:
            self.got[channel].append((await self._layer.receive(channel))["n"])

    async def wait_for_each(self, expected: list[int]) -> None:
        """Every healthy socket has got exactly this."""
        try:
            await aeventually(lambda: all(len(numbers) >= len(expected) for numbers in self.got.values()), DEADLINE_S)
        finally:
            wrong = {channel: numbers for channel, numbers in self.got.items() if numbers != expected}
            assert not wrong, f"{len(wrong)} sockets missed something, such as {next(iter(wrong.items()))}"


@asynccontextmanager
async def serving(layer: SqliteChannelLayer) -> AsyncIterator[Sockets]:
    sockets = Sockets(layer)
    await sockets.open()
    tasks = [asyncio.create_task(sockets.serve(channel)) for channel in sockets.got]
    try:
        inbox = engine_of(layer).inbox
        await aeventually(lambda: inbox.boxes.waiting_channels == len(tasks), DEADLINE_S)
        yield sockets
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def kept(layer: SqliteChannelLayer, channel: str) -> list[int]:
    """What a full channel holds when it is received from at last. Nothing more comes: the next is one sent then."""
    numbers = await receive_numbers(layer, channel, CAPACITY)
    assert await next_is_marker(layer, channel)
    return numbers


async def test_broadcasts_reach_all_but_the_stalled_socket_which_keeps_the_oldest(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=CAPACITY)
    async with serving(layer) as sockets:
        for number in range(BROADCASTS):
            await layer.group_send("room", {"n": number})
            await asyncio.sleep(0)  # other connections of the process get their turn
        await sockets.wait_for_each(list(range(BROADCASTS)))
        assert await kept(layer, sockets.stalled) == list(range(CAPACITY))


async def test_sending_to_healthy_sockets_never_finds_them_full(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=CAPACITY)
    async with serving(layer) as sockets:
        for number in range(5 * CAPACITY):
            await layer.send(sockets.stalled, {"n": number})
        for number in range(5):
            for channel in sockets.got:
                await layer.send(channel, {"n": number})
            await asyncio.sleep(0)
        await sockets.wait_for_each(list(range(5)))
        assert await kept(layer, sockets.stalled) == list(range(CAPACITY))


async def send_from_elsewhere(parent: Parent, *, stalled: str, healthy: list[str], rounds: int, surplus: int) -> None:
    """Send to the stalled socket and to each healthy one, and to the group; say what was refused."""
    layer = parent.make_layer()
    refused = 0
    for number in range(surplus):
        await layer.send(stalled, {"n": number})
    for number in range(rounds):
        for channel in healthy:
            try:
                await layer.send(channel, {"n": number})
            except Exception:  # noqa: BLE001 - counted, whatever it is
                refused += 1
    parent.say(refused)
    for number in range(rounds, 2 * rounds):
        await layer.group_send("room", {"n": number})
    parent.say("sent")


@pytest.mark.processes
async def test_sending_from_another_process_never_finds_healthy_sockets_full(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    layer = make_layer(capacity=CAPACITY)
    async with serving(layer) as sockets:
        # Receivers are counted where they wait; senders elsewhere know the count within a second.
        await aeventually(lambda: _published(layer) >= SOCKETS * 0.9)
        child = start_process(
            send_from_elsewhere,
            database=database,
            config={"capacity": CAPACITY},
            stalled=sockets.stalled,
            healthy=list(sockets.got),
            rounds=4,
            surplus=3 * CAPACITY,
        )
        assert await child.ahear(DEADLINE_S) == 0
        assert await child.ahear(DEADLINE_S) == "sent"
        await sockets.wait_for_each(list(range(8)))
        assert await kept(layer, sockets.stalled) == list(range(CAPACITY))
        child.wait()


def _published(layer: SqliteChannelLayer) -> int:
    return inside.published_channels(engine_of(layer))


# The log


def drops_told(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    return [record for record in records if "full" in record.getMessage()]


async def test_drops_are_told_at_most_once_a_second_with_their_number(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=CAPACITY)
    stalled = await layer.new_channel()
    others = [await layer.new_channel() for _ in range(50)]
    receivers = [asyncio.create_task(layer.receive(channel)) for channel in others]
    await asyncio.sleep(0)
    started = time.monotonic()
    dropped = 300
    with caplog.at_level(logging.DEBUG, "channels_sqlite"):
        for number in range(CAPACITY + dropped):
            await layer.send(stalled, {"n": number})
        took = time.monotonic() - started
        lines = drops_told(caplog.records)
        assert 1 <= len(lines) <= took + 1
        # Drops that nobody hears of are what the line is for: those of the last second must be told too.
        await aeventually(lambda: _sum_of_counts(drops_told(caplog.records)) == dropped, 5)
    assert all(stalled in line.getMessage() for line in lines)
    for task in receivers:
        task.cancel()
    await asyncio.gather(*receivers, return_exceptions=True)


async def test_drops_of_the_last_second_are_told_when_the_layer_closes(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=CAPACITY)
    stalled = await layer.new_channel()
    others = [await layer.new_channel() for _ in range(20)]
    receivers = [asyncio.create_task(layer.receive(channel)) for channel in others]
    await asyncio.sleep(0)
    with caplog.at_level(logging.DEBUG, "channels_sqlite"):
        for number in range(CAPACITY + 100):
            await layer.send(stalled, {"n": number})
        for task in receivers:
            task.cancel()
        await asyncio.gather(*receivers, return_exceptions=True)
        await layer.close()
    assert _sum_of_counts(drops_told(caplog.records)) == 100


async def test_a_sender_that_falls_silent_tells_of_what_it_skipped(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=1)
    await layer.group_add("room", "jobs")
    with caplog.at_level(logging.DEBUG, "channels_sqlite"):
        for number in range(51):
            await layer.group_send("room", {"n": number})

        def broadcasts_told() -> int:
            found = [re.search(r"\((\d+) such", line.getMessage()) for line in drops_told(caplog.records)]
            return sum(int(match.group(1)) for match in found if match)

        await aeventually(lambda: broadcasts_told() == 50)


def _sum_of_counts(lines: list[logging.LogRecord]) -> int:
    counts = [re.search(r"(\d+) messages? ", line.getMessage()) for line in lines]
    return sum(int(found.group(1)) for found in counts if found)


async def test_skipped_members_are_told_at_most_once_a_second_with_how_many_of_how_many(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=CAPACITY)
    members = [await layer.new_channel() for _ in range(5)]
    for channel in members:
        await layer.group_add("room", channel)
    started = time.monotonic()
    with caplog.at_level(logging.DEBUG, "channels_sqlite"):
        for number in range(CAPACITY + 200):
            await layer.group_send("room", {"n": number})
        took = time.monotonic() - started
    lines = drops_told(caplog.records)
    assert 1 <= len(lines) <= took + 1
    assert "'room'" in lines[0].getMessage()
    assert "5 of 5" in lines[0].getMessage()


async def test_skipped_normal_members_are_told_too(make_layer: LayerFactory, caplog: pytest.LogCaptureFixture) -> None:
    layer = make_layer(capacity=CAPACITY)
    await layer.group_add("room", "full")
    await layer.group_add("room", "free")
    for number in range(CAPACITY):
        await layer.send("full", {"n": number})
    with caplog.at_level(logging.DEBUG, "channels_sqlite"):
        await layer.group_send("room", {"n": 99})
    assert ["1 of 2" in line.getMessage() for line in drops_told(caplog.records)] == [True]
    assert (await asyncio.wait_for(layer.receive("free"), 10))["n"] == 99
