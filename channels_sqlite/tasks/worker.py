"""A worker process: claims tasks for the threads and the event loop that have room, and for no others.

Threads: the main thread claims where no other one does, and sleeps at a gate that wake-ups, finished tasks and `stop`
open; those of the `Crew` run tasks, and claim more of them; one runs the event loop of coroutine tasks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from channels_sqlite.channel_layers import our_entries
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.engine.engine import Engine
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.kinds import TaskState
from channels_sqlite.layers import SqliteChannelLayer, close_layer, engine_of
from channels_sqlite.names import task_channel
from channels_sqlite.storage.tasks import Outcome, TaskRow
from channels_sqlite.tasks.backend import SqliteTaskBackend
from channels_sqlite.tasks.crew import Crew, Ended, Written
from channels_sqlite.tasks.queue import Looked, TaskQueue
from channels_sqlite.tasks.runner import Start, close_connections, end_is_heard, send_finished
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
        self._look_by = 0.0  # monotonic time by which the main thread looks, whoever drives
        self._on_loop: set[int] = set()  # ids of rows
        self._crew = Crew(plan.threads, self, self._gate.open)
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
            self._crew.close()
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
            until: float | None = self._crew.watch()
            driven = until is not None  # by a thread that claims as well
            if not driven or time.monotonic() >= self._look_by:
                try:
                    until = self._look()
                except ChannelDatabaseError as error:
                    engine.reports.failed("looking for tasks", error)
                    until = time.monotonic() + RETRY_S
                self._look_by = time.monotonic() + CLOCK_S
            if self._is_done():
                return
            if driven:
                self._gate.sleep(until)  # for a moment; what comes in meanwhile is claimed by who drives
            elif until != 0.0:
                engine.watches.threads.wait(self._gate, until)

    def _look(self) -> float | None:
        """Do what there is to do; return the monotonic time of the next turn, 0.0 for at once, None for when woken."""
        self._due_now = True  # until a look says that it is not so
        now = time.time()
        scheduled_at = self._queue.read(self._schedules.next_at)
        if scheduled_at and scheduled_at[0] <= now and not self._stopping:
            self._queue.write(self._schedules.enqueue_due)
            return 0.0
        free = self._crew.begin_claim()
        starts: list[Start] = []
        try:
            room = self._room(free or 0)
            kinds = [kind for kind in room if room[kind]]
            looked: Looked = self._queue.read(self._queue.look(self._plan.queues, kinds))
            self._due_now = looked.waiting
            if looked.untold:
                self._tell_untold()
                return 0.0
            if looked.ready and kinds and free is not None:
                claimed = self._queue.write(self._queue.claim(self._plan.queues, room, self._left))
                starts = self._started(claimed or ())
                if claimed is None or claimed:
                    return 0.0
        finally:
            if free is not None:
                self._crew.end_claim(starts)
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
                self._crew.submit(partial(self._send_finished, row))
            else:
                logger.warning("task %s %s waits again: its worker died", row.key, row.path)

    def _send_finished(self, row: TaskRow) -> None:
        try:
            send_finished(self._queue, row)
        finally:
            close_connections()  # what receivers have opened

    def _room(self, free: int) -> Mapping[bool, int]:
        """How many coroutine tasks (True) and others (False) may start, with so many threads free."""
        if self._stopping or self._left == 0:
            return {False: 0, True: 0}
        return {False: free, True: COROUTINES - len(self._on_loop)}

    @property
    def _left(self) -> int | None:
        """How many tasks this process may still claim; None: any number."""
        return None if self._plan.max_tasks is None else self._plan.max_tasks - self._claimed

    @property
    def _is_used_up(self) -> bool:
        return self._left == 0

    def _is_done(self) -> bool:
        if self._crew.is_busy or self._on_loop:
            return False
        return self._stopping or self._is_used_up or (self._plan.burst and not self._due_now)

    def _started(self, claimed: Sequence[TaskRow]) -> list[Start]:
        """Start coroutine tasks that were claimed; return the others. By who claims, and by nobody else meanwhile."""
        self._claimed += len(claimed)
        starts = [Start(self._queue, row) for row in claimed]
        for start in starts:
            if start.row.is_async:
                self._on_loop.add(start.row.id)
                self._loop.run(partial(self._run_on_loop, start))
        return [start for start in starts if not start.row.is_async]

    # What the threads do beside running tasks

    def turn(self, ends: Sequence[Ended], free: int) -> tuple[list[Written], list[Start] | None]:
        """Write ends, and claim for `free` threads; see `Work`."""
        room = self._room(free) if free else {}
        try:
            rows, claimed = self._queue.write(
                self._queue.finish_and_claim(
                    [(end.start.row, end.outcome) for end in ends], self._plan.queues, room, self._left
                )
            )
        except Exception as error:  # noqa: BLE001  # it may be one row's alone, or soon be over
            if not ends:
                engine_of(self._layer).reports.failed("looking for tasks", error)
            return [written for end in ends for written in self._written(end)], None
        for row in rows:
            self._count(row)
        return list(map(Written, ends, rows)), None if claimed is None else self._started(claimed)

    def _written(self, end: Ended) -> list[Written]:
        """Write an end, however long that takes; [] where the worker gives up."""
        row = end.start.row
        try:
            return [Written(end, self._finish(row, end.outcome))]
        except ChannelDatabaseError as error:
            self._give_up(row, error)
        except BaseException:
            logger.exception("task %s: its end could not be written", row.key)
        return []

    def tell(self, written: Written) -> None:
        """Log an end, and tell Django's receivers."""
        written.end.start.tell(written.row, written.end.outcome)

    def is_heard(self) -> bool:
        """Whether there are receivers of anybody's."""
        return end_is_heard()

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
