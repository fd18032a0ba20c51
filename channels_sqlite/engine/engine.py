"""Everything that one layer has in one process, put together: opened at first use, opened again when it must be.

    send → operations → outbox → transaction ─ commit ⇒ wakeups ⇢ (another process) wake socket ⇒ reader → log →
    mailboxes → receive

Threads: the async methods run on event loops, the `_in_thread` ones on the background thread.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from django.db.utils import DatabaseError

from channels_sqlite import names
from channels_sqlite.codec import Codec, Message, UndecodableError
from channels_sqlite.concurrency import endings, forks
from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.concurrency.reentry import exclusive
from channels_sqlite.counters import Counters
from channels_sqlite.delivery.history import Histories
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.delivery.operations import Operations
from channels_sqlite.delivery.schedule import Schedule
from channels_sqlite.engine.due_messages import DueMessages
from channels_sqlite.engine.housekeeping import Housekeeping
from channels_sqlite.engine.lookout import Lookout
from channels_sqlite.engine.registration import Registration
from channels_sqlite.engine.seat import Seat
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import OpenDatabase, Opened
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.waking.wakeups import Wakeups
from channels_sqlite.waking.watches import Watches

__all__ = ["Engine"]

T = TypeVar("T")

CLIENT_BYTES = 8
TICK_S = 1.0
JOIN_S = 5.0


class Engine:
    """One layer in one process. Its `client` is the part of channel names that belongs to it."""

    def __init__(self, options: Options, codec: Codec, counters: Counters) -> None:
        """`counters` is what this process counts on with."""
        self.pid = os.getpid()
        self.client = secrets.token_hex(CLIENT_BYTES)
        self.options = options
        self.codec = codec
        self.reports = Reports(counters)
        self._background = BackgroundThread(f"channels-sqlite[{options.prefix}]", self._tick_in_thread)
        self.database = OpenDatabase(options.database, options.prefix, self.reports)
        self.wakeups = Wakeups(self.client, self.database, counters)
        self.outbox = Outbox(self.database, self._background, self.wakeups, self.reports)
        self.inbox = Inbox(
            self.client, options, self.database, outbox=self.outbox, wakeups=self.wakeups, reports=self.reports
        )
        self.operations = Operations(self.client, options, self.inbox, self.wakeups, self.reports)
        self.schedule = Schedule(self.operations, self.reports)
        self.histories = Histories(
            self.client, options, codec, inbox=self.inbox, operations=self.operations, reports=self.reports
        )
        self._due_messages = DueMessages(
            self.client,
            self.schedule,
            database=self.database,
            outbox=self.outbox,
            background=self._background,
            reports=self.reports,
        )
        self.inbox.reader.register(self._due_messages)
        self._seat = Seat(self.client, options.prefix, self.reports)
        self._lookout = Lookout(
            options.polling_interval,
            database=self.database,
            background=self._background,
            outbox=self.outbox,
            reader=self.inbox.reader,
            seat=self._seat,
            reports=self.reports,
        )
        self.watches = Watches(self._lookout)
        self._registration = Registration(
            self.client,
            seat=self._seat,
            inbox=self.inbox,
            outbox=self.outbox,
            background=self._background,
            wakeups=self.wakeups,
            reports=self.reports,
        )
        self._housekeeping: Housekeeping | None = None
        self._cleared_up = False  # after the dead, since this file was opened
        self._commits_seen = -1
        self._closed = False
        self.wakeups.read_here = self.inbox.reader.pull
        self.outbox.watch_growth(self._checkpoint_in_thread)
        self._seat.on_dropped.append(self.watches.let_go)
        self.database.on_opened.append(self._opened_in_thread)
        forks.register(self._after_fork_in_child, self._fork_locks)

    def require_own(self, channel: str) -> None:
        """Raise ValueError when a process-specific `channel` belongs to another process, or to this one before."""
        if "!" in channel and names.client_of(channel) != self.client:
            raise ValueError(
                f"cannot receive on {channel!r}: it is specific to the client {names.client_of(channel)!r}, and this "
                f"layer in this process is {self.client!r}; use a name that its new_channel() gave"
            )

    # Opening

    async def ready(self) -> None:
        """Make sure of open connections; errors as `OpenDatabase.open`."""
        if not self.database.is_sound():
            await self._background.acall(self.database.open)

    async def ready_to_receive(self) -> None:
        """Make sure that other processes know of this one."""
        if not self.can_receive():
            await self._background.acall(self._register_in_thread)

    def ready_blocking(self) -> None:
        """Like `ready`, for a thread without an event loop."""
        if not self.database.is_sound():
            self._background.call(self.database.open)

    def ready_to_receive_blocking(self, give_up: Callable[[], bool] | None = None) -> bool:
        """Like `ready_to_receive`, for a thread without an event loop; return whether it is, if asked to `give_up`."""
        if not self.can_receive():
            self._background.call(self._register_in_thread, give_up)
        return self.can_receive()

    async def read_aside(self, query: Callable[[Store], T]) -> T:
        """Return what `query` reads, which is never None, in the background thread; errors as `Reader.read`."""
        return await self._background.acall(lambda: self.inbox.reader.read(query))

    def bury_the_dead_blocking(self) -> None:
        """Clear up after dead processes now, without waiting for the next round; for a thread without an event loop."""
        self._background.call(self._bury_in_thread)

    def _bury_in_thread(self) -> None:
        self.database.open()
        if self._housekeeping is not None:
            self._housekeeping.bury_the_dead()

    async def ready_to_list(self) -> None:
        """Make sure that a list of who is present has no dead in it that were there before this process."""
        if not self._cleared_up or not self.database.is_sound():
            await self._background.acall(self._clear_up_lists_in_thread)

    def ready_to_list_blocking(self) -> None:
        """Like `ready_to_list`, for a thread without an event loop."""
        if not self._cleared_up or not self.database.is_sound():
            self._background.call(self._clear_up_lists_in_thread)

    def _clear_up_lists_in_thread(self) -> None:
        try:
            self._bury_in_thread()
            if self._housekeeping is not None:
                self._housekeeping.trimming.end_expired()
        except sqlite3.Error as error:
            connections = self.database.connections
            if connections is None:
                raise
            raise connections.explain(error) from error
        self._cleared_up = True

    async def do_in_thread(self, job: Callable[[], T]) -> T:
        """Return what `job` returns, which would hold up an event loop."""
        return await self._background.acall(job)

    def info(self, group: str, key: str, stored: bytes) -> Message:
        """Return the info of somebody who is present; {}, and a line in the log, where it cannot be decoded."""
        try:
            return self.codec.decode(stored)
        except UndecodableError as error:
            self.reports.unreadable_info(group, key, str(error))
            return {}

    def can_receive(self) -> bool:
        """Whether the database is open and other processes know of this one."""
        return self._registration.done and self.database.is_sound()

    def _opened_in_thread(self, opened: Opened) -> None:
        self.wakeups.forget()
        self._cleared_up = False
        self._housekeeping = Housekeeping(
            self.client,
            self.options,
            connections=opened.connections,
            place=opened.place,
            outbox=self.outbox,
            departures=self.inbox.departures,
            reports=self.reports,
        )
        self.watches.rouse()
        self._registration.opened(opened)

    def _register_in_thread(self) -> None:
        self.database.open()
        if not self._registration.done:
            self._registration.enter()

    # What a transaction of the user's has committed

    def announce(self, transaction: Transaction) -> None:
        """Hand over what another connection has committed, and wake its readers.

        Never raises: they would find it by polling.
        """
        with exclusive:
            transaction.hand_over(self.reports.counters)
            if transaction.wake:
                self._wake(transaction.wake)
            elif self.database.is_sound():
                # Else there is nothing to open the database for, which waits where it must be switched to WAL while
                # somebody reads it, maybe this very thread.
                self._background.stir()

    def _wake(self, clients: set[str]) -> None:
        try:
            self.ready_blocking()
            self.inbox.reader.query(lambda store: self.wakeups.locate(clients, store))
        except (sqlite3.Error, DatabaseError, LayerClosedError) as error:
            self.reports.failed("waking readers", error)
        else:
            self._background.stir()
            self.wakeups.wake(clients)

    # Every second

    def _tick_in_thread(self) -> float | None:
        """Do what is due every second; return when to come back, or None once there is nothing to do."""
        if self._closed or self._housekeeping is None:
            return None
        loops_closed = self.watches.loops.forget_closed()
        self.reports.tell_rest()
        if not self.database.is_sound():
            if self._registration.done:
                self._lookout.reopen()
                return TICK_S
            return None
        self._due_messages.look()
        # Each for itself: what fails is told, and tried again at the next tick.
        self._attempt("writing what is left of closed event loops", self.outbox.flush_stale)
        if self._registration.done:
            self._attempt("sweeping", lambda: self.inbox.sweep(loops_closed=loops_closed))
            self._attempt("keeping the registration", self._registration.keep_up)
        self._attempt("housekeeping", self._housekeeping.run)
        self._attempt("closing unused sockets", self.wakeups.forget_gone)
        self._attempt("keeping the note of ids", self.inbox.epochs.given.keep)
        self._seat.note()
        busy = self.outbox.commits != self._commits_seen
        self._commits_seen = self.outbox.commits
        if busy or self._registration.done:
            return TICK_S
        self._background.settle()
        try:
            return self._housekeeping.due_in_s()
        except sqlite3.Error as error:
            self.reports.failed("housekeeping", error)
            return TICK_S

    def _attempt(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # reported, and tried again at the next tick
            self.reports.failed(what, error)

    def _checkpoint_in_thread(self) -> None:
        if self._housekeeping is not None and self.database.is_sound():
            self._attempt("a checkpoint", self._housekeeping.checkpoints.do_if_large)

    # Closing and forking

    async def close(self) -> None:
        """Fail all waiters, leave the database as if this process had never been, end the thread."""
        if self._closed:
            return
        if self._background.end_unstarted():
            self._background.submit(self._close_in_thread)
            return
        self._background.stopping.set()
        patience_s: float | None = None  # cancelled here, the thread comes to its end by itself
        try:
            await self._background.acall(self._close_in_thread)
            patience_s = JOIN_S
        finally:
            self._background.stop(patience_s)

    def close_from_anywhere(self, wait: bool) -> None:
        """Like `close`, for a layer that was dropped (`wait` is False) and for the end of the interpreter."""
        if self._closed or self.pid != os.getpid():
            return
        self._background.end_unstarted()
        self._background.stopping.set()
        # What was claimed goes back, for which the thread may have to wait.
        claimed_s = self.outbox.patience_s if wait and self.inbox.claimed.hold_any() else 0.0
        self._background.submit(self._close_in_thread)
        self._background.stop(JOIN_S + claimed_s if wait else None)

    def _close_in_thread(self) -> None:
        """Take every step, whatever becomes of the others, and raise the first error in the end."""
        if self._closed:
            return
        self._closed = True
        self.database.refuse()
        errors: list[Exception] = []
        steps: tuple[Callable[[], object], ...] = (
            lambda: self.inbox.shut(tell=not endings.closed_for_good),
            lambda: self.outbox.close(LayerClosedError("the channel layer was closed")),
            self._clear_up,
            self._registration.leave,
            lambda: self.reports.tell_rest(interval_s=0),
            self._seat.leave,
            self.watches.stop,
            self.wakeups.close,
            self.inbox.epochs.given.close,
            self.database.close,
        )
        for step in steps:
            try:
                step()
            except Exception as error:  # noqa: BLE001  # raised in the end
                errors.append(error)
        if errors:
            raise errors[0]

    def _clear_up(self) -> None:
        if self._housekeeping is not None:
            self._housekeeping.clear_up()

    def _fork_locks(self) -> Iterable[threading.Lock]:
        """Return the locks under which SQLite is used. Nobody waits under them, but for the disk."""
        return (self._background.working, self.database.writing, self.database.reading)

    def _after_fork_in_child(self) -> None:
        """Let go of what is the parent's, without touching it. A layer that is being closed still has all of it."""
        # Of a closed layer as well: whoever leaves by unwinding what the parent was doing takes locks here.
        self._background.abandon()
        self.outbox.abandon()
        self.inbox.abandon()
        self.reports.abandon()
        self._registration.abandon()
        self._seat.abandon()
        self.watches.abandon()
        self.wakeups.abandon()
        if not self._closed or self.database.connections is not None:
            forks.immortalise(self)
        self._closed = True
