"""What is in the file: for `channels_status` and `channels_trim --vacuum`. Snapshots, without a lock."""

from __future__ import annotations

from typing import NamedTuple

from channels_sqlite.kinds import Kind, State
from channels_sqlite.storage.table import Table

__all__ = ["FreeSpace", "Overview"]


class FreeSpace(NamedTuple):
    """How the file is filled, in pages of `page_bytes` bytes. `auto_vacuum`: 0 is none, 1 full, 2 incremental."""

    pages: int
    free_pages: int
    page_bytes: int
    auto_vacuum: int

    @property
    def content_bytes(self) -> int:
        """What is not free."""
        return (self.pages - self.free_pages) * self.page_bytes


# What `channels_status` reads. All take a snapshot and no lock; their cost is that of what they return, where no more
# is said.

# Parameters: prefix. Scans the table, without the payloads that have pages of their own: 40 ms for 100,000 rows.
COUNT_ROWS = "SELECT count(*) FROM channels_sqlite_message WHERE prefix = ?"
# Parameters: prefix, now. Scans channels_sqlite_waiting, which holds what waits and no more, and reads one row for each
# channel.
WAITING_CHANNELS = f"""
    SELECT queue, waiting, (SELECT created_at FROM channels_sqlite_message WHERE id = oldest) FROM (
        SELECT queue, count(*) AS waiting, min(id) AS oldest
        FROM channels_sqlite_message INDEXED BY channels_sqlite_waiting
        WHERE prefix = ? AND state = {State.WAITING.value} AND expires_at > ? GROUP BY queue
    )
"""
# Parameters: prefix, now. For each registered reader a range of the primary key from its cursor on; the index of what
# was addressed would take in all that is kept.
UNREAD_QUEUES = f"""
    SELECT message.queue, count(*), min(message.created_at)
    FROM channels_sqlite_process AS process CROSS JOIN channels_sqlite_message AS message NOT INDEXED
    WHERE process.prefix = ? AND message.id > process.cursor AND message.client = process.client
        AND message.prefix = process.prefix AND message.kind = {Kind.SPECIFIC.value} AND message.expires_at > ?
    GROUP BY message.queue
"""
# Parameters: prefix, now. Scans the memberships of the prefix (index channels_sqlite_member).
GROUP_SIZES = """
    SELECT group_name, count(*) FROM channels_sqlite_membership
    WHERE prefix = ? AND (expires_at IS NULL OR expires_at > ?) GROUP BY group_name
"""
# Parameters: prefix.
STARTED = "SELECT client, started_at FROM channels_sqlite_process WHERE prefix = ?"
LISTENING = "SELECT client, channel FROM channels_sqlite_listener WHERE prefix = ? ORDER BY client, channel"
# What `channels_trim --vacuum` does.

# Reads the header of the file.
FREE_SPACE = """
    SELECT page_count, freelist_count, page_size, auto_vacuum
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size, pragma_auto_vacuum
"""
# Moves pages from the end of the file into free ones, where auto_vacuum is INCREMENTAL: 64 in 1 ms, measured with
# 1,000-byte rows. Part of a transaction; does its work as its rows are fetched.
VACUUM_STEP = "PRAGMA incremental_vacuum(64)"
# Writes what the file holds anew, in one transaction with the write lock: 4 ms for each MB of content, free pages cost
# nothing. The first makes it take up another auto_vacuum mode on its way, also in WAL mode.
INCREMENTAL_FROM_NOW_ON = "PRAGMA auto_vacuum=INCREMENTAL"
SPARE_MEMORY = "PRAGMA temp_store=FILE"
VACUUM = "VACUUM"


class Overview(Table):
    """Counts and sizes."""

    def count_rows(self) -> int:
        """Return how many messages the table holds, read ones and expired ones included."""
        count: int = self._execute(COUNT_ROWS, (self._prefix,)).fetchone()[0]
        return count

    def waiting_channels(self, now: float) -> list[tuple[str, int, float]]:
        """Return (name, waiting messages, created_at of the oldest) of the normal channels where something waits."""
        return self._execute(WAITING_CHANNELS, (self._prefix, now)).fetchall()

    def unread_queues(self, now: float) -> list[tuple[str, int, float]]:
        """Return the same of process-specific channels, up to their `!`, for what their process has not read yet."""
        return self._execute(UNREAD_QUEUES, (self._prefix, now)).fetchall()

    def group_sizes(self, now: float) -> list[tuple[str, int]]:
        """Return (name, members) of all groups that have members."""
        return self._execute(GROUP_SIZES, (self._prefix, now)).fetchall()

    def started(self) -> dict[str, float]:
        """Return the registered readers of this prefix, with the time of their start (seconds since 1970)."""
        return dict(self._execute(STARTED, (self._prefix,)).fetchall())

    def listening(self) -> list[tuple[str, str]]:
        """Return (client, normal channel that it waits on) of all, sorted."""
        return self._execute(LISTENING, (self._prefix,)).fetchall()

    def free_space(self) -> FreeSpace:
        """Return how much of the file is in use."""
        return FreeSpace(*self._execute(FREE_SPACE).fetchone())

    def vacuum_step(self) -> None:
        """Give back some free pages; only where `auto_vacuum` is INCREMENTAL."""
        self._execute(VACUUM_STEP).fetchall()

    def vacuum(self, *, incremental_from_now_on: bool) -> None:
        """Write the file anew without its free pages, outside of a transaction."""
        self._execute(SPARE_MEMORY)
        if incremental_from_now_on:
            self._execute(INCREMENTAL_FROM_NOW_ON)
        self._execute(VACUUM)
