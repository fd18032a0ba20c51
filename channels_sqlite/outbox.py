"""Writes: committed on the event loop while the write lock is free, handed to the background thread while it is not.

A commit takes 25-30 us, less than any hop to a thread, so the first write of a loop iteration is committed at once.
While one task alone is writing, its further ones are, too, for a millisecond: it waits for each of them. Those of other
tasks in that iteration join one transaction. When another connection holds the write lock, the queue moves to the
background thread, which tries until the database's time-out; until it is empty every later write queues behind it, so
that order holds.

Threads: `write` is called on event loops, `write_blocking` on other threads, `post` anywhere, `run_patiently` on the
background thread. `execution` is held while a transaction runs and never across an await; `_queue_lock` only while the
queue is touched.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar, cast

from channels_sqlite.background import BackgroundThread
from channels_sqlite.connections import Connections, OpenConnection
from channels_sqlite.exceptions import ChannelDatabaseError, LayerClosedError, is_busy, is_harmless, who_holds_the_lock
from channels_sqlite.loops import call_in
from channels_sqlite.reports import Reports
from channels_sqlite.store import LogRow, Store

__all__ = ["Outbox", "Transaction"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

INLINE_BYTES = 256 * 1024  # a larger payload is written by the thread: copying it would hold up the loop
INLINE_WRITES = 200  # writes in one transaction on a loop: 1.5 ms
PATIENT_WRITES = 1000
COMMIT_BYTES = 16 * 1024  # four pages
INLINE_S = 0.001  # of one task's writes in one iteration of its loop, which the others must not wait for longer
SLOW_COMMIT_S = 0.01
SLOW_REST_S = 0.25
FIRST_RETRY_S, LAST_RETRY_S = (0.001, 0.005)  # SQLite's own busy handler sleeps up to 0.1 s
FLUSH_RETRY_S = 0.001


class Transaction:
    """One write transaction: what its writes share.

    A write checks first and writes then: it may raise (ChannelFull) as long as it has written nothing. State outside
    of the database that it changes goes back in `undo` when the transaction fails; `wake` names the clients to wake
    once it is committed, `own` has the rows for this very process, `after_commit` says what else to do then. One that
    is `joined` is part of a transaction of the user's: nobody tells when that fails, so such writes change no state
    outside.
    """

    __slots__ = ("after_commit", "first", "joined", "newest", "now", "own", "sent", "store", "undo", "wake")

    def __init__(self, store: Store, now: float, *, joined: bool = False) -> None:
        self.store = store
        self.now = now  # seconds since 1970
        self.joined = joined
        self.first = self.newest = store.newest_id()
        self.own: list[LogRow] = []
        self.sent = 0  # messages; a broadcast counts once
        self.wake: set[str] = set()
        self.undo: list[Callable[[], object]] = []
        self.after_commit: list[Callable[[], object]] = []


class Write(Generic[T]):
    """One write on its way. `done` is called once, on any thread, when `result` or `error` stands."""

    __slots__ = ("apply", "done", "error", "future", "loop", "result", "size_bytes", "submitted_at", "withdrawn")

    def __init__(self, apply: Callable[[Transaction], T], size_bytes: int = 0) -> None:
        self.apply = apply
        self.size_bytes = size_bytes
        self.submitted_at = time.monotonic()
        self.result: T | None = None
        self.error: BaseException | None = None
        self.withdrawn = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.future: asyncio.Future[None] | None = None
        self.done: Callable[[Write[T]], object] | None = None

    def outcome(self) -> T:
        """Return the result or raise the error."""
        if self.error is not None:
            raise self.error.with_traceback(None)  # it may be raised to many, and would gather their frames
        return cast("T", self.result)


AnyWrite = Write[object]


class Outbox:
    """The queue of writes of one layer in one process."""

    def __init__(
        self,
        background: BackgroundThread,
        reports: Reports,
        *,
        sound: Callable[[], bool],
        reopen: Callable[[], None],
        locate: Callable[[Store, set[str]], None],
        committed: Callable[[set[str]], None],
        failed: Callable[[sqlite3.Error], None],
    ) -> None:
        """Wire it up.

        `sound` says whether the connections can be used, and `reopen` opens them on the background thread, or raises.
        `locate` looks up in a transaction where its readers are, and `committed` wakes them after it; `failed` hears of
        errors that the connections may not survive.
        """
        self._background = background
        self._reports = reports
        self._sound = sound
        self._reopen = reopen
        self._locate = locate
        self._committed = committed
        self._failed = failed
        self.connections: Connections | None = None
        self.execution = threading.Lock()
        self._queue: deque[AnyWrite] = deque()
        self._queue_lock = threading.Lock()
        self._flushing: asyncio.AbstractEventLoop | None = None  # has a _flush scheduled
        # The task whose writes in this iteration of that loop are committed at once, until that monotonic time.
        self._writer: tuple[asyncio.Task[Any] | None, float] = (None, 0.0)
        self._crowded = False  # several writes shared the last transaction of a _flush
        self._offloaded = False  # the background thread works on the queue
        self._rest_until = 0.0  # monotonic time until which a slow disk keeps writes off the loops
        self._closed: BaseException | None = None
        self.commits = 0
        self.written_bytes = 0  # about what the commits added to the WAL

    # Writing

    async def write(self, apply: Callable[[Transaction], T], size_bytes: int = 0) -> T:
        """Run `apply` in a transaction and return its result once committed.

        A write whose caller is cancelled while it still waits in the queue is dropped; one whose transaction has begun
        may be committed all the same.
        """
        loop = asyncio.get_running_loop()
        write = Write(apply, size_bytes)
        sound = self._sound()
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
        sound = self._sound()
        if sound and self._try_now(write):
            done(write)
        else:
            self._enqueue(write, None, at_once=sound)

    def write_blocking(self, apply: Callable[[Transaction], T], size_bytes: int = 0) -> T:
        """Like `write`, for threads without an event loop: the calling thread waits, for the write lock as well.

        It joins no queue: what was written before by this very thread is committed.
        """
        write = Write(apply, size_bytes)
        while True:
            if self._closed is not None:
                raise self._closed
            if not self._sound():
                self._background.call(self._reopen)
            self._patiently([cast("AnyWrite", write)], blocking=True)
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

    def flush_stale(self) -> None:
        """Hand writes whose event loop ended before it could flush them to the background thread."""
        if self._queue and (self._flushing is None or self._flushing.is_closed()):
            self._offload()

    def close(self, error: BaseException) -> None:
        """Commit what is queued if that is possible at once, on the background thread, and give up on the rest."""
        self.refuse(error)
        self._drain()

    def refuse(self, error: BaseException) -> None:
        """Fail what is written from now on."""
        with self._queue_lock:
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
        if not at_once or write.size_bytes > INLINE_BYTES or time.monotonic() < self._rest_until:
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
            or write.size_bytes > INLINE_BYTES
            or time.monotonic() < self._rest_until
            or not self.execution.acquire(blocking=False)
        ):
            return False
        try:
            connections = self.connections
            if connections is None or self._queue or self._offloaded:
                return False
            wake: set[str] = set()
            left = self._attempt(connections.inline, connections, [cast("AnyWrite", write)], wake)
        finally:
            self.execution.release()
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
        if not self.execution.acquire(blocking=False):  # another loop's transaction; it is short
            self._flushing = loop
            loop.call_later(FLUSH_RETRY_S, self._flush, loop)
            return
        wake: set[str] = set()
        left: list[AnyWrite] = []
        try:
            connections = self.connections if self._sound() else None
            if connections is not None:
                batch = self._next_batch(INLINE_WRITES, INLINE_BYTES)
                left = self._attempt(connections.inline, connections, batch, wake)
                if left:
                    self._put_back(left)
        finally:
            self.execution.release()
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
                self._reopen()
            except Exception as error:  # noqa: BLE001  # raised where the writes are waited for
                _fail(batch, error)
            else:
                self._patiently(batch)
            self._finish(batch)

    def _patiently(self, batch: list[AnyWrite], patience_s: float | None = None, *, blocking: bool = False) -> None:
        """Commit `batch`, trying again while the write lock is taken, each write for `patience_s` from its call.

        `blocking`: the calling thread is not the background thread, whose connection it must leave alone.
        """
        left = batch
        retry_s = FIRST_RETRY_S
        while True:
            wake: set[str] = set()
            with self.execution:
                connections = self.connections
                if connections is None:
                    _fail(left, LayerClosedError("the channel layer was closed"))
                    return
                left = self._attempt(connections.inline if blocking else connections.patient, connections, left, wake)
            self._committed(wake)
            submitted_before = time.monotonic() - (patience_s or connections.busy_timeout_s)
            late = [write for write in left if write.submitted_at <= submitted_before]
            if late:
                _fail(
                    late,
                    ChannelDatabaseError(
                        f"the channel layer's database {connections.describe()} stayed locked for "
                        f"{connections.busy_timeout_s:.1f} s, so nothing was written; {who_holds_the_lock()}"
                    ),
                )
            left = [write for write in left if write not in late and not write.withdrawn]
            if not left:
                return
            if patience_s is not None:
                time.sleep(retry_s)
            elif self._background.stopping.wait(retry_s):
                _fail(left, LayerClosedError("the channel layer was closed before this could be written"))
                return
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    # A transaction

    def _attempt(
        self, connection: OpenConnection, connections: Connections, batch: list[AnyWrite], wake: set[str]
    ) -> list[AnyWrite]:
        """Run `batch` in one transaction; return what could not be done because the database is locked.

        An error of the database fails the one write that it belongs to: a batch that fails is tried write by write.
        """
        store = connection.store
        transaction: Transaction | None = None
        try:
            store.begin()
            transaction = Transaction(store, time.time())
            for write in batch:
                if not write.withdrawn:
                    _apply(write, transaction)
            if transaction.wake:
                self._locate(store, transaction.wake)
            started = time.monotonic()
            store.commit()
        except sqlite3.Error as error:
            if transaction is not None:
                for undo in reversed(transaction.undo):
                    undo()
            _roll_back(store)
            if is_busy(error):
                self._reports.counters.retried += 1
                return batch
            if len(batch) > 1:
                return [left for write in batch for left in self._attempt(connection, connections, [write], wake)]
            explained = connections.explain(error)
            explained.__cause__ = error
            _fail(batch, explained)
            if not is_harmless(error):
                self._failed(error)
            return []
        except BaseException:  # Ctrl-C
            self._end(store, transaction)
            raise
        if connection is connections.inline:
            self._watch_commit_time(time.monotonic() - started)
        self.commits += 1
        self.written_bytes += COMMIT_BYTES + sum(write.size_bytes for write in batch)
        wake |= transaction.wake
        self.finish(transaction)
        return []

    def finish(self, transaction: Transaction) -> None:
        """Do what is to be done after the commit, but for waking others."""
        self._reports.counters.sent += transaction.sent
        while transaction.after_commit:
            transaction.after_commit.pop(0)()

    def _end(self, store: Store, transaction: Transaction | None) -> None:
        """Bring what was interrupted to an end, be it before or after the commit."""
        if store.in_transaction:
            for undo in reversed(transaction.undo if transaction is not None else ()):
                undo()
            _roll_back(store)
        elif transaction is not None:
            self.finish(transaction)

    def _watch_commit_time(self, commit_s: float) -> None:
        if commit_s > SLOW_COMMIT_S:
            self._rest_until = time.monotonic() + SLOW_REST_S
            self._reports.slow_commit(commit_s)

    def _finish(self, writes: Iterable[AnyWrite]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for write in writes:
            if write.done is not None:
                write.done(write)
            elif write.future is not None and write.loop is not None:
                by_loop.setdefault(write.loop, []).append(write.future)
        for loop, futures in by_loop.items():
            call_in(loop, _resolve, futures)  # a closed loop has nobody left who waits


def _apply(write: AnyWrite, transaction: Transaction) -> None:
    write.error = None
    try:
        write.result = write.apply(transaction)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001  # ChannelFull, say: it is this write's alone, which wrote nothing
        write.error = error


def _fail(writes: Iterable[AnyWrite], error: Exception) -> None:
    for write in writes:
        write.error = error


def _roll_back(store: Store) -> None:
    try:
        store.rollback()
    except sqlite3.Error as error:
        logger.warning("could not roll back: %s", error)


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
