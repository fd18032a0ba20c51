"""What groups with history keep beyond their size or their time.

Two ways find it. What was sent since the last round names the groups that may be beyond their size. And whenever the
oldest message of some group is due, all groups are looked at, two probes of an index for each. Nothing is locked for
that; what is found goes in short transactions.

What has no place in its history any more goes at once, or is left to `trimming` while somebody may look back that far.
"""

from __future__ import annotations

import math
import time

from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.store import Store

__all__ = ["HistoryTrimming"]

GROUPS_IN_ONE_LOOK = 1000
ALL_SIZES_EVERY_S = 60.0  # rows can come otherwise than by this layer, and options change
DUE_EVERY_S = 1.0  # between two looks at all groups
MOST_FLOORS = 100_000  # of groups of which nothing is kept any more, too


class HistoryTrimming:
    """Trims the histories of one prefix. On the background thread."""

    def __init__(self, options: Options, store: Store, outbox: Outbox, reports: Reports) -> None:
        """`store` is for looking, between the transactions."""
        self._options = options
        self._store = store
        self._outbox = outbox
        self._reports = reports
        self._seen_id: int | None = None  # up to which what was sent is known
        self._next_due = -math.inf  # seconds since 1970, when the first message of all is over
        self._after = ""  # the group up to which the look at all groups has come
        self._looking_at_sizes = False  # in that look
        self._due_meanwhile = math.inf  # what that look has found to be due later
        self._all_sizes_at = -math.inf  # monotonic
        self._looked_at = -math.inf  # monotonic

    def trim(self, ends: float) -> int:
        """Trim until there is nothing to do, or the monotonic time `ends`; return how many rows went."""
        started = time.monotonic()
        trimmed = self._trim_new(ends) + self._trim_all(ends)
        if trimmed:
            self._reports.counters.trimmed += trimmed
            self._reports.counters.trim_s += time.monotonic() - started
        return trimmed

    def trim_fully(self) -> int:
        """Look at all groups now, whatever was seen before; return how many rows went."""
        self._all_sizes_at = -math.inf
        self._after = ""
        trimmed = self.trim(math.inf)
        while self._after:
            trimmed += self._trim_all(math.inf)
        return trimmed

    @property
    def due_in_s(self) -> float | None:
        """The seconds until the first message is over, as far as is known; None: never."""
        return None if self._next_due == math.inf else self._next_due - time.time()

    # What was sent since the last round

    def _trim_new(self, ends: float) -> int:
        seen_id, newest = self._seen_id, self._store.newest_id()
        if not self._options.history or seen_id is None or newest < seen_id:
            self._all_sizes_at = -math.inf if seen_id is None or newest < seen_id else self._all_sizes_at
            self._seen_id = newest
            return 0
        trimmed = 0
        for group, created_at in self._store.groups_of_new(seen_id, newest):
            if time.monotonic() >= ends:
                self._all_sizes_at = -math.inf  # the rest is found with all others
                break
            trimmed += self._trim_group(group, ends)
            keeping = self._options.keeping_of(group)
            if keeping is not None:
                self._note_due(created_at + keeping.ttl)
        self._seen_id = newest
        return trimmed

    def _note_due(self, moment: float) -> None:
        self._next_due = min(self._next_due, moment)
        self._due_meanwhile = min(self._due_meanwhile, moment)

    # All groups

    def _trim_all(self, ends: float) -> int:
        now = time.monotonic()
        if not self._after:
            all_sizes = now >= self._all_sizes_at
            if not all_sizes and (time.time() < self._next_due or now < self._looked_at + DUE_EVERY_S):
                return 0
            self._looked_at = now
            self._due_meanwhile = math.inf
            self._looking_at_sizes = all_sizes
            if all_sizes:
                self._all_sizes_at = now + ALL_SIZES_EVERY_S
                self._drop_floors()
        trimmed = 0
        while True:
            groups = self._store.next_groups(self._after, GROUPS_IN_ONE_LOOK)
            for group, created_at in groups:
                if time.monotonic() >= ends:
                    return trimmed
                trimmed += self._look_at(group, created_at, ends)
                self._after = group
            if len(groups) < GROUPS_IN_ONE_LOOK:
                self._after = ""
                self._next_due = self._due_meanwhile
                return trimmed

    def _look_at(self, group: str, created_at: float, ends: float) -> int:
        keeping = self._options.keeping_of(group)
        if keeping is not None and not self._looking_at_sizes and created_at + keeping.ttl > time.time():
            self._note_due(created_at + keeping.ttl)
            return 0
        return self._trim_group(group, ends)

    def _drop_floors(self) -> None:
        batch = self._options.trim_batch_size
        while self._store.count_floors() > MOST_FLOORS:
            self._outbox.run_patiently(lambda transaction: transaction.store.drop_floors(MOST_FLOORS, batch))

    # One group

    def _trim_group(self, group: str, ends: float) -> int:
        keeping = self._options.keeping_of(group)
        size, ttl = (0, 0.0) if keeping is None else (keeping.size, keeping.ttl)
        beyond = self._store.newest_beyond(group, size)
        batch = self._options.trim_batch_size
        trimmed = 0
        while True:
            found_at = time.time()
            rows = self._store.oldest_kept(group, batch)
            over = []
            for row in rows:
                row_id, created_at, _ = row
                if row_id > beyond and created_at > found_at - ttl:
                    self._note_due(created_at + ttl)
                    break
                over.append(row)
            if over:
                trimmed += self._let_go(group, over, found_at)
            if len(over) < batch:
                return trimmed
            if time.monotonic() >= ends:
                self._all_sizes_at = -math.inf
                return trimmed

    def _let_go(self, group: str, rows: list[tuple[int, float, float]], found_at: float) -> int:
        """Delete rows of which nobody wants to know any more, and leave the others to retention."""
        retention = self._options.message_retention
        lowest = None if retention else self._store.lowest_cursor()
        deleted: list[int] = []
        left: list[int] = []
        for row_id, created_at, expires_at in rows:
            if retention:
                wanted = created_at > found_at - retention or expires_at > found_at
            else:
                # Who registers later begins with what is sent then.
                wanted = expires_at > found_at and lowest is not None and row_id > lowest
            (left if wanted else deleted).append(row_id)
        newest = max(found_at, *(created_at for _, created_at, _ in rows))  # the clock may have been set back

        def let_go(store: Store) -> None:
            store.delete_kept(deleted, newest)
            store.keep_no_longer(group, left, newest)

        self._outbox.run_patiently(lambda transaction: let_go(transaction.store))
        return len(deleted)
