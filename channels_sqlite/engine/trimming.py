"""Rows that nobody needs any more: past their retention, expired, or read by all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from channels_sqlite.kinds import Kind, State
from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.store import Store

__all__ = ["ROUND_S", "Trimming"]

ROUND_S = 0.5  # the longest that trimming works in one round
SCAN_ROWS = 5000  # rows looked at in one round where messages are not kept
MEMBERSHIPS_EVERY_S = 30.0
FROM_START_EVERY_S = 60.0  # rows can come back below where trimming has been, when all tables were emptied


Change = Callable[[Store, Sequence[int], float], None]
"""Changes rows by id, which were as they are looked for at a time (seconds since 1970)."""


class Trimming:
    """Deletes rows of one prefix, in short transactions. On the background thread."""

    def __init__(self, options: Options, store: Store, outbox: Outbox, reports: Reports) -> None:
        """`store` is for looking, between the transactions."""
        self._options = options
        self._store = store
        self._outbox = outbox
        self._reports = reports
        self._kept_from = 0  # with retention: nothing of this prefix that may go lies below this id
        self._from_start_at = 0.0  # monotonic
        self._passed_over = False  # something lies below that may not go yet
        self._scanned_to = 0  # without retention: where the last round stopped looking
        self._memberships_at = 0.0  # seconds since 1970

    def retire_expired(self) -> None:
        """Take expired messages out of what waits, delete expired memberships and tasks past their retention."""
        self._reports.counters.dropped_expired += self._in_batches(self._store.expired_waiting, Store.retire)
        # Nobody reads an expired one, and finding them takes a scan. Where the clock was set back, it is done as well.
        if not 0 <= time.time() - self._memberships_at < MEMBERSHIPS_EVERY_S:
            self._memberships_at = time.time()
            self._in_batches(self._store.expired_memberships, Store.delete_memberships)
        self.trim_tasks()

    def trim_tasks(self) -> int:
        """Delete tasks past their retention, until the round's time is up; return how many went."""
        return self._in_batches(self._store.finished_tasks, Store.delete_tasks)

    def _in_batches(self, find: Callable[[float, int], list[int]], change: Change) -> int:
        """Find without a lock, change in short transactions, until there is no more or the round's time is up.

        Returns how many rows were changed.
        """
        ends = time.monotonic() + ROUND_S
        total = 0
        while ids := find(now := time.time(), self._options.trim_batch_size):
            self._change(change, ids, now)
            total += len(ids)
            if len(ids) < self._options.trim_batch_size or time.monotonic() >= ends:
                break
        return total

    def _change(self, change: Change, ids: Sequence[int], found_at: float) -> None:
        self._outbox.run_patiently(lambda transaction: change(transaction.store, ids, found_at))

    def trim(self, ends: float) -> int:
        """Delete rows from the low end of the log, until the monotonic time `ends`; return how many went.

        They are past their retention, and cannot be delivered any more.
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
        if time.monotonic() >= self._from_start_at:
            self._from_start_at = time.monotonic() + FROM_START_EVERY_S
            self._kept_from = 0
            self._passed_over = False
        while True:
            rows = self._store.oldest(self._kept_from, limit)
            now = time.time()
            before = now - self._options.message_retention
            old = []
            looked_at = unread = 0
            kept_from = self._kept_from
            for row_id, kind, state, created_at, expires_at in rows:
                if created_at > before:
                    kept_from = row_id - 1
                    break
                kept_from = row_id
                looked_at += 1
                if expires_at > now and (kind, state) != (
                    Kind.NORMAL,
                    State.DONE,
                ):  # it lives longer than rows are kept
                    self._passed_over = True
                    continue
                old.append(row_id)
                unread += _waits(kind, state)
            if old:
                self._change(Store.delete_messages, old, before)
                self._reports.counters.dropped_expired += unread
                total += len(old)
            self._kept_from = kept_from
            if looked_at < limit or time.monotonic() >= ends:
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
                (row_id, created_at, _waits(kind, state))
                for row_id, kind, state, created_at, expires_at in rows
                if expires_at <= now
                or (kind == Kind.NORMAL and state != State.WAITING)
                or (kind != Kind.NORMAL and lowest is not None and row_id <= lowest)
            ]
            if done:
                # Not the time now: the clock may have been set back since they were written.
                newest = max(created_at for _, created_at, _ in done)
                self._change(Store.delete_messages, [row_id for row_id, _, _ in done], newest)
                self._reports.counters.dropped_expired += sum(waits for _, _, waits in done)
                total += len(done)
            scanned += len(rows)
            if len(rows) < self._options.trim_batch_size:
                self._scanned_to = 0
                break
            self._scanned_to = rows[-1][0]
        return total

    def due_in_s(self) -> float | None:
        """Return the seconds until the first row is due, 0 or less for at once; None: there are no rows."""
        rows = self._store.oldest(self._kept_from, 1) if self._options.auto_trim else []
        due_s = FROM_START_EVERY_S if self._passed_over else None
        if not rows:
            return due_s
        _, _, _, created_at, expires_at = rows[0]
        retention = self._options.message_retention
        first_s = (created_at + retention if retention else expires_at) - time.time()
        return first_s if due_s is None else min(first_s, due_s)


def _waits(kind: int, state: int) -> bool:
    return kind == Kind.NORMAL and state == State.WAITING
