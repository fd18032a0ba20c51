"""Closing a layer in use: every receiver is told, and what was claimed and not received goes back to the others."""

import asyncio
import logging
import random
import threading
from collections import Counter
from contextlib import nullcontext
from typing import Any

import pytest

from channels_sqlite.concurrency import forks
from channels_sqlite.engine import registration
from channels_sqlite.engine.seat import Seat
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.storage.connections import Connections
from tests.faults.support import receive_numbers, write_lock
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.inside import made
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually, eventually

DEADLINE_S = 10.0
NEVER_POLL_S = 60.0


async def outcome_of(task: "asyncio.Task[dict[str, Any]]") -> str:
    """How a receive() ended; the test fails where it does not."""
    done, _ = await asyncio.wait({task}, timeout=DEADLINE_S)
    assert done, "it still waits"
    error = task.exception()
    return "a message" if error is None else type(error).__name__


async def test_a_receiver_is_told_wherever_it_is_on_its_way_to_wait(layer: SqliteChannelLayer) -> None:
    """Opening takes some milliseconds, in which the receiver waits for the layer's thread."""
    chance = random.Random(1)
    outcomes: Counter[str] = Counter()
    for _ in range(60):
        receiver = asyncio.create_task(layer.receive("jobs"))
        await asyncio.sleep(chance.uniform(0, 0.02))
        await layer.close()
        outcomes[await outcome_of(receiver)] += 1
    assert outcomes == {"LayerClosedError": 60}


async def test_a_receiver_that_waits_for_a_thread_that_ends_is_told(layer: SqliteChannelLayer) -> None:
    await layer.send("warm-up", {"n": 0})
    process = engine_of(layer)
    closing = asyncio.create_task(layer.close())
    await aeventually(inside.background(process).stopping.is_set)
    # It has this process still, as one that was interrupted between its first two lines would.
    late = [asyncio.create_task(process.ready_to_receive()) for _ in range(3)]
    await closing
    late.append(asyncio.create_task(process.ready_to_receive()))
    for task in late:
        with pytest.raises(LayerClosedError):
            await asyncio.wait_for(task, DEADLINE_S)


async def claim_for(
    layer: SqliteChannelLayer, other: SqliteChannelLayer, count: int
) -> "list[asyncio.Task[dict[str, Any]]]":
    """Receivers that wait, and whose messages are claimed; they come to them when the loop goes on, and not before."""
    receivers = [asyncio.create_task(layer.receive("jobs")) for _ in range(count)]
    process = engine_of(layer)
    await aeventually(
        lambda: "jobs" in process.inbox.claims.listening() and len(inside.box(process.inbox, "jobs").waiters) == count
    )
    thread = threading.Thread(target=asyncio.run, args=(send_numbers(other, count),))
    thread.start()
    thread.join()
    process.inbox.reader.pull()
    # Another thread may be writing just then, and does it.
    eventually(lambda: len(inside.box(process.inbox, "jobs").entries) == count)
    return receivers


async def send_numbers(layer: SqliteChannelLayer, count: int) -> None:
    for number in range(count):
        await layer.send("jobs", {"n": number})


@pytest.mark.parametrize("retention", [0, 100])
@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked"])
async def test_what_was_claimed_goes_back_whoever_holds_the_lock(
    make_layer: LayerFactory, database: ChannelDatabase, locked: bool, retention: int
) -> None:
    layer, other = make_layer(message_retention=retention), make_layer(message_retention=retention)
    receivers = await claim_for(layer, other, 5)
    process = engine_of(layer)
    with write_lock(database.path) if locked else nullcontext():
        closing = threading.Thread(target=process.close_from_anywhere, args=(True,))
        closing.start()
        eventually(lambda: inside.closed(process))
    closing.join()
    assert [await outcome_of(receiver) for receiver in receivers] == ["LayerClosedError"] * 5
    assert await receive_numbers(other, "jobs", 5) == list(range(5))


async def test_what_was_claimed_waits_for_the_lock_as_long_as_any_write(
    make_layer: LayerFactory, database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration, "LEAVE_PATIENCE_S", 0.02)
    monkeypatch.setattr("channels_sqlite.engine.engine.JOIN_S", 0.0)
    layer, other = make_layer(), make_layer()
    receivers = await claim_for(layer, other, 3)
    retried = layer.counters.retried
    with write_lock(database.path):
        closing = threading.Thread(target=engine_of(layer).close_from_anywhere, args=(True,))
        closing.start()
        eventually(lambda: layer.counters.retried > retried + 20)
    closing.join()
    assert [await outcome_of(receiver) for receiver in receivers] == ["LayerClosedError"] * 3
    assert await receive_numbers(other, "jobs", 3) == [0, 1, 2]


async def test_what_cannot_be_put_back_is_told_with_the_number(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    receivers = await claim_for(layer, make_layer(), 3)
    connections = engine_of(layer).database.connections
    assert connections is not None
    connections.busy_timeout_s = 0.2
    with write_lock(database.path):
        engine_of(layer).close_from_anywhere(wait=True)
    assert [await outcome_of(receiver) for receiver in receivers] == ["LayerClosedError"] * 3
    lost = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.getMessage().split(":")[0] for record in lost] == ["closing lost 3 messages of channel 'jobs'"]


async def test_closing_a_layer_in_use_says_nothing_of_errors(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer, other = make_layer(), make_layer()
    chance = random.Random(2)
    for number in range(30):
        tasks: list[asyncio.Task[Any]] = [asyncio.create_task(layer.receive("jobs")) for _ in range(4)]
        tasks += [asyncio.create_task(other.send("jobs", {"n": number})) for _ in range(4)]
        await asyncio.sleep(chance.uniform(0, 0.02))
        await layer.close()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_every_step_of_closing_is_taken_and_the_first_error_is_raised(
    layer: SqliteChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await layer.new_channel()
    process = engine_of(layer)
    thread = inside.thread_of(process)
    assert thread is not None

    def fail(self: Seat) -> None:
        raise OSError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(Seat, "leave", fail)
        with pytest.raises(OSError, match="made to fail"):
            await layer.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()
    assert process.database.connections is None
    inside.seat(process).leave()


async def test_a_fork_waits_for_a_layer_that_is_being_closed(
    layer: SqliteChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread is inside SQLite, though the layer knows nothing of it any more."""
    await layer.new_channel()
    process = engine_of(layer)
    reached, go_on = threading.Event(), threading.Event()
    real_close = Connections.close

    def close(connections: Connections) -> None:
        reached.set()
        assert go_on.wait(DEADLINE_S)
        real_close(connections)

    monkeypatch.setattr(Connections, "close", close)
    closing = asyncio.create_task(layer.close())
    await aeventually(reached.is_set)
    assert made(layer) is None
    monkeypatch.setattr(forks, "LOOKS", int(DEADLINE_S / forks.LOOK_S))
    held: list[bool] = []

    def fork() -> None:
        inside.before_fork()
        held.append(inside.background(process).working.locked())
        inside.after_fork_in_parent()

    forking = threading.Thread(target=fork)
    forking.start()
    assert held == []
    go_on.set()
    forking.join(DEADLINE_S)
    assert held == [True]
    await closing


async def test_closing_twice_at_once_and_using_it_again_meanwhile_hangs_nobody(layer: SqliteChannelLayer) -> None:
    for _ in range(20):
        await layer.send("jobs", {"n": 1})
        uses = [layer.close(), layer.receive("jobs"), layer.close(), layer.receive("jobs"), layer.close()]
        results = await asyncio.wait_for(asyncio.gather(*uses, return_exceptions=True), DEADLINE_S)
        assert all(result is None or isinstance(result, (LayerClosedError, dict)) for result in results)
        await layer.flush()
