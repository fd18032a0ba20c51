"""One start of one task: resolve it, call it, say what became of it. Whatever a task does ends here."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from traceback import format_exception
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.dispatch import Signal
from django.tasks.signals import log_task_finished, task_finished, task_started

from channels_sqlite.storage.tasks import Outcome, TaskRow
from channels_sqlite.tasks.backend import SqliteTaskBackend
from channels_sqlite.tasks.context import Progress, TaskContext
from channels_sqlite.tasks.queue import TaskQueue
from channels_sqlite.tasks.results import AnyResult, AnyTask, resolve, result_of

__all__ = ["Start", "close_connections", "end_is_heard", "send_finished"]

logger = logging.getLogger(__name__)

Finish = Callable[[TaskRow, Outcome], "TaskRow | None"]
"""Writes an outcome, however long that takes; None: the attempt was taken from this worker."""


class Start:
    """One attempt that this process has claimed. `run` in a thread, `arun` on an event loop; never raises."""

    def __init__(self, queue: TaskQueue, row: TaskRow, *, in_test: bool = False) -> None:
        """`in_test`: transactions that this thread has open are the test's, and stay."""
        self._queue = queue
        self.row = row
        self._in_test = in_test
        self._task: AnyTask | None = None
        self._began = self._took_s = 0.0

    def run(self, finish: Finish) -> AnyResult | None:
        """Run it; return its result, or None where the task is gone or the attempt was taken away."""
        outcome = self.attempt()
        return self.tell(finish(self.row, outcome), outcome)

    def attempt(self) -> Outcome:
        """Call the function, in a thread; return what becomes of the task, which is to be written."""
        self._log_start()
        try:
            return self._attempt()
        finally:
            self._close_connections()
            self._took_s = time.monotonic() - self._began

    def _attempt(self) -> Outcome:
        try:
            task, result, args = self._prepare()
            task_started.send_robust(_SENDER, task_result=result)
            return self._queue.succeeded(task.call(*args, **result.kwargs), self.row)
        except BaseException as error:  # noqa: BLE001  # KeyboardInterrupt and SystemExit too: they are the task's
            return self._failed(error)

    async def arun(self, finish: Callable[[TaskRow, Outcome], Awaitable[TaskRow | None]]) -> None:
        """Likewise, for coroutine tasks."""
        self._log_start()
        outcome = await self._aattempt()
        await sync_to_async(self._close_connections)()
        self._took_s = time.monotonic() - self._began
        finished = await finish(self.row, outcome)
        await sync_to_async(self.tell)(finished, outcome)

    async def _aattempt(self) -> Outcome:
        try:
            task, result, args = self._prepare()
            await task_started.asend_robust(_SENDER, task_result=result)
            return self._queue.succeeded(await task.acall(*args, **result.kwargs), self.row)
        except BaseException as error:  # noqa: BLE001  # as above
            return self._failed(error)

    def _prepare(self) -> tuple[AnyTask, AnyResult, list[Any]]:
        self._task = task = resolve(self.row)
        result = result_of(self.row, self._queue.codec, task)
        context = TaskContext(task_result=result, teller=Teller(self._queue, self.row))
        return task, result, [context, *result.args] if task.takes_context else result.args

    def _failed(self, error: BaseException) -> Outcome:
        return self._queue.failed(error, "".join(format_exception(error)), self.row, self._task)

    def _log_start(self) -> None:
        self._began = time.monotonic()
        logger.info("task %s %s: starts (attempt %d)", self.row.key, self.row.path, self.row.attempts)

    def tell(self, finished: TaskRow | None, outcome: Outcome) -> AnyResult | None:
        """Log the end, and tell Django's receivers of it; return the result as `run`. None: it was taken away."""
        self._log(finished, outcome)
        return self._told(finished)

    def _log(self, finished: TaskRow | None, outcome: Outcome) -> None:
        what = "lost to another worker" if finished is None else outcome.state.label
        if finished is not None and outcome.due_at is not None:
            what = f"failed, starts again in {outcome.due_at - time.time():.1f} s"
        logger.info("task %s %s: %s in %.3f s", self.row.key, self.row.path, what, self._took_s)

    def _told(self, finished: TaskRow | None) -> AnyResult | None:
        """Tell Django's receivers of the end, where it is the end; return the result."""
        if finished is None or self._task is None:
            return None
        try:
            result = result_of(finished, self._queue.codec, self._task)
        except Exception:
            logger.exception("task %s cannot be read back", self.row.key)
            return None
        if result.is_finished:
            _send_finished(result)
            self._close_connections()
        return result

    def _close_connections(self) -> None:
        close_connections(in_test=self._in_test)


class Teller:
    """Stores progress and tells of it; what was taken from this worker is told no more."""

    def __init__(self, queue: TaskQueue, row: TaskRow) -> None:
        self._queue = queue
        self._row = row

    def tell(self, progress: Progress) -> None:
        """In a thread."""
        self._queue.write(self._queue.set_progress(self._row, progress))

    async def atell(self, progress: Progress) -> None:
        """On an event loop."""
        await self._queue.awrite(self._queue.set_progress(self._row, progress))


def close_connections(*, in_test: bool = False) -> None:
    """Hold no connection of Django's between tasks, whatever a task or a receiver has left open; `in_test` as above."""
    for connection in connections.all(initialized_only=True):
        if connection.in_atomic_block and in_test:
            continue
        connection.close()
        if connection.in_atomic_block:  # entered by hand and never left
            del connections[connection.alias]


_SENDER = SqliteTaskBackend


def _send_finished(result: AnyResult) -> None:
    signal: Signal = task_finished
    signal.send_robust(_SENDER, task_result=result)


def end_is_heard() -> bool:
    """Whether `task_finished` has receivers beside Django's own, which writes to the log."""
    signal: Signal = task_finished
    return any(key[0] != id(log_task_finished) for key, *_ in signal.receivers)


def send_finished(queue: TaskQueue, row: TaskRow) -> None:
    """Tell Django's receivers of a task that ended without having run: its workers died, or it was cancelled."""
    try:
        result = result_of(row, queue.codec)
    except Exception as error:  # noqa: BLE001  # there is nothing to tell of: its function is gone
        logger.warning("task %s %s failed, and nobody is told: %s", row.key, row.path, error)
        return
    _send_finished(result)
