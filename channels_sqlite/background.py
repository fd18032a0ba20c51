"""The layer's one thread: whatever may wait for a lock or for the disk happens here, never on an event loop.

Any thread may call `submit`, and threads without an event loop `call`; jobs run in order. Between jobs the thread calls
`tick`, which says when it wants to be called again; with nothing to do it sleeps without waking up. The thread is a
daemon so that it cannot keep an interpreter alive; that is safe because the owner stops it at exit, before the
interpreter goes.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.waiters import Gate

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
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.stopping = threading.Event()
        self.working = threading.Lock()  # held while a job or tick runs; a fork waits for it

    def submit(self, job: Job) -> None:
        """Run `job` on the thread, after those submitted earlier. What it raises is logged."""
        self._jobs.put(job)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()

    def call(self, job: Callable[[], T]) -> T:
        """Run `job` on the thread and wait for what it returns or raises; not to be called on an event loop.

        Raises LayerClosedError when the thread ends without having come to it.
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
        while not gate.opened:
            thread = self._thread
            gate.sleep(time.monotonic() + ALIVE_CHECK_S)
            if thread is not None and not thread.is_alive() and not (results or errors):
                raise LayerClosedError("the channel layer was closed")
        if errors:
            raise errors[0]
        return results[0]

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
            try:
                job = self._jobs.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
            except queue.Empty:
                interval = None if self.stopping.is_set() else self._guarded(self._tick)
                due = None if interval is None else time.monotonic() + interval
                continue
            if job is None:  # only `stop` ends the thread: jobs may come until then
                return
            self._guarded(job)
            # Whatever the job was for, there may be something to do now.
            due = time.monotonic() if due is None else min(due, time.monotonic() + MOST_IDLE_S)

    def _guarded(self, job: Callable[[], object]) -> float | None:
        with self.working:
            try:
                result = job()
            except Exception:
                logger.exception("unexpected error in thread %r", self._name)
                return 1.0
        return result if isinstance(result, float) else None
