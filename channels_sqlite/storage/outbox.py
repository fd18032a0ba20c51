"""Writes: committed on the event loop while the write lock is free, handed to the background thread while it is not.

A commit takes 25-30 us, less than any hop to a thread, so the first write of a loop iteration is committed at once.
While one task alone is writing, its further ones are, too, for a millisecond: it waits for each of them. Those of other
tasks in that iteration join one transaction. When another connection holds the write lock, the queue moves to the
background thread, which tries until the database's time-out; until it is empty every later write queues behind it, so
that order holds.

Threads: `write` is called on event loops, `write_blocking` on other threads, `post` anywhere, `run_patiently` on the
background thread. `OpenDatabase.writing` is held while a transaction runs, with what follows its commit, and never
across an await; `_queue_lock` only while the queue is touched.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.concurrency.loops import Answers, call_in
from channels_sqlite.exceptions import ChannelDatabaseError, LayerClosedError
from channels_sqlite.reports import Reports
from channels_sqlite.sending import INLINE_BYTES
from channels_sqlite.storage.commits import Commits, Wakeups, fail
from channels_sqlite.storage.connections import OpenDatabase
from channels_sqlite.storage.errors import who_holds_the_lock
from channels_sqlite.storage.transactions import (
    AnyWrite,
    GivenUpError,
    Registered,
    Transaction,
    Write,
)

__all__ = ["Outbox"]


T = TypeVar("T")

INLINE_WRITES = 200  # writes in one transaction on a loop: 1.5 ms
PATIENT_WRITES = 1000
GROWTH_BYTES = 4 * 1024 * 1024
INLINE_S = 0.001  # of one task's writes in one iteration of its loop, which the others must not wait for longer
FIRST_RETRY_S, LAST_RETRY_S = (0.001, 0.005)  # SQLite's own busy handler sleeps up to 0.1 s
SUSPENDED_S = 0.5  # a pause that takes so much longer than it should
FLUSH_RETRY_S = 0.001


class Outbox:
    """The queue of writes of one layer in one process."""

    def __init__(
        self, database: OpenDatabase, background: BackgroundThread, wakeups: Wakeups, reports: Reports
    ) -> None:
        self._database = database
        self._background = background
        self._wakeups = wakeups
        self._commits = Commits(database, wakeups, reports)
        self._watch_growth: Callable[[], object] = _nothing
        self._growth_told = 0  # bytes
        self._queue: deque[AnyWrite] = deque()
        # Guards `_queue`, `_offloaded`, `_closed`, `_answers`; nothing is waited for inside.
        self._queue_lock = threading.Lock()
        self._answers: WeakKeyDictionary[asyncio.AbstractEventLoop, Answers] = WeakKeyDictionary()
        self._flushing: asyncio.AbstractEventLoop | None = None  # has a _flush scheduled
        # The task whose writes in this iteration of that loop are committed at once, until that monotonic time.
        self._writer: tuple[asyncio.Task[Any] | None, float] = (None, 0.0)
        self._crowded = False  # several writes shared the last transaction of a _flush
        self._offloaded = False  # the background thread works on the queue
        self._closed: BaseException | None = None

    @property
    def registration(self) -> Registered | None:
        """The process's own entry among the readers, while there is to be one."""
        return self._commits.registration

    @registration.setter
    def registration(self, registration: Registered | None) -> None:
        self._commits.registration = registration

    @property
    def commits(self) -> int:
        """How many there were."""
        return self._commits.count

    @property
    def patience_s(self) -> float:
        """How long a write waits for the write lock: the time-out of the database; 0 where none is open."""
        connections = self._database.connections
        return 0.0 if connections is None else connections.busy_timeout_s

    def watch_growth(self, job: Callable[[], object]) -> None:
        """Have `job` run on the background thread whenever another GROWTH_BYTES were written, more or less."""
        self._watch_growth = job

    # Writing

    async def write(
        self, apply: Callable[[Transaction], T], size_bytes: int = 0, prepare: Callable[[], int] | None = None
    ) -> T:
        """Run `apply` in a transaction and return its result once committed.

        `prepare` is called on the background thread before that, for what takes long and must keep its place in line;
        it returns the size in bytes.
        A write whose caller is cancelled while it still waits in the queue is dropped; one whose transaction has begun
        may be committed all the same.
        """
        loop = asyncio.get_running_loop()
        write = Write(apply, size_bytes, prepare)
        sound = self._database.is_sound()
        if self._flushing is not loop:
            if sound and self._try_now(write):
                # What other tasks write within this iteration of the loop shares a transaction.
                if not self._crowded:
                    self._writer = (asyncio.current_task(loop), write.submitted_at + INLINE_S)
                self._schedule_flush(loop)
                return write.outcome()
        elif sound and self._goes_on(write, loop) and self._try_now(write):
            return write.outcome()
        write.loop = loop
        write.future = loop.create_future()
        self._enqueue(write, loop, at_once=sound)
        try:
            await write.future
        except asyncio.CancelledError:
            write.withdrawn = True
            raise
        return write.outcome()

    def _goes_on(self, write: Write[T], loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `write` comes from the task whose writes are committed at once, and may be."""
        task, until = self._writer
        return task is not None and write.submitted_at < until and task is asyncio.current_task(loop)

    def post(self, apply: Callable[[Transaction], T], done: Callable[[Write[T]], object]) -> None:
        """Like `write`, from any thread and without waiting: `done` gets the write, maybe before this returns."""
        write = Write(apply)
        write.done = done
        sound = self._database.is_sound()
        if sound and self._try_now(write):
            done(write)
        else:
            self._enqueue(write, None, at_once=sound)

    def write_blocking(
        self, apply: Callable[[Transaction], T], size_bytes: int = 0, give_up: Callable[[], bool] | None = None
    ) -> T:
        """Like `write`, for threads without an event loop: the calling thread waits, for the write lock as well.

        It joins no queue: what was written before by this very thread is committed. `give_up` is asked while the write
        lock is taken: once it says so, GivenUpError is raised.
        """
        write = Write(apply, size_bytes)
        while True:
            if self._closed is not None:
                raise self._closed.with_traceback(None)
            if not self._database.is_sound():
                self._background.call(self._database.open, give_up)
                if give_up is not None and give_up():
                    raise GivenUpError
            self._patiently([cast("AnyWrite", write)], blocking=True, give_up=give_up)
            if not isinstance(write.error, LayerClosedError) or self._background.stopping.is_set():
                return write.outcome()

    def run_patiently(self, apply: Callable[[Transaction], T], patience_s: float | None = None) -> T:
        """Run `apply` in a transaction of its own, on the background thread, waiting for the write lock.

        It waits for `patience_s` seconds, also while the layer is closed; None: for the database's time-out, at most
        until the layer is closed.
        """
        write = Write(apply)
        self._patiently([cast("AnyWrite", write)], patience_s)
        return write.outcome()

    def held_off(self) -> AbstractContextManager[object]:
        """Keep this process's other writes off until the block ends. Event loops do not wait: they hand theirs over."""
        return self._database.writing

    def flush_stale(self) -> None:
        """Hand writes whose event loop ended before it could flush them to the background thread.

        Closed loops are forgotten: what was to go on in them keeps them from being collected.
        """
        with self._queue_lock:
            for loop in [loop for loop in self._answers if loop.is_closed()]:
                del self._answers[loop]
        if self._queue and (self._flushing is None or self._flushing.is_closed()):
            self._offload()

    def close(self, error: BaseException) -> None:
        """Commit what is queued if that is possible at once, on the background thread, and give up on the rest."""
        self.refuse(error)
        self._drain()

    def refuse(self, error: BaseException) -> None:
        """Fail what is written from now on, but by `run_patiently`; no transaction is under way when this returns."""
        # Where nothing is open there is none, and no thread either: an event loop closes, which must not wait.
        transactions = nullcontext() if self._database.connections is None else self._database.writing
        with transactions, self._queue_lock:
            self._closed = error

    # The queue

    def _enqueue(self, write: Write[T], loop: asyncio.AbstractEventLoop | None, *, at_once: bool) -> None:
        """Put `write` at the end of the queue, and see that somebody works on it; `at_once`: the loop may."""
        with self._queue_lock:
            closed = self._closed
            if closed is None:
                self._queue.append(cast("AnyWrite", write))
            offloaded = self._offloaded
        if closed is not None:
            write.error = closed
            self._finish([cast("AnyWrite", write)])
            return
        if offloaded:
            return
        if not at_once or write.is_large or time.monotonic() < self._commits.rest_until:
            self._offload()
        elif loop is not None:
            if self._flushing is not loop:
                self._schedule_flush(loop)
        elif self._flushing is None or self._flushing.is_closed():
            self._offload()

    def _schedule_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flushing = loop
        loop.call_soon(self._flush, loop)

    def _offload(self) -> None:
        with self._queue_lock:
            if self._offloaded:
                return
            self._offloaded = True
        self._background.submit(self._drain)

    def _next_batch(self, limit: int, limit_bytes: int | None) -> list[AnyWrite]:
        batch: list[AnyWrite] = []
        size = 0
        with self._queue_lock:
            while self._queue and len(batch) < limit:
                size += self._queue[0].size_bytes
                if limit_bytes is not None and size > limit_bytes and batch:
                    break
                batch.append(self._queue.popleft())
        return batch

    # On event loops

    def _try_now(self, write: Write[T]) -> bool:
        """Commit `write` at once if nothing waits before it and the lock is free; return whether it is done with."""
        if (
            self._queue
            or self._offloaded
            or write.is_large
            or time.monotonic() < self._commits.rest_until
            or not self._database.writing.acquire(blocking=False)
        ):
            return False
        try:
            connections = self._database.connections
            if self._closed is not None or connections is None or self._queue or self._offloaded:
                return False
            wake: set[str] = set()
            left = self._commits.attempt(connections.inline, connections, [cast("AnyWrite", write)], wake)
        finally:
            self._database.writing.release()
        if left:
            return False
        self._committed(wake)
        return True

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._flushing is loop:
            self._flushing = None
            self._writer = (None, 0.0)
        self._crowded = len(self._queue) > 1
        if not self._queue or self._offloaded:
            return
        if not self._database.writing.acquire(blocking=False):  # another loop's transaction; it is short
            self._flushing = loop
            loop.call_later(FLUSH_RETRY_S, self._flush, loop)
            return
        wake: set[str] = set()
        left: list[AnyWrite] = []
        try:
            connections = self._database.connections if self._database.is_sound() else None
            if self._closed is not None:  # `close` does what can be done
                return
            if connections is not None:
                batch = self._next_batch(INLINE_WRITES, INLINE_BYTES)
                left = self._commits.attempt(connections.inline, connections, batch, wake)
                if left:
                    self._put_back(left)
        finally:
            self._database.writing.release()
        if connections is None or left:
            self._offload()
        elif self._queue and self._flushing is None:
            self._schedule_flush(loop)
        if connections is not None:
            self._finish([write for write in batch if write not in left] if left else batch)
            self._committed(wake)

    def _put_back(self, writes: list[AnyWrite]) -> None:
        with self._queue_lock:
            self._queue.extendleft(reversed(writes))

    # On the background thread

    def _drain(self) -> None:
        while True:
            batch = self._next_batch(PATIENT_WRITES, None)
            if not batch:
                with self._queue_lock:
                    if not self._queue:
                        self._offloaded = False
                        return
                continue
            try:
                self._database.open()
            except Exception as error:  # noqa: BLE001  # raised where the writes are waited for
                fail(batch, error)
            else:
                ready = [write for write in batch if write.make_ready()]
                if ready:
                    self._patiently(ready)
            self._finish(batch)

    def _patiently(
        self,
        batch: list[AnyWrite],
        patience_s: float | None = None,
        *,
        blocking: bool = False,
        give_up: Callable[[], bool] | None = None,
    ) -> None:
        """Commit `batch`, trying again while the write lock is taken, each write for `patience_s` from its call.

        `blocking`: the calling thread is not the background thread, whose connection it must leave alone.
        """
        left = batch
        retry_s = FIRST_RETRY_S
        while True:
            wake: set[str] = set()
            with self._database.writing:
                connections = self._database.connections
                if connections is None or (blocking and self._closed is not None):
                    fail(left, LayerClosedError("the channel layer was closed"))
                    return
                left = self._commits.attempt(
                    connections.inline if blocking else connections.patient, connections, left, wake
                )
            self._committed(wake)
            limit_s = patience_s or connections.busy_timeout_s
            submitted_before = time.monotonic() - limit_s
            late = [write for write in left if write.submitted_at <= submitted_before]
            if late:
                fail(
                    late,
                    ChannelDatabaseError(
                        f"the channel layer's database {connections.describe()} stayed locked for "
                        f"{limit_s:.1f} s, so nothing was written; {who_holds_the_lock()}"
                    ),
                )
            left = [write for write in left if write not in late and not write.withdrawn]
            if not left:
                return
            if give_up is not None and give_up():
                fail(left, GivenUpError())
                return
            paused_at = time.monotonic()
            with self._background.resting():
                if patience_s is not None:
                    time.sleep(retry_s)
                    stopping = False
                else:
                    stopping = self._background.stopping.wait(retry_s)
            if stopping:
                fail(left, LayerClosedError("the channel layer was closed before this could be written"))
                return
            # Time in which the process was suspended does not count: it could not try meanwhile.
            suspended_s = time.monotonic() - paused_at - retry_s
            if suspended_s > SUSPENDED_S:
                for write in left:
                    write.submitted_at += suspended_s
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    # Afterwards

    def _committed(self, wake: set[str]) -> None:
        """Wake the readers of what was just committed, and those of this process who look after the file."""
        self._background.stir()
        written = self._commits.written_bytes
        if written - self._growth_told >= GROWTH_BYTES:
            self._growth_told = written
            self._background.submit(self._watch_growth)
        self._wakeups.wake(wake)

    def _finish(self, writes: Iterable[AnyWrite]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for write in writes:
            if write.done is not None:
                write.done(write)
            elif write.future is not None and write.loop is not None:
                by_loop.setdefault(write.loop, []).append(write.future)
        for loop, futures in by_loop.items():
            with self._queue_lock:
                answers = self._answers.get(loop)
                if answers is None:
                    answers = self._answers[loop] = Answers()
            answers.add(futures)
            call_in(loop, answers.give)  # a closed loop has nobody left who waits

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._queue_lock = threading.Lock()


def _nothing() -> None:
    pass
