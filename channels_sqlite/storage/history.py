"""What is kept of groups with history: rows of the log, the epoch of their ids, and how far each group was trimmed.

A message of such a group is a row like any broadcast, with one entry in channels_sqlite_kept. It leaves that index when
its history has no place for it any more, and the table when nobody looks back that far either. Whatever makes it leave
raises the group's floor in the same transaction: a trigger does where a row is deleted, be it by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from django.db import connections

from channels_sqlite.kinds import Kind, State
from channels_sqlite.storage.table import Table

__all__ = ["EpochRow", "Kept", "KeptRow", "raise_floors_of_what_is_deleted"]


class KeptRow(NamedTuple):
    """A message that is kept."""

    id: int
    sent_at: float
    payload: bytes


class EpochRow(NamedTuple):
    """See `models.HistoryEpoch`."""

    epoch: str
    place: str
    first: int


KEPT = f"kind = {Kind.KEPT.value} AND state = {State.LOGGED.value}"
"""The condition of the index channels_sqlite_kept; it must be written out wherever that is to be used."""

# Parameters: prefix. Primary key.
EPOCH = "SELECT epoch, place, first FROM channels_sqlite_historyepoch WHERE prefix = ?"
# Parameters: prefix, epoch, place, first.
BEGIN_EPOCH = "INSERT OR REPLACE INTO channels_sqlite_historyepoch (prefix, epoch, place, first) VALUES (?, ?, ?, ?)"
# A few rows, and as many as there are groups: once in the life of a file, if at all.
FORGET_EPOCHS = ("DELETE FROM channels_sqlite_historyepoch", "DELETE FROM channels_sqlite_historyfloor")
# Parameters: prefix. The unique index on prefix and group.
FORGET_FLOORS = "DELETE FROM channels_sqlite_historyfloor WHERE prefix = ?"
# Parameters: prefix, group, after id, limit. Index channels_sqlite_kept, from its newest end, and one row for each.
NEWEST_KEPT = f"""
    SELECT id, created_at, CAST(payload AS BLOB) FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND {KEPT} AND id > ? ORDER BY id DESC LIMIT ?
"""
# Parameters: prefix, group. The unique index.
FLOOR = "SELECT floor FROM channels_sqlite_historyfloor WHERE prefix = ? AND group_name = ?"
# Parameters: prefix, group, id.
RAISE_FLOOR = """
    INSERT INTO channels_sqlite_historyfloor (prefix, group_name, floor) VALUES (?, ?, ?)
    ON CONFLICT (prefix, group_name) DO UPDATE SET floor = max(floor, excluded.floor)
"""
# Parameters: prefix, group, number that may stay. Index channels_sqlite_kept alone: as many steps as may stay.
NEWEST_BEYOND = f"""
    SELECT id FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND {KEPT} ORDER BY id DESC LIMIT 1 OFFSET ?
"""
# Parameters: prefix, group, limit. Index channels_sqlite_kept, from its oldest end.
OLDEST_KEPT = f"""
    SELECT id, created_at, expires_at FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND {KEPT} ORDER BY id LIMIT ?
"""
# Parameters: id, time. It was found without a lock: all tables may have been emptied since, and ids begun anew.
DELETE_KEPT = f"DELETE FROM channels_sqlite_message WHERE id = ? AND {KEPT} AND created_at <= ?"
KEEP_NO_LONGER = f"""
    UPDATE channels_sqlite_message SET state = {State.DONE.value} WHERE id = ? AND {KEPT} AND created_at <= ?
"""
# Parameters: after id, up to id, prefix. A range of the primary key: what was sent since somebody looked.
GROUPS_OF_NEW = f"""
    SELECT queue, min(created_at) FROM channels_sqlite_message NOT INDEXED
    WHERE id > ? AND id <= ? AND prefix = ? AND {KEPT} GROUP BY queue
"""
# Parameters: prefix, group, prefix, limit. The groups after that one, by name, with the age of the oldest message: two
# probes of channels_sqlite_kept for each, however much is kept.
NEXT_GROUPS = f"""
    WITH RECURSIVE found(name) AS (
        SELECT (SELECT min(queue) FROM channels_sqlite_message WHERE prefix = ? AND {KEPT} AND queue > ?)
        UNION ALL
        SELECT (SELECT min(queue) FROM channels_sqlite_message WHERE prefix = ? AND {KEPT} AND queue > name)
        FROM found WHERE name IS NOT NULL
    )
    SELECT name, (
        SELECT created_at FROM channels_sqlite_message
        WHERE prefix = ? AND queue = name AND {KEPT} ORDER BY id LIMIT 1
    ) FROM found WHERE name IS NOT NULL LIMIT ?
"""
# Parameters: prefix. Scans channels_sqlite_kept; for `channels_status`.
KEPT_COUNTS = f"""
    SELECT queue, count(*) FROM channels_sqlite_message INDEXED BY channels_sqlite_kept
    WHERE prefix = ? AND {KEPT} GROUP BY queue
"""
# Parameters: prefix. Scans the unique index, in which they stand.
COUNT_FLOORS = "SELECT count(*) FROM channels_sqlite_historyfloor WHERE prefix = ?"
# Parameters: prefix, number. Index channels_sqlite_floors: the largest of so many.
LARGEST_OF_FIRST_FLOORS = """
    SELECT max(floor) FROM (
        SELECT floor FROM channels_sqlite_historyfloor WHERE prefix = ? ORDER BY floor LIMIT ?
    )
"""
# Parameters: prefix, floor. Likewise.
DROP_FLOORS = "DELETE FROM channels_sqlite_historyfloor WHERE prefix = ? AND floor <= ?"
# Parameters: floor, prefix.
RAISE_FIRST = "UPDATE channels_sqlite_historyepoch SET first = max(first, ?) WHERE prefix = ?"
# The name of the file, "" in memory.
FILE = "SELECT file FROM pragma_database_list WHERE name = 'main'"


class Kept(Table):
    """What is kept of the groups of one prefix."""

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Have all that is read in the block be of one moment; a transaction that is open is one already."""
        if self._connection.in_transaction:
            yield
            return
        self._execute("BEGIN")
        try:
            yield
        finally:
            self._end_snapshot()

    def _end_snapshot(self) -> None:
        if self._connection.in_transaction:  # some errors end it: https://www.sqlite.org/lang_transaction.html
            self._execute("ROLLBACK")

    def file(self) -> str:
        """Return the path of the file that is open; "" in memory."""
        path: str = self._execute(FILE).fetchone()[0]
        return path

    def epoch(self) -> EpochRow | None:
        """Return the epoch of this prefix, or None before the first message that was kept."""
        row = self._execute(EPOCH, (self._prefix,)).fetchone()
        return None if row is None else EpochRow(*row)

    def begin_epoch(self, epoch: EpochRow) -> None:
        """Have positions of this prefix begin with another epoch; what was said of groups is of none."""
        self._execute(BEGIN_EPOCH, (self._prefix, *epoch))
        self._execute(FORGET_FLOORS, (self._prefix,))

    def forget_epochs(self) -> None:
        """Have every prefix begin another epoch when it next needs one."""
        for statement in FORGET_EPOCHS:
            self._execute(statement)

    def newest_kept(self, group: str, *, after: int, limit: int) -> list[KeptRow]:
        """Return the newest messages of a group with ids past `after`, newest first."""
        return [KeptRow(*row) for row in self._execute(NEWEST_KEPT, (self._prefix, group, after, limit))]

    def floor(self, group: str) -> int:
        """Return the largest id of a message of the group that is not kept any more; 0: all are."""
        row: tuple[int] | None = self._execute(FLOOR, (self._prefix, group)).fetchone()
        return row[0] if row else 0

    # Trimming

    def newest_beyond(self, group: str, size: int) -> int:
        """Return the id of the newest message of a group beyond the newest `size`; 0 where there are no more."""
        row: tuple[int] | None = self._execute(NEWEST_BEYOND, (self._prefix, group, size)).fetchone()
        return row[0] if row else 0

    def oldest_kept(self, group: str, limit: int) -> list[tuple[int, float, float]]:
        """Return (id, created_at, expires_at) of the first messages of a group that are kept."""
        return self._execute(OLDEST_KEPT, (self._prefix, group, limit)).fetchall()

    def delete_kept(self, ids: Sequence[int], found_at: float) -> None:
        """Delete messages that were kept at `found_at` (seconds since 1970)."""
        self._connection.executemany(DELETE_KEPT, [(row_id, found_at) for row_id in ids])

    def keep_no_longer(self, group: str, ids: Sequence[int], found_at: float) -> None:
        """Leave messages of a group, in order, to retention, that were kept at `found_at` (seconds since 1970)."""
        gone = [row_id for row_id in ids if self._execute(KEEP_NO_LONGER, (row_id, found_at)).rowcount > 0]
        if gone:
            self._execute(RAISE_FLOOR, (self._prefix, group, gone[-1]))

    def groups_of_new(self, after: int, up_to: int) -> list[tuple[str, float]]:
        """Return (group, created_at of its first) of what was sent to be kept with `after` < id <= `up_to`."""
        return self._execute(GROUPS_OF_NEW, (after, up_to, self._prefix)).fetchall()

    def next_groups(self, after: str, limit: int) -> list[tuple[str, float]]:
        """Return (group, created_at of the oldest message kept) of the next groups of which something is kept."""
        return self._execute(NEXT_GROUPS, (self._prefix, after, self._prefix, self._prefix, limit)).fetchall()

    def kept_counts(self) -> dict[str, int]:
        """Return how many messages are kept of each group, those included that are about to be trimmed."""
        return dict(self._execute(KEPT_COUNTS, (self._prefix,)).fetchall())

    def count_floors(self) -> int:
        """Return of how many groups something is not kept any more."""
        count: int = self._execute(COUNT_FLOORS, (self._prefix,)).fetchone()[0]
        return count

    def drop_floors(self, most: int, batch: int) -> int:
        """Forget up to `batch` floors, the lowest first, until `most` are left; return how many were beyond that.

        What they said is said of all groups without one from then on, so that nothing untrue is.
        """
        beyond = max(0, self.count_floors() - most)
        if beyond:
            row = self._execute(LARGEST_OF_FIRST_FLOORS, (self._prefix, min(batch, beyond))).fetchone()
            self._execute(RAISE_FIRST, (row[0], self._prefix))
            self._execute(DROP_FLOORS, (self._prefix, row[0]))
        return beyond


TABLES = {"channels_sqlite_message", "channels_sqlite_historyfloor"}
TRIGGER = f"""
    CREATE TRIGGER IF NOT EXISTS channels_sqlite_kept_gone AFTER DELETE ON channels_sqlite_message
    WHEN OLD.kind = {Kind.KEPT.value} AND OLD.state = {State.LOGGED.value}
    BEGIN
        INSERT INTO channels_sqlite_historyfloor (prefix, group_name, floor) VALUES (OLD.prefix, OLD.queue, OLD.id)
        ON CONFLICT (prefix, group_name) DO UPDATE SET floor = max(floor, excluded.floor);
    END
"""


def raise_floors_of_what_is_deleted(using: str, **_: object) -> None:
    """Make the trigger in the database `using`, where the tables are; a receiver of Django's `post_migrate`.

    No migration makes it, for the same reasons as that of `storage.ids`.
    """
    connection = connections[using]
    if connection.vendor != "sqlite" or not set(connection.introspection.table_names()) >= TABLES:
        return
    with connection.cursor() as cursor:
        cursor.execute(TRIGGER)
