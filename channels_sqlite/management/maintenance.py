"""What `manage.py channels_trim` does: housekeeping by hand, and giving space back to the disk.

It works beside live processes: in short transactions, each followed by a pause of the same length, so that they get
the write lock in between.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from django.db import DEFAULT_DB_ALIAS
from typing_extensions import Self

from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.engine.housekeeping import Housekeeping
from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import OpenDatabase
from channels_sqlite.storage.errors import is_busy
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.waking.wakeups import Wakeups

__all__ = ["Maintenance", "VacuumRefusedError", "Vacuumed"]

T = TypeVar("T")

ROUND_S = 0.2  # between two calls of `progress`
BUSY_RETRY_S = 0.005
CHECKPOINT_PATIENCE_S = 3.0
# Content that VACUUM writes anew in about a quarter of a second, holding the write lock.
QUICK_BYTES = 64 * 1024 * 1024
VACUUM_BYTES_PER_S = 200 * 1024 * 1024  # for an estimate; 250 MB/s were measured on a modest disk
INCREMENTAL = 2

Progress = Callable[[float], None]
"""Is told of the share of the work that is done, from 0 to 1, a few times a second."""


class VacuumRefusedError(Exception):
    """A vacuum would keep live processes from writing for long; the text says for how long."""


@dataclass(frozen=True)
class Vacuumed:
    """What giving space back has done. `longest_lock_s`: how long others were kept from writing at a time."""

    before_bytes: int
    after_bytes: int
    longest_lock_s: float


class Maintenance:
    """The work on one layer's database; a context manager that closes its connections."""

    def __init__(self, entry: LayerEntry) -> None:
        """Open the database.

        Raises:
            ImproperlyConfigured: the settings of the layer or of its database have faults.
            ChannelDatabaseError: the database cannot be opened; the text says what to do.
        """
        self._options = Options.from_config(entry.config)
        reports = Reports()
        self._database = OpenDatabase(self._options.database, self._options.prefix, reports)
        self._database.open()
        connections, place = self._database.connections, self._database.place
        assert connections is not None  # noqa: S101  # just opened
        assert place is not None  # noqa: S101  # likewise
        self._connections = connections
        self._store = connections.patient.store
        self._outbox = PoliteOutbox(self._database, reports)
        self._housekeeping = Housekeeping(
            "", self._options, connections=connections, place=place, outbox=self._outbox, reports=reports
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def trim(self, progress: Progress) -> int:
        """Delete what is past its retention, what has expired, and what dead processes left; return how many messages.

        Raises ChannelDatabaseError when the database stays locked or fails.
        """
        self._patiently(self._housekeeping.bury_the_dead)
        self._patiently(self._housekeeping.trimming.retire_expired)
        while self._patiently(self._housekeeping.trimming.trim_tasks):
            self._housekeeping.checkpoints.do_if_large()
        total = self._patiently(self._housekeeping.histories.trim_fully)
        self._housekeeping.checkpoints.do_if_large()
        first, last = self._patiently(self._range)
        reached = -1
        while True:
            reached_before = reached
            total += self._patiently(lambda: self._housekeeping.trimming.trim(time.monotonic() + ROUND_S))
            self._housekeeping.checkpoints.do_if_large()
            reached = self._housekeeping.trimming.trimmed_to
            if reached >= last or reached == reached_before or not reached:
                progress(1.0)
                return total
            progress(max(0.0, (reached - first) / (last - first)))

    def _range(self) -> tuple[int, int]:
        """Return the first id that there is, and the last that may have to go now; live processes write on."""
        oldest = self._store.oldest(0, 1)
        retention = self._options.message_retention
        last = self._store.newest_id_before(time.time() - retention) if retention else self._store.newest_id()
        return (oldest[0][0] - 1 if oldest else 0), last

    def vacuum(self, progress: Progress, *, may_block: bool) -> Vacuumed:
        """Give the free pages of the file back to the disk.

        A file whose auto_vacuum is INCREMENTAL gives them back in steps of some milliseconds. Any other is written
        anew, which holds the write lock for about 5 ms for each MB that is in use, and is INCREMENTAL from then on
        (unless it is the default database).

        Raises:
            VacuumRefusedError: that would take long, and there are live processes, and `may_block` is False.
            ChannelDatabaseError: the database stays locked, the disk is full, or fails.
        """
        before = self._store.free_space()
        if not before.free_pages:
            longest_s = 0.0
        elif before.auto_vacuum == INCREMENTAL:
            longest_s = self._vacuum_in_steps(progress)
        else:
            self._patiently(self._housekeeping.bury_the_dead)
            if before.content_bytes > QUICK_BYTES and self._store.processes() and not may_block:
                raise VacuumRefusedError(
                    f"writing {before.content_bytes / 1024**2:,.0f} MiB anew would keep the "
                    f"{len(self._store.processes())} live processes from sending for "
                    f"{before.content_bytes / VACUUM_BYTES_PER_S:.1f} s or more"
                )
            longest_s = self._vacuum_at_once()
        # Until then the file keeps its size. Where others are at it all the time, one of them does it.
        deadline = time.monotonic() + CHECKPOINT_PATIENCE_S
        while not self._patiently(self._housekeeping.checkpoints.do_now) and time.monotonic() < deadline:
            time.sleep(BUSY_RETRY_S)
        progress(1.0)
        after = self._store.free_space()
        return Vacuumed(before.pages * before.page_bytes, after.pages * after.page_bytes, longest_s)

    def _vacuum_in_steps(self, progress: Progress) -> float:
        total = free = self._store.free_space().free_pages
        longest_s = 0.0
        told_at = time.monotonic()
        while free:
            longest_s = max(longest_s, self._timed_step())
            left = self._store.free_space().free_pages
            if left >= free:  # others freed as much meanwhile
                break
            free = left
            if time.monotonic() - told_at >= ROUND_S:
                told_at = time.monotonic()
                progress(1 - free / total if free < total else 0.0)
                self._housekeeping.checkpoints.do_if_large()
        return longest_s

    def _timed_step(self) -> float:
        def step(transaction: Transaction) -> float:
            started = time.monotonic()
            transaction.store.vacuum_step()
            return time.monotonic() - started

        return self._outbox.run_patiently(step)

    def _vacuum_at_once(self) -> float:
        def work() -> float:
            started = time.monotonic()
            self._store.vacuum(incremental_from_now_on=self._options.database != DEFAULT_DB_ALIAS)
            return time.monotonic() - started

        return self._patiently(work)

    def _patiently(self, work: Callable[[], T]) -> T:
        """Do `work`, again as long as it is told that somebody else has a lock, for the database's time-out.

        Raises ChannelDatabaseError, which says what to do, when SQLite fails otherwise or the time is up.
        """
        deadline = time.monotonic() + self._connections.busy_timeout_s
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise self._connections.explain(error) from error
            time.sleep(BUSY_RETRY_S)


class PoliteOutbox(Outbox):
    """Runs transactions one after the other, and leaves others as much time in between as they took."""

    def __init__(self, database: OpenDatabase, reports: Reports) -> None:
        background = BackgroundThread("channels-sqlite[trim]", lambda: None)
        background.end_unstarted()
        super().__init__(database, background, Wakeups("", database, reports.counters), reports)

    def run_patiently(self, apply: Callable[[Transaction], T], patience_s: float | None = None) -> T:
        """Run `apply` in a transaction, and wait for the write lock for `patience_s`; None: the database's time-out."""
        began_at = 0.0

        def timed(transaction: Transaction) -> T:
            nonlocal began_at
            began_at = time.monotonic()
            return apply(transaction)

        result = super().run_patiently(timed, patience_s)
        time.sleep(time.monotonic() - began_at)
        return result
