"""The layer's one thread: whatever may wait for a lock or for the disk happens here, never on an event loop.

Any thread may call `submit`, coroutines `acall`, and threads without an event loop `call`; jobs run in order. Between
jobs the thread calls `tick`, which says when it wants to be called again; with nothing to do it sleeps without waking
up, until `stir`. Beside that there is one alarm, for what must be done at a certain moment. The thread is a daemon so
that it cannot keep an interpreter alive; that is safe because the owner stops it at exit, before the interpreter goes.

Every job is run. Those that come when there is no thread any more, or when the interpreter is ending and none can be
started, are run by whoever submits them.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar

from channels_sqlite.concurrency.endings import interpreter_is_ending
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.concurrency.loops import call_in, fail, resolve
from channels_sqlite.concurrency.timed_queue import TimedQueue
from channels_sqlite.exceptions import ChannelDatabaseError

__all__ = ["BackgroundThread"]

logger = logging.getLogger(__name__)

MOST_IDLE_S = 1.0  # from a job to the next tick

ALIVE_CHECK_S = 0.5

T = TypeVar("T")

Job = Callable[[], object]


class BackgroundThread:
    """A queue of jobs and the thread that runs them, started by the first job."""

    def __init__(self, name: str, tick: Callable[[], float | None]) -> None:
        """`tick` returns the seconds until its next call, or None to sleep until the next job."""
        self._name = name
        self._tick = tick
        self._jobs: TimedQueue[Job | None] = TimedQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()  # guards `_thread` and `_ended`; nothing is waited for inside
        self._ended = False  # no thread takes jobs out of the queue (any more)
        self._working_off = threading.Lock()  # held by who does so instead; only ever tried for
        self.stopping = threading.Event()
        # Held while a job or tick runs, but for the time in which it waits: a fork waits for it. A job may wait for any
        # other lock inside.
        self.working = threading.Lock()
        self._worker = 0  # the thread that holds it
        self.on_alarm: Job = _nothing
        """What to do when the alarm rings."""
        self._alarm_at: float | None = None  # monotonic; for the thread alone
        self._stirred = threading.Lock()  # held while ticks follow each other, tried for by who would begin them

    def submit(self, job: Job) -> None:
        """Run `job` on the thread, after those submitted earlier. What it raises is logged.

        Raises ChannelDatabaseError where the operating system gives no thread.
        """
        if self._thread is None and not self._ended:
            self._start()
        self._jobs.put(job)
        # The thread looks into the queue once more after it has noted its end: one of the two finds the job.
        if self._ended:
            self._work_off()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._ended:
                return
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if not interpreter_is_ending():
                    raise ChannelDatabaseError(
                        f"the channel layer could not start its thread {self._name!r}: {error}; the process or its "
                        f"user has as many threads as it may have (ulimit -u, a container's pids limit)"
                    ) from error
                self._ended = True
            else:
                self._thread = thread

    def call(self, job: Callable[[], T], give_up: Callable[[], bool] | None = None) -> T | None:
        """Run `job` on the thread and wait for what it returns or raises; not to be called on an event loop.

        `give_up` is asked now and then: once it says so, this returns None, and the job is done all the same.
        """
        gate = Gate()
        results: list[T] = []
        errors: list[BaseException] = []

        def run() -> None:
            try:
                results.append(job())
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                errors.append(error)
            gate.open()

        self.submit(run)
        while not results and not errors:
            gate.sleep(time.monotonic() + ALIVE_CHECK_S)
            if give_up is not None and give_up():
                return None
            thread = self._thread
            if thread is not None and not thread.is_alive():
                self._work_off()
        if errors:
            raise errors[0]
        return results[0]

    async def acall(self, job: Callable[[], T]) -> T:
        """Like `call`, on an event loop. Cancelled while waiting, the job is done all the same."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                call_in(loop, fail, future, error)
            else:
                call_in(loop, resolve, future, result)

        self.submit(run)
        return await future

    def stir(self) -> None:
        """See that ticks follow: something was done that they look after."""
        if self._stirred.acquire(blocking=False):
            self.submit(_nothing)

    def settle(self) -> None:
        """Have the next `stir` begin ticks: the one that calls this has nothing more to do."""
        if self._stirred.locked():
            self._stirred.release()

    def set_alarm(self, delay_s: float | None) -> None:
        """On the thread: have `on_alarm` called after so many seconds, in the place of an earlier time; None: never."""
        self._alarm_at = None if delay_s is None else time.monotonic() + delay_s

    def end_unstarted(self) -> bool:
        """Start no thread from now on, unless there is one: whoever submits a job runs it. Return whether it is so."""
        with self._starting:
            self._ended = self._ended or self._thread is None
            return self._thread is None

    @contextmanager
    def resting(self) -> Generator[None]:
        """For a job that waits, and uses nothing meanwhile: a fork need not wait with it."""
        if self._worker != threading.get_ident():  # no job, but what somebody does in a thread of his own
            yield
            return
        self._worker = 0
        self.working.release()
        try:
            yield
        finally:
            self.working.acquire()
            self._worker = threading.get_ident()

    def stop(self, timeout_s: float | None) -> None:
        """Let the thread end after the job in hand, and wait up to `timeout_s` for it; None: do not wait."""
        self.stopping.set()
        self._jobs.put(None)
        thread = self._thread
        if thread is None or timeout_s is None or thread is threading.current_thread():
            return
        thread.join(timeout_s)
        if thread.is_alive():
            logger.warning("thread %r did not stop within %.1f s; it may wait for a disk", self._name, timeout_s)

    def _run(self) -> None:
        due: float | None = None
        while True:
            wanted_at = min((moment for moment in (due, self._alarm_at) if moment is not None), default=None)
            try:
                job = self._jobs.get(wanted_at)
            except queue.Empty:
                self._ring_if_due()
                if due is not None and time.monotonic() >= due:
                    interval = None if self.stopping.is_set() else self._guarded(self._tick)
                    due = None if interval is None else time.monotonic() + interval
                continue
            if job is None:  # only `stop` ends the thread: jobs may come until then
                self._ended = True
                self._work_off()
                return
            self._guarded(job)
            self._ring_if_due()
            # Whatever the job was for, there may be something to do now.
            due = time.monotonic() if due is None else min(due, time.monotonic() + MOST_IDLE_S)

    def _ring_if_due(self) -> None:
        if self._alarm_at is not None and time.monotonic() >= self._alarm_at:
            self._alarm_at = None
            if not self.stopping.is_set():
                self._guarded(self.on_alarm)

    def _work_off(self) -> None:
        """Run what is queued in the calling thread. A job that submits another one leaves it to the loop here."""
        while not self._jobs.empty() and self._working_off.acquire(blocking=False):
            try:
                job = self._jobs.get_nowait()
                if job is not None:
                    self._guarded(job)
            except queue.Empty:
                pass
            finally:
                self._working_off.release()

    def _guarded(self, job: Callable[[], object]) -> float | None:
        with self.working:
            self._worker = threading.get_ident()
            try:
                result = job()
            except Exception:
                logger.exception("unexpected error in thread %r", self._name)
                return 1.0
            finally:
                self._worker = 0
        return result if isinstance(result, float) else None

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._starting = threading.Lock()


def _nothing() -> None:
    pass
