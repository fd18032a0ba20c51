"""Event loops that come and go, in several threads, over one layer object."""

import asyncio
import gc
import itertools
import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from asgiref.sync import async_to_sync

from channels_sqlite.concurrency.loops import ANSWERED_AT_ONCE, Answers, call_soon_in
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.waiting import eventually

T = TypeVar("T")

DEADLINE_S = 10.0
THREADS = 4
CALLS_IN_ALL = 1000


class LoopThread:
    """An event loop in a thread of its own, for as long as the test says."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, name="loop of a test")
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.start(work).result(DEADLINE_S)

    def task(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """A task that has run until it waits."""

        async def begin() -> "asyncio.Task[T]":
            task = asyncio.ensure_future(work)
            await asyncio.wait([task], timeout=0.05)
            return task

        return self.run(begin())

    def stop(self) -> None:
        """Stop the loop; what waits in it goes on waiting."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(DEADLINE_S)

    def close(self) -> None:
        """Stop and close it, without a word to what still waits in it."""
        self.stop()
        self.loop.close()


@pytest.fixture
def sync_layer(database: ChannelDatabase) -> Iterator[SqliteChannelLayer]:
    """A layer for tests without an event loop of their own."""
    layer = SqliteChannelLayer(capacity=10_000)
    yield layer
    asyncio.run(layer.close())


@pytest.fixture
def loops(no_leaks: None) -> Iterator[Callable[[], LoopThread]]:
    """Starts loops, and closes them in the end."""
    started: list[LoopThread] = []

    def start() -> LoopThread:
        started.append(LoopThread())
        return started[-1]

    yield start
    for loop in started:
        loop.close()


# One loop after another


# sqlite3 keeps the statements of each connection, the rarer ones of which the warm-up may not have used.
CACHED_BY_SQLITE3 = {"Statement", "Node"}


def counts() -> dict[str, int]:
    """What the process has now, by type of object for those of asyncio and of this package."""
    gc.collect()
    kinds = Counter(
        type(thing).__name__
        for thing in gc.get_objects()
        if type(thing).__name__ not in CACHED_BY_SQLITE3
        and str(type(thing).__module__).startswith(
            ("asyncio", "_asyncio", "channels_sqlite", "selectors", "socket", "sqlite3")
        )
    )
    return {
        "threads": threading.active_count(),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "objects": len(gc.get_objects()),
        **{f"objects of {name}": count for name, count in kinds.items()},
    }


def talk(layer: SqliteChannelLayer, number: int) -> None:
    """Six calls, each in a loop that lives for that call alone."""
    # As many as the warm-up has; calls that run at once are a few numbers apart.
    channel = f"channel-{number % (CALLS_IN_ALL // 20)}"
    send = async_to_sync(layer.send)
    receive = async_to_sync(receive_within)
    send(channel, {"n": number})
    assert receive(layer, channel, DEADLINE_S) == {"n": number}
    async_to_sync(layer.group_send)("group", {"n": number})
    with pytest.raises(asyncio.TimeoutError):
        receive(layer, channel, 0.001)
    with pytest.raises(asyncio.TimeoutError):
        receive(layer, specific_of(layer), 0)


async def receive_within(layer: SqliteChannelLayer, channel: str, timeout_s: float) -> dict[str, Any]:
    return await asyncio.wait_for(layer.receive(channel), timeout_s)


def specific_of(layer: SqliteChannelLayer) -> str:
    return async_to_sync(layer.new_channel)()


def run_in_threads(work: Callable[[int], object], count: int) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(work, range(count)):
            pass


@pytest.mark.slow
def test_1000_async_to_sync_calls_in_threads_leave_nothing(sync_layer: SqliteChannelLayer) -> None:
    layer = sync_layer
    member = specific_of(layer)
    async_to_sync(layer.group_add)("group", member)

    def drain() -> None:
        while True:
            try:
                async_to_sync(receive_within)(layer, member, 0.05)
            except asyncio.TimeoutError:
                return

    def calls(count: int) -> None:
        # Six calls of async_to_sync each, with the one that makes a name.
        run_in_threads(lambda number: talk(layer, number), count)
        drain()

    calls(CALLS_IN_ALL // 20)
    before = counts()
    calls(CALLS_IN_ALL // 5)  # 1,200
    # The layer forgets a loop that was closed, and what it knew of it, within a second.
    more: dict[str, int] = {}

    def as_before() -> bool:
        more.clear()
        more.update(excess(counts(), before))
        return not more

    try:
        eventually(as_before, DEADLINE_S)
    except AssertionError:
        pytest.fail(f"more than before: {more}")


def excess(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    """What is more than before, beyond what is explained.

    One of each kind may come and go with the layer's own thread. Of all objects, half of one per call: the caches of
    Python's own modules (weak references, interned attributes) grow a little with each thread.
    """
    tolerance = {"objects": CALLS_IN_ALL // 2, "threads": 0, "descriptors": 0}
    more = {key: count - before.get(key, 0) for key, count in now.items()}
    return {key: count for key, count in more.items() if count > tolerance.get(key, 1)}


def test_loops_one_after_another_share_what_waits(sync_layer: SqliteChannelLayer) -> None:
    channel = specific_of(sync_layer)
    for number in range(20):
        asyncio.run(sync_layer.send(channel, {"n": number}))
        asyncio.run(sync_layer.send("normal", {"n": number}))
    for number in range(20):
        assert asyncio.run(receive_within(sync_layer, channel, DEADLINE_S)) == {"n": number}
        assert asyncio.run(receive_within(sync_layer, "normal", DEADLINE_S)) == {"n": number}


def test_layer_that_was_opened_in_one_loop_closes_in_another(database: ChannelDatabase) -> None:
    layer = SqliteChannelLayer()
    for _ in range(3):
        assert async_to_sync(layer.new_channel)()
        async_to_sync(layer.close)()


# Two loops at once


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
def test_two_live_loops_receive_from_different_channels(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread], specific: bool
) -> None:
    channels = [specific_of(sync_layer) if specific else name for name in ("one", "two")]

    async def receive_all(channel: str) -> list[int]:
        return [(await receive_within(sync_layer, channel, DEADLINE_S))["n"] for _ in range(200)]

    receiving = [loops().start(receive_all(channel)) for channel in channels]

    async def send_all() -> None:
        for number in range(200):
            for channel in channels:
                await sync_layer.send(channel, {"n": number})
            if number % 10 == 0:
                await asyncio.sleep(0.001)

    asyncio.run(send_all())
    for future in receiving:
        assert future.result(DEADLINE_S) == list(range(200))


@pytest.mark.parametrize("kind", ["normal", "specific", "queue"])
def test_two_live_loops_share_one_channel(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread], kind: str
) -> None:
    channel = listen_on = "channel" if kind == "normal" else specific_of(sync_layer)
    if kind == "queue":
        listen_on = channel[: channel.index("!") + 1]

    async def receive_until_end() -> list[int]:
        received = []
        while (message := await receive_within(sync_layer, listen_on, DEADLINE_S))["n"] >= 0:
            received.append(message["n"])
        return received

    receiving = [loops().start(receive_until_end()) for _ in range(2)]

    async def send_all(numbers: range) -> None:
        for number in numbers:
            await sync_layer.send(channel, {"n": number})
            if number % 10 == 0:
                await asyncio.sleep(0.001)

    # Two senders in loops of their own, whose numbers tell them apart.
    senders = [loops().start(send_all(numbers)) for numbers in (range(300), range(1000, 1300))]
    for sender in senders:
        sender.result(DEADLINE_S)
    for _ in receiving:
        asyncio.run(sync_layer.send(channel, {"n": -1}))
    parts = [future.result(DEADLINE_S) for future in receiving]
    assert sorted(parts[0] + parts[1]) == [*range(300), *range(1000, 1300)]
    for part, numbers in itertools.product(parts, (range(300), range(1000, 1300))):
        mine = [number for number in part if number in numbers]
        assert mine == sorted(mine)


def test_group_reaches_members_that_receive_in_different_loops(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread]
) -> None:
    members = [specific_of(sync_layer) for _ in range(6)]
    for member in members:
        asyncio.run(sync_layer.group_add("group", member))
    threads = [loops() for _ in range(3)]
    receiving = [
        thread.start(receive_within(sync_layer, member, DEADLINE_S))
        for thread, member in zip(itertools.cycle(threads), members, strict=False)
    ]
    asyncio.run(sync_layer.group_send("group", {"n": 1}))
    assert [future.result(DEADLINE_S) for future in receiving] == [{"n": 1}] * 6


def test_threads_with_loops_of_their_own_send_and_receive_exactly(sync_layer: SqliteChannelLayer) -> None:
    sync_layer.capacity = 10_000
    received: list[int] = []

    def work(number: int) -> None:
        if number % 2:
            received.append(async_to_sync(receive_within)(sync_layer, "jobs", DEADLINE_S)["n"])
        else:
            async_to_sync(sync_layer.send)("jobs", {"n": number})

    run_in_threads(work, 200)
    assert sorted(received) == list(range(0, 200, 2))


# Loops that end while something waits in them


@pytest.mark.parametrize("kind", ["normal", "specific", "queue"])
@pytest.mark.parametrize("woken", [False, True], ids=["waiting", "woken"])
@pytest.mark.parametrize("rival", [False, True], ids=["others later", "others wait"])
def test_loop_closed_with_a_pending_receive_harms_nobody(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread], kind: str, woken: bool, rival: bool
) -> None:
    channel = listen_on = "channel" if kind == "normal" else specific_of(sync_layer)
    if kind == "queue":
        listen_on = channel[: channel.index("!") + 1]
    ending, staying = loops(), loops()
    task = ending.task(sync_layer.receive(listen_on))
    if rival:
        waiting = staying.start(sync_layer.receive(listen_on))
        eventually(lambda: asyncio.all_tasks(staying.loop))
    if woken:
        ending.stop()
        asyncio.run(sync_layer.send(channel, {"n": 0}))
        ending.close()
    else:
        ending.close()
        asyncio.run(sync_layer.send(channel, {"n": 0}))
    if not rival:
        waiting = staying.start(sync_layer.receive(listen_on))
    assert waiting.result(DEADLINE_S)["n"] == 0
    for number in range(1, 4):
        asyncio.run(sync_layer.send(channel, {"n": number}))
        assert staying.run(sync_layer.receive(listen_on))["n"] == number
    assert not task.done()
    assert staying.complaints == []
    forget(task)


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
def test_many_loops_closed_with_pending_receives_keep_nothing(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread], specific: bool
) -> None:
    channel = specific_of(sync_layer) if specific else "channel"
    for _ in range(10):
        ending = loops()
        task = ending.task(sync_layer.receive(channel))
        ending.close()
        forget(task)
    for number in range(3):
        asyncio.run(sync_layer.send(channel, {"n": number}))
    assert [asyncio.run(receive_within(sync_layer, channel, DEADLINE_S))["n"] for _ in range(3)] == [0, 1, 2]


def test_the_garbage_collector_may_come_while_a_thread_holds_the_lock_of_the_mailboxes(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread]
) -> None:
    """It ends the pending receive() of a loop that is gone, once that stands in no line any more."""
    channel = specific_of(sync_layer)
    ending = loops()
    task = ending.task(sync_layer.receive(channel))
    ending.close()
    forget(task)
    gone = weakref.ref(task)
    del task
    engine = engine_of(sync_layer)
    inside.background(engine).call(lambda: engine.inbox.sweep(loops_closed=True))

    def collect() -> None:
        with inside.lock_of_mailboxes(engine.inbox):
            gc.collect()

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "it waits for the lock that it holds"
    assert gone() is None
    asyncio.run(sync_layer.send(channel, {"n": 0}))
    assert asyncio.run(receive_within(sync_layer, channel, DEADLINE_S)) == {"n": 0}


def forget(task: "asyncio.Task[Any]") -> None:
    """Keep a task whose loop is closed from complaining when it is collected: the test has left it so."""
    inside.say_nothing_when_destroyed(task)


def test_loop_closed_while_its_send_waits_for_the_lock_harms_nobody(
    sync_layer: SqliteChannelLayer, database: ChannelDatabase, loops: Callable[[], LoopThread]
) -> None:
    specific_of(sync_layer)
    ending = loops()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        sending = ending.task(sync_layer.send("channel", {"n": "sent by a loop that is gone"}))
        assert not sending.done()
        ending.close()
        holder.execute("ROLLBACK")
    forget(sending)
    asyncio.run(sync_layer.send("channel", {"n": "last"}))
    received = [asyncio.run(receive_within(sync_layer, "channel", DEADLINE_S))["n"]]
    # Nobody withdrew it, so it is done; its result has nobody to go to.
    while received[-1] != "last":
        received.append(asyncio.run(receive_within(sync_layer, "channel", DEADLINE_S))["n"])
    assert received == ["sent by a loop that is gone", "last"]


def test_a_loop_closed_while_its_send_waits_for_the_lock_is_forgotten(
    sync_layer: SqliteChannelLayer, database: ChannelDatabase
) -> None:
    specific_of(sync_layer)
    loop = asyncio.new_event_loop()
    with closing(sqlite3.connect(database.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        sending = loop.create_task(sync_layer.send("channel", {"n": 0}))
        loop.run_until_complete(asyncio.sleep(0.05))
        assert not sending.done()
        loop.close()
        holder.execute("ROLLBACK")
    assert asyncio.run(receive_within(sync_layer, "channel", DEADLINE_S)) == {"n": 0}
    forget(sending)
    gone = weakref.ref(loop)
    del loop, sending

    def is_collected() -> bool:
        gc.collect()
        return gone() is None

    eventually(is_collected, DEADLINE_S)


def test_loop_closed_with_a_flush_to_come_still_gets_its_messages_sent(
    sync_layer: SqliteChannelLayer, loops: Callable[[], LoopThread]
) -> None:
    specific_of(sync_layer)
    loop = asyncio.new_event_loop()
    staying = loops()
    waiting = [staying.start(sync_layer.receive("channel")) for _ in range(3)]

    async def send_some() -> list["asyncio.Task[None]"]:
        tasks = [asyncio.ensure_future(sync_layer.send("channel", {"n": number})) for number in range(3)]
        # The first is committed at once, the others share a transaction in the next iteration, which never comes.
        await asyncio.sleep(0)
        return tasks

    for task in loop.run_until_complete(send_some()):
        forget(task)
    loop.close()
    numbers = sorted(future.result(DEADLINE_S)["n"] for future in waiting)
    assert numbers == [0, 1, 2]


def test_close_tells_receivers_in_every_loop_and_minds_no_closed_one(
    database: ChannelDatabase, loops: Callable[[], LoopThread]
) -> None:
    layer = SqliteChannelLayer()
    first, second, ending = loops(), loops(), loops()
    waiting = [thread.task(layer.receive("channel")) for thread in (first, second, ending)]
    ending.close()
    asyncio.run(layer.close())
    for thread, task in ((first, waiting[0]), (second, waiting[1])):
        outcome = thread.run(outcome_of(task))
        assert isinstance(outcome, RuntimeError)
        assert "closed" in str(outcome)
        assert thread.complaints == []
    assert not waiting[2].done()
    forget(waiting[2])


async def outcome_of(task: "asyncio.Task[Any]") -> object:
    return (await asyncio.gather(task, return_exceptions=True))[0]


def test_receivers_of_a_loop_that_ends_with_asyncio_run_are_forgotten(sync_layer: SqliteChannelLayer) -> None:
    async def leave_some_waiting() -> None:
        tasks = [asyncio.ensure_future(sync_layer.receive(name)) for name in ("channel", "channel", "other")]
        # asyncio.run cancels what still waits in the end.
        await asyncio.wait(tasks, timeout=0.05)

    for number in range(5):
        asyncio.run(leave_some_waiting())
        asyncio.run(sync_layer.send("channel", {"n": number}))
        assert asyncio.run(receive_within(sync_layer, "channel", DEADLINE_S)) == {"n": number}


# Many tasks that go on


async def test_tasks_go_on_in_order_and_some_at_a_time_however_many_commits_end_at_once() -> None:
    loop = asyncio.get_running_loop()
    answers = Answers()
    futures: list[asyncio.Future[None]] = [loop.create_future() for _ in range(3 * ANSWERED_AT_ONCE)]
    futures[1].cancel()
    for start in range(0, len(futures), ANSWERED_AT_ONCE):
        answers.add(futures[start : start + ANSWERED_AT_ONCE])
        assert call_soon_in(loop, answers.give)
    done = []
    for _ in range(3):
        await asyncio.sleep(0)
        done.append([future.done() for future in futures].index(False) if not futures[-1].done() else len(futures))
    assert done == [ANSWERED_AT_ONCE, 2 * ANSWERED_AT_ONCE, 3 * ANSWERED_AT_ONCE]
    late: asyncio.Future[None] = loop.create_future()
    answers.add([late])
    answers.give()
    assert late.done()
