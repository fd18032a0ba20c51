"""The log, `channels_sqlite_message`: what is sent, read with cursors, claimed and trimmed.

Each statement stands here with what it costs; the schema lives in the migrations.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from typing import NamedTuple

from channels_sqlite.kinds import Kind, State
from channels_sqlite.storage.table import Table

__all__ = ["ClaimedRow", "LogRow", "Messages"]


class LogRow(NamedTuple):
    """A row that a cursor reader is concerned with."""

    id: int
    kind: int
    queue: str
    local: str | None  # of a broadcast, the members that do not get it, with a space between them
    expires_at: float
    payload: bytes


ClaimedRow = tuple[int, float, bytes, "str | None"]
"""A message taken from a normal channel: (id, expires_at, payload, local); see `models.Message`."""

# The largest id given so far, which never falls, not even when the rows are gone: a trigger notes it then (see `ids`).
# AUTOINCREMENT would write a page of its own for that at each commit, one of three
# (https://www.sqlite.org/autoinc.html). No lock that a writer could hold up (WAL).
_LARGEST_ID = """max(
    ifnull((SELECT max(id) FROM channels_sqlite_message), 0), ifnull((SELECT last FROM channels_sqlite_lastid), 0)
)"""
NEWEST_ID = f"SELECT {_LARGEST_ID}"
# Parameters: client. The same, and whether the client is registered: a probe of a primary key.
NEWEST_ID_AND_REGISTERED = f"""
    SELECT {_LARGEST_ID}, EXISTS (SELECT 1 FROM channels_sqlite_process WHERE client = ?)
"""
# Parameters: id. The first row of the table, if it is not past that id.
OLDEST_UP_TO = "SELECT created_at FROM channels_sqlite_message WHERE id <= ? ORDER BY id LIMIT 1"
# Parameters: number of ids. Skips ids, so that "rows since a count" also covers rows that were put back.
SKIP_IDS = f"INSERT OR REPLACE INTO channels_sqlite_lastid (id, last) SELECT 1, {_LARGEST_ID} + ?"
# Parameters: id. Likewise, up to that one.
SKIP_TO = f"INSERT OR REPLACE INTO channels_sqlite_lastid (id, last) SELECT 1, max({_LARGEST_ID}, ?)"
# Parameters: prefix, kind, state, queue, local, client, created_at, expires_at, payload. At most one index entry a row:
# normal channels in channels_sqlite_waiting, process-specific ones in channels_sqlite_addressed, broadcasts in none, or
# in channels_sqlite_kept where the group has history.
INSERT_MESSAGE = f"""
    INSERT INTO channels_sqlite_message
        (id, prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    VALUES (1 + {_LARGEST_ID}, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Parameters: prefix, queue, now, limit. Index channels_sqlite_waiting alone, no row is read; the limit bounds the work,
# as nobody needs to know how far beyond its capacity a channel is.
COUNT_WAITING = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = ? AND state = {State.WAITING.value} AND expires_at > ? LIMIT ?
    )
"""
# Parameters: prefix, queue, after id, now, limit. Likewise, on channels_sqlite_addressed.
COUNT_ADDRESSED = f"""
    SELECT count(*) FROM (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = ? AND kind = {Kind.SPECIFIC.value} AND id > ? AND expires_at > ? LIMIT ?
    )
"""
# Parameters: JSON array of channels, prefix, now. For each channel one probe of channels_sqlite_waiting.
CHANNELS_WITH_WAITING = f"""
    SELECT value FROM json_each(?) WHERE EXISTS (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = value AND state = {State.WAITING.value} AND expires_at > ?
    )
"""
# Parameters: prefix, queue, now, limit. In the order of ids, which is the order of the sends. Index
# channels_sqlite_waiting; no payload is read.
OLDEST_WAITING = f"""
    SELECT id FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND state = {State.WAITING.value} AND expires_at > ? ORDER BY id LIMIT ?
"""
# Parameters: id, of one that waits. One by one they cost less than in one statement with the look for them.
CLAIM = f"""
    UPDATE channels_sqlite_message SET state = {State.DONE.value} WHERE id = ?
    RETURNING id, expires_at, CAST(payload AS BLOB), local
"""
CLAIM_AND_DELETE = """
    DELETE FROM channels_sqlite_message WHERE id = ? RETURNING id, expires_at, CAST(payload AS BLOB), local
"""
# Parameters: id. The id keeps the message's place in the order.
UNCLAIM = (
    f"UPDATE channels_sqlite_message SET state = {State.WAITING.value} WHERE id = ? AND state = {State.DONE.value}"
)
# Parameters: id, prefix, queue, local, now, expires_at, payload. The counterpart of CLAIM_AND_DELETE.
REINSERT = f"""
    INSERT OR IGNORE INTO channels_sqlite_message
        (id, prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    VALUES (?, ?, {Kind.NORMAL.value}, {State.WAITING.value}, ?, ?, NULL, ?, ?, ?)
"""
# Parameters: client, after id, up to id, prefix, client, client. First the newest id, with whether the client is
# registered, and then the log, in one statement and so of one snapshot. A range of the primary key; the payload is the
# last column, so that rows for others cost no overflow pages. A broadcast is read only where this client has a member.
READ_LOG = f"""
    SELECT {_LARGEST_ID} AS id,
        EXISTS (SELECT 1 FROM channels_sqlite_process WHERE client = ?) AS kind,
        '' AS queue, NULL AS local, 0.0 AS expires_at, x'' AS payload
    UNION ALL
    SELECT id, kind, queue, local, expires_at, CAST(payload AS BLOB) FROM channels_sqlite_message AS message
    WHERE id > ? AND id <= ? AND prefix = ? AND (
        client = ?
        OR kind = {Kind.FLUSH.value}
        OR (kind IN ({Kind.GROUP.value}, {Kind.KEPT.value}) AND EXISTS (
            SELECT 1 FROM channels_sqlite_membership AS membership
            WHERE membership.prefix = message.prefix AND membership.group_name = message.queue
                AND membership.client = ?
        ))
    )
"""
# Parameters: time. Walks down the primary key from its end: what is looked for lies there.
NEWEST_ID_BEFORE = "SELECT id FROM channels_sqlite_message WHERE created_at < ? ORDER BY id DESC LIMIT 1"
# Parameters: after id, prefix, limit. The low end of the log, without what is kept of groups with history.
OLDEST = f"""
    SELECT id, kind, state, created_at, expires_at FROM channels_sqlite_message
    WHERE id > ? AND prefix = ? AND NOT (kind = {Kind.KEPT.value} AND state = {State.LOGGED.value})
    ORDER BY id LIMIT ?
"""
# Parameters: id, time. It was found without a lock: all tables may have been emptied since, and ids begun anew.
DELETE_MESSAGE = "DELETE FROM channels_sqlite_message WHERE id = ? AND created_at <= ?"
# Parameters: prefix, now, limit. Scans channels_sqlite_waiting without reading rows and without the write lock.
EXPIRED_WAITING = f"""
    SELECT id FROM channels_sqlite_message INDEXED BY channels_sqlite_waiting
    WHERE prefix = ? AND state = {State.WAITING.value} AND expires_at <= ? LIMIT ?
"""
# Parameters: id, now. An expired row leaves the index of what waits, and stays in the log until it is trimmed. SQLite
# stores 0 and 1 in the same space, so that the row is changed in place, also in a file that is full.
RETIRE = f"UPDATE channels_sqlite_message SET state = {State.DONE.value} WHERE id = ? AND expires_at <= ?"
# Rewrites one row with what it holds. Its page makes the first frame of a reset WAL; see `engine.housekeeping`.
TOUCH_LAST = """
    UPDATE channels_sqlite_message SET state = state WHERE id = (SELECT max(id) FROM channels_sqlite_message)
"""


class Messages(Table):
    """Messages of one prefix."""

    def newest_id(self) -> int:
        """Return the largest message id given so far; 0 when there was none."""
        newest: int = self._execute(NEWEST_ID).fetchone()[0]
        return newest

    def newest_id_and_registered(self, client: str) -> tuple[int, bool]:
        """Return the same, and whether `client` is registered, in the time of one statement."""
        newest, registered = self._execute(NEWEST_ID_AND_REGISTERED, (client,)).fetchone()
        return newest, bool(registered)

    def began_anew(self, up_to: int, since: float) -> bool:
        """Whether the ids up to `up_to` that are there were all given after `since` (seconds since 1970), for once."""
        row: tuple[float] | None = self._execute(OLDEST_UP_TO, (up_to,)).fetchone()
        return row is not None and row[0] >= since

    def newest_id_before(self, time_s: float) -> int:
        """Return the largest id of a message sent before `time_s` (seconds since 1970), or 0."""
        row: tuple[int] | None = self._execute(NEWEST_ID_BEFORE, (time_s,)).fetchone()
        return row[0] if row else 0

    def skip_to(self, row_id: int) -> None:
        """Give no id up to this one any more."""
        self._execute(SKIP_TO, (row_id,))

    def insert(
        self,
        kind: Kind,
        queue: str,
        payload: bytes,
        *,
        local: str | None = None,
        client: str | None = None,
        created_at: float,
        expires_at: float,
    ) -> int:
        """Append a row and return its id."""
        state = State.WAITING if kind is Kind.NORMAL else State.LOGGED
        values = (self._prefix, kind, state, queue, local, client, created_at, expires_at, payload)
        row_id = self._execute(INSERT_MESSAGE, values).lastrowid
        return row_id or 0

    def read_log(self, after: int, up_to: int, client: str) -> tuple[int, bool, Generator[LogRow, None, None]]:
        """Return the newest id, whether `client` is registered, and what concerns it with `after` < id <= `up_to`.

        All of it is of one snapshot, the rows in order. Close the rows before anything else is read.
        """
        cursor = self._execute(READ_LOG, (client, after, up_to, self._prefix, client, client))
        newest, registered, *_ = cursor.fetchone()
        return newest, bool(registered), _log_rows(cursor)

    def count_waiting(self, channel: str, *, now: float, limit: int) -> int:
        """Return how many unexpired messages wait on a normal channel, and `limit` when there are more."""
        count: int = self._execute(COUNT_WAITING, (self._prefix, channel, now, limit)).fetchone()[0]
        return count

    def count_addressed(self, queue: str, *, after: int, now: float, limit: int) -> int:
        """Return how many unexpired messages past id `after` were sent to `queue`, and `limit` when there are more."""
        count: int = self._execute(COUNT_ADDRESSED, (self._prefix, queue, after, now, limit)).fetchone()[0]
        return count

    def channels_with_waiting(self, channels_json: str, now: float) -> list[str]:
        """Return those of the channels (a JSON array) on which something waits."""
        return [name for (name,) in self._execute(CHANNELS_WITH_WAITING, (channels_json, self._prefix, now))]

    def claim(self, channel: str, *, now: float, limit: int, delete: bool) -> tuple[list[ClaimedRow], bool]:
        """Take the oldest `limit` waiting messages, in order, and return whether more wait. `delete`: keep no row."""
        statement = CLAIM_AND_DELETE if delete else CLAIM
        ids = self._execute(OLDEST_WAITING, (self._prefix, channel, now, limit + 1)).fetchall()
        # Fetched to its end, for only then a statement with RETURNING is done.
        return [self._execute(statement, row_id).fetchall()[0] for row_id in ids[:limit]], len(ids) > limit

    def unclaim(self, channel: str, rows: Sequence[ClaimedRow], *, now: float, deleted: bool) -> None:
        """Put claimed messages back into their places."""
        self._execute(SKIP_IDS, (len(rows),))
        for row_id, expires_at, payload, local in rows:
            if deleted:
                self._execute(REINSERT, (row_id, self._prefix, channel, local, now, expires_at, payload))
            else:
                self._execute(UNCLAIM, (row_id,))

    def oldest(self, after: int, limit: int) -> list[tuple[int, int, int, float, float]]:
        """Return (id, kind, state, created_at, expires_at) of the first rows past id `after`."""
        return self._execute(OLDEST, (after, self._prefix, limit)).fetchall()

    def delete_messages(self, ids: Sequence[int], found_at: float) -> None:
        """Delete rows by id that were there at `found_at` (seconds since 1970)."""
        self._connection.executemany(DELETE_MESSAGE, [(row_id, found_at) for row_id in ids])

    def expired_waiting(self, now: float, limit: int) -> list[int]:
        """Return ids of expired rows that still stand among what waits."""
        return [row_id for (row_id,) in self._execute(EXPIRED_WAITING, (self._prefix, now, limit))]

    def retire(self, ids: Sequence[int], now: float) -> None:
        """Take expired rows out of what waits; they stay in the log."""
        self._connection.executemany(RETIRE, [(row_id, now) for row_id in ids])

    def touch_last(self) -> None:
        """Write one page without changing anything; see `engine.housekeeping`."""
        self._execute(TOUCH_LAST)


def _log_rows(cursor: sqlite3.Cursor) -> Generator[LogRow, None, None]:
    try:
        for row in cursor:
            yield LogRow(*row)
    finally:
        cursor.close()
