"""Polling is the guarantee: whatever else fails in a tick, messages are found, and what failed is told once."""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from channels_sqlite.delivery.reader import Reader
from channels_sqlite.engine.registration import Registration
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.sync import SyncChannelLayer
from channels_sqlite.waking.loop_watch import LoopWatch
from channels_sqlite.waking.wake_socket import WakeSocket
from tests.facade.setup import facade_over
from tests.facade.threads import Threads
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.locks import held_elsewhere
from tests.support.waiting import aeventually, eventually

DEADLINE_S = 10.0


async def new_socket(layer: SqliteChannelLayer, *, held_up: bool) -> tuple[WakeSocket, WakeSocket]:
    """Remove the file of the layer's wake-up socket; return the socket and the one that takes its place.

    `held_up`: the loop stands still until that is there.
    """
    seat = inside.seat(engine_of(layer))
    before = seat.wake_socket
    assert before is not None
    Path(inside.path_of(before)).unlink()

    def after() -> WakeSocket | None:
        return seat.wake_socket if seat.wake_socket is not before else None

    new = eventually(after, DEADLINE_S) if held_up else await aeventually(after, DEADLINE_S)
    assert new is not None
    return before, new


async def test_a_socket_that_goes_while_the_loop_is_held_up_makes_nobody_deaf(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer, sender = make_layer(), make_layer()
    own = await layer.new_channel()
    receiver = asyncio.create_task(layer.receive(own))
    await sender.send(own, {"n": 0})
    assert await receiver == {"n": 0}
    receiver = asyncio.create_task(layer.receive(own))
    await asyncio.sleep(0)
    watched, _ = await new_socket(layer, held_up=True)
    for number in range(1, 5):
        await sender.send(own, {"n": number})
        assert await asyncio.wait_for(receiver, DEADLINE_S) == {"n": number}
        receiver = asyncio.create_task(layer.receive(own))
    assert watched.socket.fileno() == -1  # closed, once the loop had let go of it
    receiver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiver
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_the_number_of_a_closed_socket_is_never_watched(make_layer: LayerFactory) -> None:
    """The next file that is opened would have it, and the loop would look at that."""
    layer, sender = make_layer(), make_layer()
    own = await layer.new_channel()
    receiver = asyncio.create_task(layer.receive(own))
    await asyncio.sleep(0)
    for held_up in (True, False, True):
        before, _ = await new_socket(layer, held_up=held_up)
        left, right = socket.socketpair()  # gets the numbers that are free
        await aeventually(partial(is_closed, before), DEADLINE_S)
        left.close()
        right.close()
        await sender.send(own, {"n": 1})
        assert await asyncio.wait_for(receiver, DEADLINE_S) == {"n": 1}
        receiver = asyncio.create_task(layer.receive(own))
    receiver.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiver


def is_closed(wake: WakeSocket) -> bool:
    return wake.socket.fileno() == -1


def failing(method: Callable[..., Any]) -> Callable[..., Any]:
    def fail(*args: object, **kwargs: object) -> None:
        raise ValueError(f"{method.__name__} was made to fail")

    return fail


async def test_a_tick_does_not_wait_for_the_turn_of_whoever_reads(layer: SqliteChannelLayer) -> None:
    """Else all that is left to the background thread would wait with it."""
    engine = engine_of(layer)
    await engine.ready_to_receive()
    with held_elsewhere([engine.database.reading]):
        await asyncio.wait_for(inside.background(engine).acall(lambda: inside.tick(engine)), DEADLINE_S)


@pytest.mark.parametrize("method", ["_watch", "_change_pace"])
async def test_a_loop_polls_whatever_else_fails(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    monkeypatch.setattr(LoopWatch, method, failing(getattr(LoopWatch, method)))
    layer, sender = make_layer(), make_layer()
    own = await layer.new_channel()
    for number in range(3):
        receiver = asyncio.create_task(layer.receive(own))
        await asyncio.sleep(0.3)  # some ticks
        await sender.send(own, {"n": number})
        assert await asyncio.wait_for(receiver, DEADLINE_S) == {"n": number}
    told = [record.getMessage() for record in caplog.records if "was made to fail" in record.getMessage()]
    assert 0 < len(told) <= 3  # at most one a second


async def test_a_poll_that_fails_once_is_made_again(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layer, sender = make_layer(), make_layer()
    own = await layer.new_channel()
    receiver = asyncio.create_task(layer.receive(own))
    await asyncio.sleep(0)
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "poll", failing(Reader.poll))
        await aeventually(lambda: "poll was made to fail" in caplog.text)
    with monkeypatch.context() as patch:
        patch.setattr("channels_sqlite.waking.sender.Sender.wake", lambda sender, clients: 0)
        await sender.send(own, {"n": 1})
        assert await asyncio.wait_for(receiver, DEADLINE_S) == {"n": 1}


def test_threads_that_wait_outlive_a_poll_that_fails(
    database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = Threads()
    with facade_over(database) as facade:
        own = facade.new_channel()
        received = threads.start(SyncChannelLayer.receive, facade, own)
        with monkeypatch.context() as patch:
            patch.setattr(Reader, "poll", failing(Reader.poll))
            eventually(lambda: "poll was made to fail" in caplog.text)
            assert not received.done()
        facade.send(own, {"n": 1})
        assert received.result(DEADLINE_S) == {"n": 1}
        threads.join()


async def test_housekeeping_is_done_though_the_registration_cannot_be_kept(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    await layer.new_channel()
    housekeeping = inside.housekeeping(engine_of(layer))
    assert housekeeping is not None
    rounds: list[float] = []
    monkeypatch.setattr(Registration, "keep_up", failing(Registration.keep_up))
    monkeypatch.setattr(housekeeping, "run", lambda: rounds.append(time.monotonic()))
    await aeventually(lambda: len(rounds) >= 2, DEADLINE_S)
    assert "keep_up was made to fail" in caplog.text


async def test_descriptors_of_dead_readers_are_closed_within_seconds(
    make_layer: LayerFactory, layer: SqliteChannelLayer
) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no /proc")

    def connected() -> int:
        return inside.connected(engine_of(layer))

    await layer.send("warm-up", {"n": 0})
    readers = [make_layer() for _ in range(3)]
    for reader in readers:
        own = await reader.new_channel()
        await layer.send(own, {"n": 1})
    assert connected() == 3
    before = len(list(descriptors.iterdir()))
    for reader in readers:
        await reader.close()
    await layer.send("nobody", {"n": 1})  # keeps the sender's thread at its ticks
    await aeventually(lambda: connected() == 0, DEADLINE_S)
    assert len(list(descriptors.iterdir())) <= before - 3
