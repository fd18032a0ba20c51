"""A worker process: claims tasks for the threads and the event loop that have room, and for no others.

Threads: the main thread claims, and sleeps at a gate that wake-ups, finished tasks and `stop` open; `threads` run
tasks, and one runs the event loop of coroutine tasks. Which tasks run is kept in two sets: the main thread adds, who
has run one removes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from channels_sqlite.channel_layers import our_entries
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.engine.engine import Engine
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.kinds import TaskState
from channels_sqlite.layers import SqliteChannelLayer, close_layer, engine_of
from channels_sqlite.names import task_channel
from channels_sqlite.storage.tasks import Outcome, TaskRow
from channels_sqlite.tasks.backend import SqliteTaskBackend
from channels_sqlite.tasks.queue import Looked, TaskQueue
from channels_sqlite.tasks.runner import Start, close_connections, send_finished
from channels_sqlite.tasks.schedules import Schedules
from channels_sqlite.tasks.status_line import tell_end

__all__ = ["MAX_TASKS_REACHED", "Plan", "Worker"]

logger = logging.getLogger(__name__)

COROUTINES = 100  # that run at once
CLOCK_S = 1.0  # how often the clock is looked at while something is to come: it may be set
RETRY_S = 0.5  # after the database failed
MAX_TASKS_REACHED = 75  # exit code: this process wants to be replaced
UNWRITTEN = 74  # exit code: it was stopped, and what became of a task could not be written


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one worker process does."""

    backend: str
    queues: tuple[str, ...]
    threads: int
    burst: bool
    max_tasks: int | None
    ends: int | None = None  # the descriptor that is told of tasks which have ended


class Worker:
    """The work of one process, on a layer object of its own, which no task can close."""

    def __init__(self, backend: SqliteTaskBackend, plan: Plan) -> None:
        """Raises ImproperlyConfigured where the schedule has faults."""
        [entry] = [entry for entry in our_entries() if entry.alias == backend.task_options.layer]
        self._layer = SqliteChannelLayer(**entry.config)
        self._queue = TaskQueue(self._layer, backend.alias, backend.task_options)
        self._schedules = Schedules(backend, self._queue)
        self._plan = plan
        self._gate = Gate()
        self._stopping = False
        self._stopped_at = 0.0  # monotonic
        self._patience_s = 0.0  # the time-out of the database
        self._gave_up = False
        self._due_now = True  # something may be
        self._claimed = 0
        self._in_threads: set[int] = set()  # ids of rows
        self._on_loop: set[int] = set()
        self._threads = ThreadPoolExecutor(plan.threads, thread_name_prefix="channels-worker")
        self._loop = LoopThread()

    def stop(self) -> None:
        """Claim nothing any more, and end once what is under way has finished. From any thread or signal handler."""
        if not self._stopping:
            self._stopped_at = time.monotonic()
            self._stopping = True
        self._gate.open()

    def run(self) -> int:
        """Work until `stop`, or the plan is fulfilled; return the exit code.

        Raises ChannelDatabaseError where the database cannot be used from the start.
        """
        engine = engine_of(self._layer)
        try:
            engine.ready_to_receive_blocking()
            self._patience_s = engine.outbox.patience_s
            self._clear_up(engine)
            logger.info(
                "worker %s (pid %d) runs tasks of %s in %d threads and one event loop",
                engine.client,
                os.getpid(),
                ", ".join(self._plan.queues),
                self._plan.threads,
            )
            channels = [task_channel(self._plan.backend, queue) for queue in self._plan.queues]
            with engine.inbox.claims.watched(channels, self._gate):
                self._work(engine)
        finally:
            self._threads.shutdown()
            self._loop.close()
            close_layer(self._layer)
        logger.info("worker %s (pid %d) ends after %d tasks", engine.client, os.getpid(), self._claimed)
        if self._gave_up:
            return UNWRITTEN
        return MAX_TASKS_REACHED if self._is_used_up and not self._stopping else 0

    @staticmethod
    def _clear_up(engine: Engine) -> None:
        """Give back the tasks of workers that died while nobody was there to see it."""
        try:
            engine.bury_the_dead_blocking()
        except (sqlite3.Error, ChannelDatabaseError) as error:  # the next round does it
            engine.reports.failed("looking for dead processes", error)

    def _work(self, engine: Engine) -> None:
        while True:
            self._gate.shut()
            try:
                until = self._turn()
            except ChannelDatabaseError as error:
                engine.reports.failed("looking for tasks", error)
                until = time.monotonic() + RETRY_S
            if self._is_done():
                return
            if until != 0.0:
                engine.watches.threads.wait(self._gate, until)

    def _turn(self) -> float | None:
        """Do what there is to do; return the monotonic time of the next turn, 0.0 for at once, None for when woken."""
        self._due_now = True  # until a look says that it is not so
        room = self._room()
        now = time.time()
        scheduled_at = self._queue.read(self._schedules.next_at)
        if scheduled_at and scheduled_at[0] <= now and not self._stopping:
            self._queue.write(self._schedules.enqueue_due)
            return 0.0
        looked: Looked = self._queue.read(self._queue.look(self._plan.queues, [kind for kind in room if room[kind]]))
        self._due_now = looked.waiting
        if looked.untold:
            self._tell_untold()
            return 0.0
        if looked.ready and any(room.values()):
            claimed = self._queue.write(self._queue.claim(self._plan.queues, room, self._left))
            for row in claimed or ():
                self._start(row)
            if claimed is None or claimed:
                return 0.0
        # What was due already waits for room, which opens the gate.
        times = [time_at for time_at in (looked.next_due, *scheduled_at) if time_at is not None and time_at > now]
        if not times:
            return None
        return time.monotonic() + min(max(min(times) - time.time(), 0.001), CLOCK_S)

    def _tell_untold(self) -> None:
        for row in self._queue.write(self._queue.take_untold()):
            if row.state == TaskState.FAILED:
                logger.error("task %s %s failed: its workers died %d times", row.key, row.path, row.crashes)
                self._count(row)
                self._threads.submit(self._send_finished, row)
            else:
                logger.warning("task %s %s waits again: its worker died", row.key, row.path)

    def _send_finished(self, row: TaskRow) -> None:
        try:
            send_finished(self._queue, row)
        finally:
            close_connections()  # what receivers have opened

    def _room(self) -> Mapping[bool, int]:
        """How many coroutine tasks (True) and others (False) may start."""
        if self._stopping:
            return {False: 0, True: 0}
        room = {False: self._plan.threads - len(self._in_threads), True: COROUTINES - len(self._on_loop)}
        return room if self._left != 0 else {False: 0, True: 0}

    @property
    def _left(self) -> int | None:
        """How many tasks this process may still claim; None: any number."""
        return None if self._plan.max_tasks is None else self._plan.max_tasks - self._claimed

    @property
    def _is_used_up(self) -> bool:
        return self._left == 0

    def _is_done(self) -> bool:
        if self._in_threads or self._on_loop:
            return False
        return self._stopping or self._is_used_up or (self._plan.burst and not self._due_now)

    def _start(self, row: TaskRow) -> None:
        self._claimed += 1
        logger.info("task %s %s: starts (attempt %d)", row.key, row.path, row.attempts)
        start = Start(self._queue, row)
        if row.is_async:
            self._on_loop.add(row.id)
            self._loop.run(lambda: self._run_on_loop(start))
        else:
            self._in_threads.add(row.id)
            self._threads.submit(self._run_in_thread, start)

    def _run_in_thread(self, start: Start) -> None:
        try:
            start.run(self._finish)
        except ChannelDatabaseError as error:
            self._give_up(start.row, error)
        except BaseException:
            logger.exception("task %s: its end could not be written", start.row.key)
        finally:
            self._in_threads.discard(start.row.id)
            self._gate.open()

    async def _run_on_loop(self, start: Start) -> None:
        try:
            await start.arun(self._afinish)
        except ChannelDatabaseError as error:
            self._give_up(start.row, error)
        except BaseException:
            logger.exception("task %s: its end could not be written", start.row.key)
        finally:
            self._on_loop.discard(start.row.id)
            self._gate.open()

    def _finish(self, row: TaskRow, outcome: Outcome) -> TaskRow | None:
        """Write an outcome, however long the database fails: nobody else may run the task meanwhile.

        Raises ChannelDatabaseError where it fails for the database's time-out while the worker stops: whoever stops it
        waits for its end, and may never see one otherwise.
        """
        began = time.monotonic()
        while True:
            try:
                return self._count(self._queue.write(self._queue.finish(row, outcome)))
            except ChannelDatabaseError as error:
                if self._is_over(began):
                    raise
                engine_of(self._layer).reports.failed("writing what became of a task", error)
                time.sleep(RETRY_S)

    async def _afinish(self, row: TaskRow, outcome: Outcome) -> TaskRow | None:
        """Likewise, on the event loop."""
        began = time.monotonic()
        while True:
            try:
                return self._count(await self._queue.awrite(self._queue.finish(row, outcome)))
            except ChannelDatabaseError as error:
                if self._is_over(began):
                    raise
                engine_of(self._layer).reports.failed("writing what became of a task", error)
                await asyncio.sleep(RETRY_S)

    def _count(self, row: TaskRow | None) -> TaskRow | None:
        """Have the parent count a task that has ended."""
        if row is not None and self._plan.ends is not None:
            tell_end(self._plan.ends, row.state)
        return row

    def _is_over(self, began: float) -> bool:
        """Whether the worker stops, and a write that `began` then has had the time that it may take."""
        return self._stopping and time.monotonic() >= max(began, self._stopped_at) + self._patience_s

    def _give_up(self, row: TaskRow, error: ChannelDatabaseError) -> None:
        self._gave_up = True
        logger.error(
            "task %s %s: the worker stops, and what became of it cannot be written, so that it counts as running and "
            "starts again as after a crash: %s",
            row.key,
            row.path,
            error,
        )


class LoopThread:
    """The event loop of coroutine tasks, in a thread of its own that starts with the first of them."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps weak references

    def run(self, work: Callable[[], object]) -> None:
        """Run a coroutine function there. On the main thread."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="channels-worker-loop")
            self._thread.start()
        self._loop.call_soon_threadsafe(self._begin, work)

    def _begin(self, work: Callable[[], object]) -> None:
        coroutine = work()
        assert asyncio.iscoroutine(coroutine)  # noqa: S101  # what this is for
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def close(self) -> None:
        """End it, when nothing runs there any more."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()


def queues_of(backend: SqliteTaskBackend, chosen: Sequence[str]) -> tuple[str, ...]:
    """Return the queues that a worker serves: the chosen ones, or all of the backend's."""
    return tuple(dict.fromkeys(chosen)) or tuple(sorted(backend.queues)) or ("default",)
