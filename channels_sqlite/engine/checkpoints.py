"""Bringing the write-ahead log into the database file, before it grows without end.

Checkpoints are the only place where SQLite waits for the disk, and two of them at once can corrupt the file on SQLite
before 3.51.3 (https://www.sqlite.org/wal.html#walresetbug). So they have a `flock` of their own, held for their length
and no longer. A process that is suspended in the middle of one keeps all others from it: that lock, or SQLite's own in
any version, is held until it goes on or is ended. The WAL grows as long, and a warning names the process.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.processes.lock_files import ElectionLock
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections
from channels_sqlite.storage.database import has_wal_reset_bug
from channels_sqlite.storage.outbox import Outbox

__all__ = ["Checkpoints"]

logger = logging.getLogger(__name__)

CHECKPOINT_BYTES = 16 * 1024 * 1024
CHECKPOINT_IDLE_S = 5.0
FRESH_WAL_BYTES = 16384  # more than what a checkpoint itself leaves
CHECKPOINT_BUSY_MS = 100
TRUNCATE_TRIES = 3
LARGE_WAL_BYTES = 2 * CHECKPOINT_BYTES  # worth another try
TOUCH_PATIENCE_S = 0.5
HELD_UP_BYTES = 4 * CHECKPOINT_BYTES  # of WAL ...
HELD_UP_S = 2.0  # ... and for so long: nobody gets to a checkpoint


class Checkpoints:
    """The checkpoints of one open file. On the background thread."""

    def __init__(self, connections: Connections, place: MeetingPlace, outbox: Outbox, reports: Reports) -> None:
        self._connections = connections
        self._outbox = outbox
        self._reports = reports
        self._lock = ElectionLock(place, "checkpoint")
        self._held_up_since: float | None = None  # monotonic

    @property
    def wal_is_fresh(self) -> bool:
        """Whether there is nothing that a checkpoint could bring in."""
        return self.wal_bytes_and_age()[0] <= FRESH_WAL_BYTES

    def do_if_large(self) -> None:
        """Do a checkpoint, when no other process is at it, if the WAL has grown large."""
        if self.wal_bytes_and_age()[0] >= CHECKPOINT_BYTES:
            self.do()

    def do_now(self) -> bool:
        """Do a checkpoint, unless another process is at one; return whether it was done."""
        return not self._connections.wal or self.do()

    def do_if_due(self) -> None:
        """Likewise, or if nobody has written for a while."""
        size_bytes, idle_s = self.wal_bytes_and_age()
        if size_bytes >= CHECKPOINT_BYTES or (size_bytes > FRESH_WAL_BYTES and idle_s >= CHECKPOINT_IDLE_S):
            self.do()
        if size_bytes < HELD_UP_BYTES:
            self._held_up_since = None

    def wal_bytes_and_age(self) -> tuple[int, float]:
        """Return the size of the WAL file, which is never opened here, and the seconds since its last write."""
        if not self._connections.wal:
            return 0, 0.0
        try:
            wal = os.stat(f"{self._connections.path}-wal")
        except OSError:
            return 0, 0.0
        return wal.st_size, time.time() - wal.st_mtime

    def do(self) -> bool:
        """Bring the WAL into the database file and empty it, unless another process is at it; return whether it was.

        PASSIVE does most of the work beside the writers; TRUNCATE finishes it, keeping them off for a moment. The
        first write after that waits for the disk (SQLite syncs the header of a WAL that starts anew), so it is done
        here rather than on an event loop.
        """
        started = time.monotonic()
        done = False
        with self._lock as elected:
            if elected or not has_wal_reset_bug(sqlite3.sqlite_version_info):  # SQLite has a lock for it, too
                done = self._bring_in()
        if not done:
            self._tell_if_held_up(self._reports.held_up)
            return False
        if self.wal_bytes_and_age()[0] >= HELD_UP_BYTES:
            self._tell_if_held_up(self._reports.read_on)
        else:
            self._held_up_since = None
        try:
            self._outbox.run_patiently(lambda transaction: transaction.store.touch_last(), TOUCH_PATIENCE_S)
        except ChannelDatabaseError as error:
            logger.debug("the first write after a checkpoint is left to others: %s", error)
        self._reports.counters.checkpoints += 1
        self._reports.counters.checkpoint_s += time.monotonic() - started
        return True

    def _bring_in(self) -> bool:
        """Return whether it was done, be it in part: readers and writers may keep some of it for the next time."""
        raw = self._connections.patient.raw
        # A PASSIVE one is busy when another is under way: https://www.sqlite.org/pragma.html#pragma_wal_checkpoint
        busy, pages, brought_in = raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy:
            return False
        # SQLite sleeps between its tries for the write lock, and the writers of this very process would starve it: the
        # WAL grew to 75 MiB beside a loop that wrote 500 MB/s on a busy machine, and to half of that without them.
        with self._outbox.held_off():
            raw.execute(f"PRAGMA busy_timeout={CHECKPOINT_BUSY_MS}")
            try:
                # Trying on is for when writers were quicker. A reader that reads on would make it a wait for all.
                for _ in range(TRUNCATE_TRIES if brought_in == pages else 1):
                    busy, _, _ = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                    if not busy or self.wal_bytes_and_age()[0] < LARGE_WAL_BYTES:
                        break
            finally:
                raw.execute("PRAGMA busy_timeout=0")
        return True

    def _tell_if_held_up(self, tell: Callable[[int | None, float, int], None]) -> None:
        """Warn of a process that does not come to the end of its checkpoint, or of its reading."""
        now = time.monotonic()
        if self._held_up_since is None:
            self._held_up_since = now
        size_bytes = self.wal_bytes_and_age()[0]
        if size_bytes >= HELD_UP_BYTES and now - self._held_up_since >= HELD_UP_S:
            tell(self._lock.holder(), now - self._held_up_since, size_bytes)
