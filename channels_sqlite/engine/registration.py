"""A process's entry among the readers, in the database.

All methods run on the background thread, but `return_soon`, which any thread may call, `enter_in`, which any
transaction may, and `abandon`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.engine.seat import Seat
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.processes.liveness import machine_id
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Opened
from channels_sqlite.storage.errors import explaining_os, is_busy
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.waking.wakeups import Wakeups

__all__ = ["Registration"]

logger = logging.getLogger(__name__)

IDLE_LISTENER_S = 30.0
LEAVE_PATIENCE_S = 3.0  # where nothing is lost by it: the sweep of the others cleans up


class Registration:
    """Makes one reader known to senders and to the sweep, and keeps it known."""

    def __init__(
        self,
        client: str,
        *,
        seat: Seat,
        inbox: Inbox,
        outbox: Outbox,
        background: BackgroundThread,
        wakeups: Wakeups,
        reports: Reports,
    ) -> None:
        self.client = client
        self._seat = seat
        self._inbox = inbox
        self._outbox = outbox
        self._background = background
        self._wakeups = wakeups
        self._reports = reports
        self._address = ""  # in the database
        self._returning = threading.Lock()  # held on the way to register again; only ever tried for
        # From which id on reading begins, or None: where it is; see `enter_in`.
        self._starts_at: Callable[[Transaction], int | None] = inbox.log.resumes_at
        self._store: Store | None = None  # of the background thread's connection, once one is open
        self.done = False

    def enter(self) -> None:
        """Register; what is sent from now on is read. Raises ChannelDatabaseError where it cannot be shown to live."""
        with explaining_os("holding the lock file by which others see that this process lives"):
            self._seat.take()
        self._starts_at = lambda transaction: transaction.newest
        self._enter()
        self._outbox.registration = self
        self.done = True

    def opened(self, opened: Opened) -> None:
        """Go on in the database that was opened; one that is registered does so there, with all that hangs on it.

        In the same file reading goes on where it was; in one that took the place of another it begins with what was
        sent after the old file was last seen in its place.
        """
        self._seat.move_to(opened.place)
        self._store = opened.connections.patient.store
        if not self.done:
            self._seat.note()  # show that this process lives, and leave it at that: it may never receive
            return
        self._starts_at = (
            self._inbox.log.resumes_at
            if opened.same_file
            else lambda transaction: transaction.store.newest_id_before(opened.since)
        )
        self._seat.keep()
        self._enter()

    def _enter(self) -> None:
        # Where the entry is gone, the transaction has made it already.
        self._outbox.run_patiently(lambda transaction: None if transaction.entered else self.enter_in(transaction))
        self._starts_at = self._inbox.log.resumes_at
        self._inbox.reader.pull()

    def enter_in(self, transaction: Transaction) -> None:
        """Write the entry into the database, with the memberships and what is listened to."""
        transaction.entered = True
        store = transaction.store
        address = self._address = self._seat.address
        starts_at = self._starts_at(transaction)
        cursor = self._inbox.boxes.cursor if starts_at is None else starts_at
        store.register(
            ProcessRow(self.client, os.getpid(), machine_id(), address, cursor, held="{}", channels=0), transaction.now
        )
        self._inbox.changes.note_all(transaction)
        for group, channel, joined_before, expires_at in self._inbox.members.all():
            joined_id = store.join(
                group,
                self.client,
                channel,
                joined_id=joined_before if starts_at is None else starts_at,
                expires_at=expires_at,
                now=transaction.now,
            )
            transaction.undo.append(self._inbox.members.joined(group, channel, (joined_id, expires_at)))
        if starts_at is not None or not transaction.registered:
            self._inbox.departures.reenter(transaction, starts_at)
        for channel in self._inbox.claims.listening():
            store.listen(channel, self.client)
        if starts_at is not None:  # else the cursor may move on while this is written
            transaction.undo.append(self._inbox.log.start(starts_at))
        was_gone = not transaction.registered
        transaction.after_commit.append(lambda: self._entered(was_gone=was_gone))

    def _entered(self, *, was_gone: bool) -> None:
        self._inbox.progress.forget()
        if was_gone:  # others may have lost theirs as well
            logger.warning("the registration of client %s was gone; registering again", self.client)
            self._wakeups.wake_everybody()

    def return_soon(self) -> None:
        """Register again soon: somebody has deleted the entry."""
        if self.done and self._returning.acquire(blocking=False):
            try:
                self._background.submit(self._return)
            except ChannelDatabaseError:
                self._returning.release()
                raise

    def _return(self) -> None:
        try:
            if self.done:
                self._seat.keep()
                self._outbox.run_patiently(lambda _: None)  # does it, where nobody else has done so meanwhile
                self._inbox.reader.pull()
        except ChannelDatabaseError as error:
            self._reports.failed("registering again", error)
        finally:
            self._returning.release()

    def keep_up(self) -> None:
        """Do what is due every second."""
        self._seat.keep()
        if self._is_gone():
            self.return_soon()
            return
        if self._seat.address not in ("", self._address):  # a new socket; others look for it elsewhere
            self._tell_of_socket()
        self._inbox.progress.publish_if_changed()
        self._inbox.claims.forget_idle(IDLE_LISTENER_S)

    def _is_gone(self) -> bool:
        """Whether somebody has deleted the entry. Where nobody receives and nobody sends, nobody else would see it.

        Read on the thread's own connection: it does not wait for the reader's turn, and writes not for it.
        """
        if self._store is None:
            return False
        try:
            return not self._store.newest_id_and_registered(self.client)[1]
        except sqlite3.Error as error:
            if is_busy(error):  # where WAL is not in use; the next tick sees it
                return False
            raise

    def _tell_of_socket(self) -> None:
        try:
            self._enter()
        except ChannelDatabaseError as error:
            self._reports.failed("telling of a new wake-up socket", error)

    def leave(self) -> None:
        """Leave the database as if this process had never been there; others do it when that fails.

        What was claimed and not received goes back, in the same transaction, for which the write lock is waited for as
        long as for any other. What cannot be put back is lost, and told.
        """
        left = self._inbox.claimed.take_all()
        was_reader, self.done, self._outbox.registration = self.done, False, None
        self._inbox.log.stop()
        if not was_reader and not left:
            return
        cursor = self._inbox.boxes.cursor

        def apply(transaction: Transaction) -> None:
            self._inbox.claims.put_back_in(transaction, left)
            self._inbox.departures.forget(transaction, self.client, cursor)
            transaction.wake.discard(self.client)

        try:
            self._outbox.run_patiently(apply, self._outbox.patience_s if left else LEAVE_PATIENCE_S)
        except Exception as error:  # noqa: BLE001  # the sweep of the others does it then
            logger.info("left to the other processes to clean up after client %s: %s", self.client, error)
            for channel, entries in left.items():
                self._reports.lost(channel, len(entries), error)
            self._seat.die()

    def abandon(self) -> None:
        """In a forked child: be nobody's any more."""
        self.done = False
