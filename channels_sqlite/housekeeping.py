"""What one elected process does for all, on its background thread: dead processes, trimming, checkpoints.

Checkpoints are the only place where SQLite waits for the disk, and two of them at once can corrupt the file on
SQLite before 3.51.3 (https://www.sqlite.org/wal.html#walresetbug): hence the election, a `flock` that is held for the
length of one round. All else may be done twice without harm, and is, when the elected process does not come to an end:
it may have been suspended in the middle of its round.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from channels_sqlite.connections import Connections
from channels_sqlite.exceptions import ChannelDatabaseError, is_busy
from channels_sqlite.options import Options
from channels_sqlite.outbox import Transaction
from channels_sqlite.presence import HousekeepingLock, MeetingPlace, is_dead, remove_orphans, remove_traces
from channels_sqlite.reports import Reports
from channels_sqlite.store import Kind, Store

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

SOONEST_S, LATEST_S = 1.0, 60.0  # between two rounds while there is something to do
ROUND_S = 0.5  # the longest that trimming works in one round
SCAN_ROWS = 5000  # rows looked at in one round where messages are not kept
CHECKPOINT_BYTES = 16 * 1024 * 1024
CHECKPOINT_IDLE_S = 5.0
FRESH_WAL_BYTES = 16384  # more than what a checkpoint itself leaves
CHECKPOINT_BUSY_MS = 100
ORPHANS_EVERY_S = 5.0
MEMBERSHIPS_EVERY_S = 30.0
PATIENT_ROUNDS = 3  # that were another process's, one after the other, until this one works beside it


T = TypeVar("T")


class PatientWriter(Protocol):
    """What housekeeping needs of an `Outbox`: runs one transaction, and waits for the write lock if it must."""

    def run_patiently(self, apply: Callable[[Transaction], T], patience_s: float | None = None) -> T: ...


class Housekeeping:
    """One round of `run` does what is due, when no other process is at it."""

    def __init__(
        self,
        client: str,
        options: Options,
        *,
        connections: Connections,
        place: MeetingPlace,
        outbox: PatientWriter,
        reports: Reports,
    ) -> None:
        self._client = client
        self._options = options
        self._connections = connections
        self._store: Store = connections.patient.store
        self._place = place
        self._outbox = outbox
        self._reports = reports
        self._lock = HousekeepingLock(place)
        self._kept_from = 0  # with retention: nothing of this prefix lies below this id
        self._scanned_to = 0  # without retention: where the last round stopped looking
        self._orphans_at = 0.0
        self._memberships_at = 0.0  # seconds since 1970
        self._not_elected = 0  # rounds one after the other

    def run(self) -> None:
        """Do a round, on the background thread."""
        with self._lock as elected:
            self._not_elected = 0 if elected else self._not_elected + 1
            if not elected and self._not_elected <= PATIENT_ROUNDS:
                return
            # Each for itself: a full disk that keeps one from its work may be what another one mends.
            self._attempt("looking for dead processes", self.bury_the_dead)
            if self._options.auto_trim:
                self._attempt("trimming", lambda: self.trim(time.monotonic() + ROUND_S))
            self._attempt("retiring what has expired", self.retire_expired)
            if elected:
                self._attempt("a checkpoint", self._checkpoint_if_due)

    def _attempt(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except sqlite3.Error as error:
            if not is_busy(error):
                self._reports.failed(what, error)
        except ChannelDatabaseError as error:
            self._reports.failed(what, error)

    # Dead processes

    def bury_the_dead(self) -> None:
        """Delete memberships and unread messages of processes that the kernel shows to be dead."""
        processes = self._store.processes()
        for process in processes:
            if process.client == self._client or not is_dead(process, self._place):
                continue
            client, cursor = process.client, process.cursor

            def forget(transaction: Transaction, client: str = client, cursor: int = cursor) -> None:
                transaction.store.forget(client, cursor)

            self._outbox.run_patiently(forget)
            remove_traces(process, self._place)
            self._reports.dead(client, process.pid)
        now = time.monotonic()
        if now >= self._orphans_at:
            self._orphans_at = now + ORPHANS_EVERY_S
            self._forget_strangers()
            remove_orphans(self._place, {process.client for process in processes} | {self._client})

    def _forget_strangers(self) -> None:
        """Delete memberships of clients that are not registered, as when one is added for a process already dead."""
        strangers = self._store.strangers()
        if strangers:

            def forget(transaction: Transaction) -> None:
                for client in transaction.store.strangers():
                    transaction.store.forget(client, transaction.newest)

            self._outbox.run_patiently(forget)

    # Rows

    def retire_expired(self) -> None:
        """Take expired messages out of what waits, and delete expired memberships."""
        self._reports.counters.dropped_expired += self._in_batches(self._store.expired_waiting, Store.retire)
        # Nobody reads an expired one, and finding them takes a scan. Where the clock was set back, it is done as well.
        if not 0 <= time.time() - self._memberships_at < MEMBERSHIPS_EVERY_S:
            self._memberships_at = time.time()
            self._in_batches(self._store.expired_memberships, Store.delete_memberships)

    def _in_batches(
        self, find: Callable[[float, int], list[int]], change: Callable[[Store, Sequence[int]], None]
    ) -> int:
        """Find without a lock, change in short transactions, until there is no more or the round's time is up.

        Returns how many rows were changed.
        """
        ends = time.monotonic() + ROUND_S
        total = 0
        while ids := find(time.time(), self._options.trim_batch_size):
            self._change(change, ids)
            total += len(ids)
            if len(ids) < self._options.trim_batch_size or time.monotonic() >= ends:
                break
        return total

    def _change(self, change: Callable[[Store, Sequence[int]], None], ids: Sequence[int]) -> None:
        self._outbox.run_patiently(lambda transaction: change(transaction.store, ids))

    def trim(self, ends: float) -> int:
        """Delete rows past their retention from the low end of the log, until the monotonic time `ends`.

        Returns how many rows went.
        """
        started = time.monotonic()
        trimmed = self._trim_kept(ends) if self._options.message_retention else self._trim_unkept(ends)
        if trimmed:
            self._reports.counters.trimmed += trimmed
            self._reports.counters.trim_s += time.monotonic() - started
        return trimmed

    @property
    def trimmed_to(self) -> int:
        """The id up to which the latest `trim` came. Without retention, 0 is the end of the log."""
        return self._kept_from if self._options.message_retention else self._scanned_to

    def _trim_kept(self, ends: float) -> int:
        total = 0
        limit = 1  # there may be nothing to do, most of the time
        while True:
            rows = self._store.oldest(self._kept_from, limit)
            before = time.time() - self._options.message_retention
            old = []
            unread = 0
            for row_id, kind, state, created_at, _ in rows:
                if created_at > before:
                    break
                old.append(row_id)
                unread += _waits(kind, state)
            if old:
                self._change(Store.delete_messages, old)
                self._reports.counters.dropped_expired += unread
                total += len(old)
                self._kept_from = old[-1]
            elif rows:
                self._kept_from = rows[0][0] - 1
            if len(old) < limit or time.monotonic() >= ends:
                return total
            limit = self._options.trim_batch_size

    def _trim_unkept(self, ends: float) -> int:
        """Without retention: delete what every reader has passed, or nobody may read any more."""
        total = scanned = 0
        while scanned < SCAN_ROWS and time.monotonic() < ends:
            lowest = self._store.lowest_cursor()
            rows = self._store.oldest(self._scanned_to, self._options.trim_batch_size)
            now = time.time()
            done = [
                (row_id, _waits(kind, state))
                for row_id, kind, state, _, expires_at in rows
                if expires_at <= now
                or (kind == Kind.NORMAL and state != 0)
                or (kind != Kind.NORMAL and lowest is not None and row_id <= lowest)
            ]
            if done:
                self._change(Store.delete_messages, [row_id for row_id, _ in done])
                self._reports.counters.dropped_expired += sum(waits for _, waits in done)
                total += len(done)
            scanned += len(rows)
            if len(rows) < self._options.trim_batch_size:
                self._scanned_to = 0
                break
            self._scanned_to = rows[-1][0]
        return total

    # Checkpoints

    def due_in_s(self) -> float | None:
        """Return the seconds until the next round is due, when nobody writes; None: nothing is left to do."""
        if self._wal_bytes_and_age()[0] > FRESH_WAL_BYTES:
            return SOONEST_S
        rows = self._store.oldest(self._kept_from, 1) if self._options.auto_trim else []
        if not rows:
            return None
        _, _, _, created_at, expires_at = rows[0]
        retention = self._options.message_retention
        due_at = created_at + retention if retention else expires_at
        return min(max(due_at - time.time(), SOONEST_S), LATEST_S)

    def checkpoint_if_large(self) -> None:
        """Do a checkpoint, when no other process is at it, if the WAL has grown large."""
        if self._wal_bytes_and_age()[0] >= CHECKPOINT_BYTES:
            with self._lock as elected:
                if elected:
                    self.checkpoint()

    def checkpoint_now(self) -> bool:
        """Do a checkpoint, unless another process is at its housekeeping; return whether it was done."""
        with self._lock as elected:
            if elected and self._connections.wal:
                self.checkpoint()
            return elected

    def _checkpoint_if_due(self) -> None:
        size_bytes, idle_s = self._wal_bytes_and_age()
        if size_bytes >= CHECKPOINT_BYTES or (size_bytes > FRESH_WAL_BYTES and idle_s >= CHECKPOINT_IDLE_S):
            self.checkpoint()

    def _wal_bytes_and_age(self) -> tuple[int, float]:
        """Return the size of the WAL file, which is never opened here, and the seconds since its last write."""
        if not self._connections.wal:
            return 0, 0.0
        try:
            wal = os.stat(f"{self._connections.path}-wal")
        except OSError:
            return 0, 0.0
        return wal.st_size, time.time() - wal.st_mtime

    def checkpoint(self) -> None:
        """Bring the WAL into the database file and empty it.

        PASSIVE does most of the work beside the writers; TRUNCATE finishes it, keeping them off for a moment. The
        first write after that waits for the disk (SQLite syncs the header of a WAL that starts anew), so it is done
        here rather than on an event loop.
        """
        started = time.monotonic()
        raw = self._connections.patient.raw
        raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        raw.execute(f"PRAGMA busy_timeout={CHECKPOINT_BUSY_MS}")
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            raw.execute("PRAGMA busy_timeout=0")
        self._outbox.run_patiently(lambda transaction: transaction.store.touch_last())
        self._reports.counters.checkpoints += 1
        self._reports.counters.checkpoint_s += time.monotonic() - started


def _waits(kind: int, state: int) -> bool:
    return kind == Kind.NORMAL and state == 0
