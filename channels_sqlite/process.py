"""Everything that one layer has in one process, put together: opened at first use, opened again when it must be.

    send → outbox → store ─ commit → wakeup ⇢ (another process) wakeup → inbox → mailboxes → receive

Threads: the async methods run on event loops, the `_in_thread` ones on the background thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from django.db.utils import DatabaseError

from channels_sqlite import forks, names
from channels_sqlite.alarms import WriteAlarm
from channels_sqlite.background import BackgroundThread
from channels_sqlite.connections import Connections
from channels_sqlite.counters import Counters
from channels_sqlite.exceptions import LayerClosedError, is_busy, is_harmless
from channels_sqlite.housekeeping import Housekeeping
from channels_sqlite.inbox import Inbox
from channels_sqlite.loops import call_in
from channels_sqlite.options import Options
from channels_sqlite.outbox import Outbox, Transaction
from channels_sqlite.presence import MeetingPlace
from channels_sqlite.registration import Registration
from channels_sqlite.reports import Reports
from channels_sqlite.store import Store
from channels_sqlite.wakeup import Sender, have_unix_datagrams
from channels_sqlite.watches import Duty, LoopWatches, ThreadWatch
from channels_sqlite.writes import Writes

__all__ = ["LayerProcess"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

CLIENT_BYTES = 8
REPLACED_CHECK_S = 1.0
TICK_S = 1.0
REOPEN_RETRY_S = 0.5
JOIN_S = 5.0
BYTES_PER_CHECK = 4 * 1024 * 1024  # of WAL; see housekeeping.CHECKPOINT_BYTES
READ_RETRY_S = 0.001


class LayerProcess:
    """One layer in one process. Its `client` is the part of channel names that belongs to it."""

    def __init__(self, options: Options, counters: Counters) -> None:
        """`counters` is what this process counts on with."""
        self.pid = os.getpid()
        self.client = secrets.token_hex(CLIENT_BYTES)
        self._options = options
        self.reports = Reports(counters)
        self._background = BackgroundThread(f"channels-sqlite[{options.prefix}]", self._tick_in_thread)
        self.outbox = Outbox(
            self._background,
            self.reports,
            sound=self._is_sound,
            reopen=self._open_in_thread,
            locate=self._locate,
            committed=self._committed,
            failed=self._failed,
        )
        self.inbox = Inbox(
            self.client, options, self.outbox, self.reports, failed=self._failed, publish=self._publish_soon
        )
        duty = Duty(
            options.polling_interval,
            wake_socket=lambda: self._registration.wake_socket,
            on_wake=self._look,
            on_tick=self._poll,
            rest=self._rest,
        )
        self.watches = LoopWatches(duty)
        self.threads = ThreadWatch(duty)
        self._registration = Registration(
            self.client,
            options.prefix,
            inbox=self.inbox,
            outbox=self.outbox,
            reports=self.reports,
            let_go=self._let_go,
            submit=self._background.submit,
        )
        self.writes = Writes(self.client, options, self.inbox, self.reports)
        self._connections: Connections | None = None
        self._broken = False
        self._identity: tuple[int, int] | None = None  # of the file that was opened last
        self._replaced_checked_at = 0.0
        self._last_sound_at = time.time()  # when the open file was last seen to be the one at its path
        self._reopen_at = 0.0
        self._place: MeetingPlace | None = None
        self._housekeeping: Housekeeping | None = None
        self._sender: Sender | None = None
        self._commits_seen = -1
        self._bytes_checked = 0
        self._sleeping = True  # the background thread waits for a job
        self._closed = False

    def require_own(self, channel: str) -> None:
        """Raise ValueError when a process-specific `channel` belongs to another process, or to this one before."""
        if "!" in channel and names.client_of(channel) != self.client:
            raise ValueError(
                f"cannot receive on {channel!r}: it is specific to the client {names.client_of(channel)!r}, and this "
                f"layer in this process is {self.client!r}; use a name that its new_channel() gave"
            )

    # Opening

    async def ready(self) -> None:
        """Make sure of open connections; errors as `Connections`."""
        if not self._is_sound():
            await self._in_background(self._open_in_thread)

    async def ready_to_receive(self) -> None:
        """Make sure that other processes know of this one."""
        if not self.can_receive():
            await self._in_background(self._register_in_thread)

    def ready_blocking(self) -> None:
        """Like `ready`, for a thread without an event loop."""
        if not self._is_sound():
            self._call(self._open_in_thread)

    def ready_to_receive_blocking(self) -> None:
        """Like `ready_to_receive`, for a thread without an event loop."""
        if not self.can_receive():
            self._call(self._register_in_thread)

    def can_receive(self) -> bool:
        """Whether the database is open and other processes know of this one."""
        connections = self._connections
        if connections is None or self._broken or not self._registration.done or connections.renamed():
            return False
        # The rest of `_is_sound`, when it is due: every receive() asks.
        return time.monotonic() - self._replaced_checked_at < REPLACED_CHECK_S or self._is_sound()

    def _is_sound(self) -> bool:
        """Whether the connections can be used, and the file that they have open is still the one at the path."""
        connections = self._connections
        if connections is None or self._broken or connections.renamed():
            return False
        now = time.monotonic()
        if now - self._replaced_checked_at >= REPLACED_CHECK_S:
            if connections.replaced():
                return False
            self._replaced_checked_at = now
            self._last_sound_at = time.time()
        return True

    async def _in_background(self, job: Callable[[], T]) -> T:
        """Run `job` on the background thread. Cancelled while waiting, the job is done all the same."""
        if self._closed:
            raise LayerClosedError("the channel layer was closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = job()
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                call_in(loop, _settle, future, None, error)
            else:
                call_in(loop, _settle, future, result, None)

        self._background.submit(run)
        return await future

    def _call(self, job: Callable[[], object]) -> None:
        if self._closed:
            raise LayerClosedError("the channel layer was closed")
        self._background.call(job)

    def _open_in_thread(self) -> None:
        if self._is_sound():
            return
        if self._closed:
            raise LayerClosedError("the channel layer was closed")
        since = self._last_sound_at
        before = self._identity
        if self._connections is not None:
            if not self._broken and not self._connections.renamed():
                logger.warning("the database was replaced or removed while in use; opening it anew")
            self._close_connections()
        connections = Connections(self._options.database, self._options.prefix)
        self._identity = connections.identity
        same_file = before is not None and before == connections.identity
        if not same_file:
            self.writes.forget_counts()
        place = MeetingPlace(connections.path)
        self._housekeeping = Housekeeping(
            self.client, self._options, connections=connections, place=place, outbox=self.outbox, reports=self.reports
        )
        if self._sender is None and have_unix_datagrams():
            self._sender = Sender()
        elif self._sender is not None:
            self._sender.forget()
        self._place = place
        self._use(connections)
        self._broken = False
        self._replaced_checked_at = time.monotonic()
        self._last_sound_at = time.time()
        if self._registration.done:
            self._registration.enter_again(place, same_file=same_file, since=since)
        else:
            self._registration.appear(place)

    def _use(self, connections: Connections | None) -> None:
        with self.outbox.execution, self.inbox.reading:
            self._connections = self.outbox.connections = self.inbox.connections = connections
        self.watches.rouse()
        self.threads.rouse()

    def _close_connections(self) -> None:
        old = self._connections
        self._use(None)
        if old is not None:
            try:
                old.close()
            except sqlite3.Error as error:
                logger.warning("closing the database: %s", error)

    def _failed(self, error: sqlite3.Error) -> None:
        """Have the connections opened anew at the next use: this error may be theirs, or the file's."""
        self._broken = True
        self.reports.failed("using the database", error)

    def _register_in_thread(self) -> None:
        self._open_in_thread()
        if not self._registration.done and self._place is not None:
            self._registration.enter(self._place)

    # Waking

    def _let_go(self) -> None:
        self.threads.poke()
        self.watches.let_go()

    def announce(self, transaction: Transaction) -> None:
        """Wake readers of what another connection has committed. Never raises: they would find it by polling."""
        self.outbox.finish(transaction)
        clients = transaction.wake
        if not clients and not self._is_sound():
            # Nothing to open the database for, which waits where it must be switched to WAL while somebody reads it,
            # maybe this very thread.
            return
        try:
            self.ready_blocking()
            self.inbox.query(lambda opened: self._locate(opened.reader.store, clients))
        except (sqlite3.Error, DatabaseError, LayerClosedError) as error:
            self.reports.failed("waking readers", error)
        else:
            self._committed(clients)

    def _publish_soon(self) -> None:
        self._registration.publish_soon()

    def _locate(self, store: Store, wake: set[str]) -> None:
        if self._sender is not None and self._place is not None:
            self._sender.locate(wake - {self.client}, store, self._place)

    def _committed(self, wake: set[str]) -> None:
        """Wake the readers of what was just committed."""
        if self._sleeping:
            self._sleeping = False
            self._background.submit(_nothing)  # starts its ticks
        if self.outbox.written_bytes - self._bytes_checked >= BYTES_PER_CHECK:
            self._bytes_checked = self.outbox.written_bytes
            self._background.submit(self._checkpoint_in_thread)
        if self._sender is not None:
            self.reports.counters.wakeups_sent += self._sender.wake(wake)
        if self.client in wake:
            self.inbox.pull()

    async def read(self, query: Callable[[Store], T]) -> T:
        """Return what `query` reads, which is never None, without the write lock."""
        started_at = time.monotonic()
        while (result := self._read_once(query, started_at)) is None:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(READ_RETRY_S)
        return result

    def read_blocking(self, query: Callable[[Store], T]) -> T:
        """Like `read`, for a thread without an event loop."""
        started_at = time.monotonic()
        while (result := self._read_once(query, started_at)) is None:
            time.sleep(READ_RETRY_S)
        return result

    def _read_once(self, query: Callable[[Store], T], started_at: float) -> T | None:
        """Return what `query` reads; None where the database is locked, which is worth another try."""
        connections = self._connections
        try:
            return self.inbox.query(lambda opened: query(opened.reader.store))
        except sqlite3.Error as error:
            if connections is None:
                raise
            # Busy only where WAL is not in use.
            if not is_busy(error) or time.monotonic() - started_at >= connections.busy_timeout_s:
                self._broken = not is_harmless(error)
                raise connections.explain(error) from error
            return None

    def _look(self) -> bool:
        """What a wake-up asks for; return whether it found anything."""
        before = self.inbox.found
        self.inbox.pull()
        return self.inbox.found != before

    def _poll(self) -> bool:
        """What a loop with receivers does every `polling_interval`; return whether anything was or may be new."""
        if self._is_sound():
            self.outbox.flush_stale()
            return self.inbox.poll(self._woken)
        if not self._closed and time.monotonic() >= self._reopen_at:
            self._reopen_at = time.monotonic() + REOPEN_RETRY_S
            self._background.submit(self._reopen_in_thread)
        return True

    def _rest(self, alarm: WriteAlarm) -> bool:
        """Set `alarm`; return whether whatever is committed after the latest poll rings it."""
        connections = self._connections
        return (
            connections is not None
            and connections.wal
            and alarm.set(f"{connections.path}-wal")
            and self.inbox.nobody_writes()
        )

    def _woken(self) -> bool:
        """Whether a wake-up has come that nobody has seen yet."""
        wake = self._registration.wake_socket
        return wake is not None and wake.drain()

    def _reopen_in_thread(self) -> None:
        try:
            self._open_in_thread()
        except Exception as error:  # noqa: BLE001  # reported, and tried again at the next poll
            self.reports.failed("opening the database again", error)
        else:
            self.inbox.pull()

    # Housekeeping

    def _tick_in_thread(self) -> float | None:
        """Do what is due every second; return when to come back, or None once there is nothing to do."""
        if self._closed or self._housekeeping is None:
            return None
        loops_closed = self.watches.forget_closed()
        self.reports.tell_rest()
        if not self._is_sound():
            if self._registration.done:
                self._reopen_in_thread()
                return TICK_S
            return None
        self.outbox.flush_stale()
        try:
            if self._registration.done:
                self.inbox.sweep(loops_closed=loops_closed)
                self._registration.keep_up()
            self._housekeeping.run()
        except Exception as error:  # noqa: BLE001  # reported, and tried again at the next tick
            self.reports.failed("housekeeping", error)
        self._registration.note()
        busy = self.outbox.commits != self._commits_seen
        self._commits_seen = self.outbox.commits
        if busy or self._registration.done:
            return TICK_S
        self._sleeping = True
        try:
            return self._housekeeping.due_in_s()
        except sqlite3.Error as error:
            self.reports.failed("housekeeping", error)
            return TICK_S

    def _checkpoint_in_thread(self) -> None:
        if self._housekeeping is not None and self._connections is not None and not self._broken:
            try:
                self._housekeeping.checkpoint_if_large()
            except Exception as error:  # noqa: BLE001  # reported, and tried again
                self.reports.failed("a checkpoint", error)

    # Closing and forking

    async def close(self) -> None:
        """Fail all waiters, leave the database as if this process had never been, end the thread."""
        if self._closed:
            return
        if self._connections is not None or self._registration.done:
            self._background.stopping.set()
            await self._in_background(self._close_in_thread)
            self._background.stop(JOIN_S)
        else:
            self._close_unopened()

    def close_from_anywhere(self, wait: bool) -> None:
        """Like `close`, for a layer that was dropped (`wait` is False) and for the end of the interpreter."""
        if self._closed or self.pid != os.getpid():
            return
        if self._connections is None and not self._registration.done:
            self._close_unopened()
            return
        self._background.stopping.set()
        self._background.submit(self._close_in_thread)
        self._background.stop(JOIN_S if wait else None)

    def _close_unopened(self) -> None:
        self._closed = True
        self.outbox.refuse(LayerClosedError("the channel layer was closed"))
        self._background.stop(None)

    def _close_in_thread(self) -> None:
        if self._closed:
            return
        self._closed = True
        error = LayerClosedError("the channel layer was closed")
        self.inbox.close(error)
        self.reports.tell_rest(interval_s=0)
        self._registration.leave()
        self.outbox.close(error)
        self._registration.leave_place()
        self.watches.stop()
        self.threads.close()
        if self._sender is not None:
            self._sender.close()
        self._close_connections()

    def fork_locks(self) -> Iterable[threading.Lock]:
        """Return the locks under which SQLite is used."""
        return (self._background.working, self.outbox.execution, self.inbox.reading)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without touching it."""
        forks.immortalise(self)
        self._registration.abandon()
        self.watches.abandon()
        self.threads.close()
        self._closed = True


def _nothing() -> None:
    pass


def _settle(future: asyncio.Future[T], result: T, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
