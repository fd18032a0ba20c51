"""Every SQL statement that runs while messages flow, and nothing else.

The schema lives in the migrations. A `Store` belongs to one connection; whoever holds that connection's lock may call
it. Statements that write expect a transaction opened with `begin()`: a deferred one that reads first would fail with
SQLITE_BUSY_SNAPSHOT whatever the time-out (https://www.sqlite.org/rescode.html#busy_snapshot).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = ["FreeSpace", "Kind", "LogRow", "ProcessRow", "Store"]


class Kind(IntEnum):
    """What a message row is addressed to; the values of `models.Message.Kind`."""

    NORMAL = 0
    SPECIFIC = 1
    GROUP = 2
    MEMBERSHIP = 3
    FLUSH = 4


class LogRow(NamedTuple):
    """A row that a cursor reader is concerned with."""

    id: int
    kind: int
    queue: str
    local: str | None
    expires_at: float
    payload: bytes


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A registered reader; see `models.Process`."""

    client: str
    pid: int
    machine: str
    address: str
    cursor: int
    held: int
    channels: int


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


# Takes the write lock at once, so that nothing read inside the transaction can be out of date when it is written.
BEGIN = "BEGIN IMMEDIATE"

# For a deferred transaction that somebody else has opened. Changes nothing, and takes the write lock as its first
# statement would: SQLite's busy handler waits for that lock only where the transaction has not read before
# (https://www.sqlite.org/c3ref/busy_handler.html).
LOCK = "DELETE FROM channels_sqlite_message WHERE 0"

# The largest id given so far, which never falls, not even when the rows are gone
# (https://www.sqlite.org/autoinc.html). No lock that a writer could hold up (WAL).
NEWEST_ID = "SELECT seq FROM sqlite_sequence WHERE name = 'channels_sqlite_message'"
# Parameters: number of ids. Skips ids, so that "rows since a count" also covers rows that were put back.
SKIP_IDS = "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'channels_sqlite_message'"

# Changes whenever another connection has committed (https://www.sqlite.org/pragma.html#pragma_data_version).
DATA_VERSION = "PRAGMA data_version"

# Parameters: prefix, kind, state, queue, local, client, created_at, expires_at, payload. At most one index entry a row:
# normal channels in channels_sqlite_waiting, process-specific ones in channels_sqlite_addressed, broadcasts in none.
INSERT_MESSAGE = """
    INSERT INTO channels_sqlite_message
        (prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

# Parameters: prefix, queue, now, limit. Index channels_sqlite_waiting alone, no row is read; the limit bounds the work,
# as nobody needs to know how far beyond its capacity a channel is.
COUNT_WAITING = """
    SELECT count(*) FROM (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = ? AND state = 0 AND expires_at > ? LIMIT ?
    )
"""
# Parameters: prefix, queue, after id, now, limit. Likewise, on channels_sqlite_addressed.
COUNT_ADDRESSED = """
    SELECT count(*) FROM (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ? AND queue = ? AND kind = 1 AND id > ? AND expires_at > ? LIMIT ?
    )
"""

# Parameters: prefix, JSON array of channels, now. For each channel one probe of channels_sqlite_waiting.
CHANNELS_WITH_WAITING = """
    SELECT value FROM json_each(?2) WHERE EXISTS (
        SELECT 1 FROM channels_sqlite_message
        WHERE prefix = ?1 AND queue = value AND state = 0 AND expires_at > ?3
    )
"""

# Parameters: prefix, queue, now, limit. In the order of ids, which is the order of the sends. The rows come back in
# any order (https://www.sqlite.org/lang_returning.html), so the caller sorts.
_OLDEST_WAITING = """
    SELECT id FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND state = 0 AND expires_at > ? ORDER BY id LIMIT ?
"""
CLAIM = f"""
    UPDATE channels_sqlite_message SET state = 1 WHERE id IN ({_OLDEST_WAITING})
    RETURNING id, expires_at, CAST(payload AS BLOB)
"""
CLAIM_AND_DELETE = f"""
    DELETE FROM channels_sqlite_message WHERE id IN ({_OLDEST_WAITING})
    RETURNING id, expires_at, CAST(payload AS BLOB)
"""

# Parameters: id. The id keeps the message's place in the order.
UNCLAIM = "UPDATE channels_sqlite_message SET state = 0 WHERE id = ? AND state = 1"

# Parameters: id, prefix, queue, now, expires_at, payload. The counterpart of CLAIM_AND_DELETE.
REINSERT = """
    INSERT OR IGNORE INTO channels_sqlite_message
        (id, prefix, kind, state, queue, local, client, created_at, expires_at, payload)
    VALUES (?, ?, 0, 0, ?, NULL, NULL, ?, ?, ?)
"""

# Parameters: after id, up to id, prefix, client. First the newest id and then the log, in one statement and so of one
# snapshot. A range of the primary key; the payload is the last column, so that rows for others cost no overflow pages.
# A broadcast is read only where this client has a member.
READ_LOG = """
    SELECT seq AS id, -1 AS kind, '' AS queue, NULL AS local, 0.0 AS expires_at, x'' AS payload
    FROM sqlite_sequence WHERE name = 'channels_sqlite_message' AND seq > ?1
    UNION ALL
    SELECT id, kind, queue, local, expires_at, CAST(payload AS BLOB) FROM channels_sqlite_message AS message
    WHERE id > ?1 AND id <= ?2 AND prefix = ?3 AND (
        client = ?4
        OR kind = 4
        OR (kind = 2 AND EXISTS (
            SELECT 1 FROM channels_sqlite_membership AS membership
            WHERE membership.prefix = ?3 AND membership.group_name = message.queue AND membership.client = ?4
        ))
    )
"""

# Parameters: time. Walks down the primary key from its end: what is looked for lies there.
NEWEST_ID_BEFORE = "SELECT id FROM channels_sqlite_message WHERE created_at < ? ORDER BY id DESC LIMIT 1"

# Parameters: prefix, group, client, channel, newest id, expires_at, now. A renewed membership keeps the id it joined
# at, one that had ended starts anew.
JOIN = """
    INSERT INTO channels_sqlite_membership (prefix, group_name, client, channel, joined_id, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6)
    ON CONFLICT (prefix, group_name, client, channel) DO UPDATE SET
        joined_id = CASE WHEN expires_at <= ?7 THEN excluded.joined_id ELSE joined_id END,
        expires_at = excluded.expires_at
    RETURNING joined_id
"""

# Parameters: prefix, group, client, channel. Unique index channels_sqlite_member.
LEAVE = """
    DELETE FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""

# Parameters: prefix, group, client, now. Unique index channels_sqlite_member.
MEMBERS = """
    SELECT channel, joined_id, expires_at FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND client = ? AND (expires_at IS NULL OR expires_at > ?)
"""

# Parameters: prefix, group. One probe of channels_sqlite_member per live process, however many members it has.
CLIENTS_OF_GROUP = """
    SELECT client FROM channels_sqlite_process AS process
    WHERE process.prefix = ?1 AND EXISTS (
        SELECT 1 FROM channels_sqlite_membership AS membership
        WHERE membership.prefix = ?1 AND membership.group_name = ?2 AND membership.client = process.client
    )
"""

# Parameters: prefix, group, client, channel. Unique index channels_sqlite_member.
MEMBER = """
    SELECT joined_id, expires_at FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""

# Parameters: prefix, group, now.
GROUP_CHANNELS = """
    SELECT channel FROM channels_sqlite_membership
    WHERE prefix = ? AND group_name = ? AND (expires_at IS NULL OR expires_at > ?) ORDER BY channel
"""

# Parameters: prefix, channel. Unique index channels_sqlite_listener.
LISTENERS = "SELECT client FROM channels_sqlite_listener WHERE prefix = ? AND channel = ?"

# Parameters: prefix, channel, client.
LISTEN = "INSERT OR IGNORE INTO channels_sqlite_listener (prefix, channel, client) VALUES (?, ?, ?)"
UNLISTEN = "DELETE FROM channels_sqlite_listener WHERE prefix = ? AND channel = ? AND client = ?"

# Parameters: client, prefix, pid, machine, address, cursor, started_at.
REGISTER = """
    INSERT OR REPLACE INTO channels_sqlite_process
        (client, prefix, pid, machine, address, cursor, held, channels, started_at)
    VALUES (?, ?, ?, ?, ?, ?, 0, 0, ?)
"""

# Parameters: cursor, held, channels, client.
PUBLISH = "UPDATE channels_sqlite_process SET cursor = ?, held = ?, channels = ? WHERE client = ?"

# Parameters: client. Primary key.
PROCESS = """
    SELECT client, pid, machine, address, cursor, held, channels FROM channels_sqlite_process WHERE client = ?
"""
PROCESSES = "SELECT client, pid, machine, address, cursor, held, channels FROM channels_sqlite_process"

# Clients with members or listeners and without a registration, which comes first. Scans two indexes on client.
STRANGERS = """
    SELECT client FROM (
        SELECT client FROM channels_sqlite_membership UNION SELECT client FROM channels_sqlite_listener
    ) WHERE client <> '' AND client NOT IN (SELECT client FROM channels_sqlite_process)
"""

# Parameters: client, cursor. What a dead reader had not read: a range of the primary key from its cursor on.
FORGET_UNREAD = "DELETE FROM channels_sqlite_message WHERE id > ?2 AND kind IN (1, 3) AND client = ?1"
# Parameters: client.
FORGET = (
    "DELETE FROM channels_sqlite_membership WHERE client = ?",
    "DELETE FROM channels_sqlite_listener WHERE client = ?",
    "DELETE FROM channels_sqlite_process WHERE client = ?",
)

# Parameters: prefix.
FLUSH = (
    "DELETE FROM channels_sqlite_message WHERE prefix = ?",
    "DELETE FROM channels_sqlite_membership WHERE prefix = ?",
)

# Parameters: prefix, after id, limit. The low end of the log.
OLDEST = """
    SELECT id, kind, state, created_at, expires_at FROM channels_sqlite_message
    WHERE id > ?2 AND prefix = ?1 ORDER BY id LIMIT ?3
"""

# Parameters: id.
DELETE_MESSAGE = "DELETE FROM channels_sqlite_message WHERE id = ?"

# Parameters: prefix, now, limit. Scans channels_sqlite_waiting without reading rows and without the write lock.
EXPIRED_WAITING = """
    SELECT id FROM channels_sqlite_message INDEXED BY channels_sqlite_waiting
    WHERE prefix = ? AND state = 0 AND expires_at <= ? LIMIT ?
"""
# Parameters: id. An expired row leaves the index of what waits, and stays in the log until it is trimmed. SQLite stores
# 0 and 1 in the same space, so that the row is changed in place, also in a file that is full.
RETIRE = "UPDATE channels_sqlite_message SET state = 1 WHERE id = ?"

# Parameters: prefix, now, limit.
EXPIRED_MEMBERSHIPS = """
    SELECT id FROM channels_sqlite_membership WHERE prefix = ? AND expires_at <= ? LIMIT ?
"""
DELETE_MEMBERSHIP = "DELETE FROM channels_sqlite_membership WHERE id = ?"

# Parameters: prefix. The furthest that every registered reader has come; NULL without readers.
LOWEST_CURSOR = "SELECT min(cursor) FROM channels_sqlite_process WHERE prefix = ?"

# What `channels_status` reads. All take a snapshot and no lock; their cost is that of what they return, where no more
# is said.

# Parameters: prefix. Scans the table, without the payloads that have pages of their own: 40 ms for 100,000 rows.
COUNT_ROWS = "SELECT count(*) FROM channels_sqlite_message WHERE prefix = ?"
# Parameters: prefix, now. Scans channels_sqlite_waiting, which holds what waits and no more, and reads one row for each
# channel.
WAITING_CHANNELS = """
    SELECT queue, waiting, (SELECT created_at FROM channels_sqlite_message WHERE id = oldest) FROM (
        SELECT queue, count(*) AS waiting, min(id) AS oldest
        FROM channels_sqlite_message INDEXED BY channels_sqlite_waiting
        WHERE prefix = ? AND state = 0 AND expires_at > ? GROUP BY queue
    )
"""
# Parameters: prefix, now. For each registered reader a range of the primary key from its cursor on; the index of what
# was addressed would take in all that is kept.
UNREAD_QUEUES = """
    SELECT message.queue, count(*), min(message.created_at)
    FROM channels_sqlite_process AS process CROSS JOIN channels_sqlite_message AS message NOT INDEXED
    WHERE process.prefix = ?1 AND message.id > process.cursor AND message.client = process.client
        AND message.prefix = ?1 AND message.kind = 1 AND message.expires_at > ?2
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

# Rewrites one row with what it holds. Its page makes the first frame of a reset WAL; see `housekeeping`.
TOUCH_LAST = """
    UPDATE channels_sqlite_message SET state = state WHERE id = (SELECT max(id) FROM channels_sqlite_message)
"""

# Fails with "no such table" or "no such column" where migrations are missing.
PROBES = (
    """
    SELECT id, prefix, kind, state, queue, local, client, created_at, expires_at, payload
    FROM channels_sqlite_message LIMIT 0
    """,
    "SELECT id, prefix, group_name, client, channel, joined_id, expires_at FROM channels_sqlite_membership LIMIT 0",
    """
    SELECT client, prefix, pid, machine, address, cursor, held, channels, started_at
    FROM channels_sqlite_process LIMIT 0
    """,
    "SELECT id, prefix, channel, client FROM channels_sqlite_listener LIMIT 0",
)


class Store:
    """The statements above on one connection, for the layer with this `prefix`."""

    def __init__(self, connection: sqlite3.Connection, prefix: str) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._prefix = prefix

    # Transactions

    def begin(self) -> None:
        """Take the write lock, or raise the sqlite3.OperationalError that `exceptions.is_busy` recognises."""
        self._execute(BEGIN)

    def lock(self) -> None:
        """Take the write lock in a transaction that is open already; errors as `begin`."""
        self._execute(LOCK)

    def commit(self) -> None:
        """Make the transaction durable against the death of processes."""
        self._execute("COMMIT")

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._connection.in_transaction

    def rollback(self) -> None:
        """Undo the transaction, where SQLite has not done so itself."""
        if self.in_transaction:
            self._execute("ROLLBACK")

    # The log

    def newest_id(self) -> int:
        """Return the largest message id given so far; 0 when there was none."""
        row: tuple[int] | None = self._execute(NEWEST_ID).fetchone()
        return row[0] if row else 0

    def newest_id_before(self, time_s: float) -> int:
        """Return the largest id of a message sent before `time_s` (seconds since 1970), or 0."""
        row: tuple[int] | None = self._execute(NEWEST_ID_BEFORE, (time_s,)).fetchone()
        return row[0] if row else 0

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        version: int = self._execute(DATA_VERSION).fetchone()[0]
        return version

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
        state = 0 if kind is Kind.NORMAL else 2
        values = (self._prefix, kind, state, queue, local, client, created_at, expires_at, payload)
        row_id = self._execute(INSERT_MESSAGE, values).lastrowid
        return row_id or 0

    def read_log(self, after: int, up_to: int, client: str) -> tuple[int, Generator[LogRow, None, None]]:
        """Return the newest id, and the rows with `after` < id <= `up_to` that concern `client`, in order.

        The newest id is `after` when there is nothing newer. Close the rows before anything else is read.
        """
        cursor = self._execute(READ_LOG, (after, up_to, self._prefix, client))
        first = cursor.fetchone()
        newest: int = after if first is None else first[0]
        return newest, _log_rows(cursor)

    # Normal channels

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
        return [name for (name,) in self._execute(CHANNELS_WITH_WAITING, (self._prefix, channels_json, now))]

    def claim(self, channel: str, *, now: float, limit: int, delete: bool) -> list[tuple[int, float, bytes]]:
        """Take the oldest `limit` waiting messages: (id, expires_at, payload) in order. `delete`: keep no row."""
        statement = CLAIM_AND_DELETE if delete else CLAIM
        return sorted(self._execute(statement, (self._prefix, channel, now, limit)).fetchall())

    def unclaim(self, channel: str, rows: Sequence[tuple[int, float, bytes]], *, now: float, deleted: bool) -> None:
        """Put claimed messages back into their places."""
        self._execute(SKIP_IDS, (len(rows),))
        for row_id, expires_at, payload in rows:
            if deleted:
                self._execute(REINSERT, (row_id, self._prefix, channel, now, expires_at, payload))
            else:
                self._execute(UNCLAIM, (row_id,))

    # Groups

    def join(
        self, group: str, client: str, channel: str, *, joined_id: int, expires_at: float | None, now: float
    ) -> int:
        """Add or renew a membership; return the id of the last message that is too old for it."""
        values = (self._prefix, group, client, channel, joined_id, expires_at, now)
        joined: int = self._execute(JOIN, values).fetchone()[0]
        return joined

    def leave(self, group: str, client: str, channel: str) -> bool:
        """End a membership; return whether there was one."""
        return self._execute(LEAVE, (self._prefix, group, client, channel)).rowcount > 0

    def members(self, group: str, client: str, now: float) -> list[tuple[str, int, float | None]]:
        """Return (channel, joined_id, expires_at) of a client's members; the client "" has the normal channels."""
        return self._execute(MEMBERS, (self._prefix, group, client, now)).fetchall()

    def member(self, group: str, client: str, channel: str) -> tuple[int, float | None] | None:
        """Return (joined_id, expires_at) of one membership, or None."""
        row: tuple[int, float | None] | None = self._execute(MEMBER, (self._prefix, group, client, channel)).fetchone()
        return row

    def clients_of_group(self, group: str) -> list[str]:
        """Return the live processes that have members in `group`."""
        return [client for (client,) in self._execute(CLIENTS_OF_GROUP, (self._prefix, group))]

    def group_channels(self, group: str, now: float) -> list[str]:
        """Return the names of all members, sorted."""
        return [channel for (channel,) in self._execute(GROUP_CHANNELS, (self._prefix, group, now))]

    # Processes

    def listeners(self, channel: str) -> list[str]:
        """Return the processes to wake for a message on a normal channel."""
        return [client for (client,) in self._execute(LISTENERS, (self._prefix, channel))]

    def listen(self, channel: str, client: str) -> None:
        """Have `client` woken for messages on a normal channel."""
        self._execute(LISTEN, (self._prefix, channel, client))

    def unlisten(self, channel: str, client: str) -> None:
        """Undo `listen`."""
        self._execute(UNLISTEN, (self._prefix, channel, client))

    def register(self, process: ProcessRow, started_at: float) -> None:
        """Make a reader known to senders and to the sweep."""
        values = (
            process.client,
            self._prefix,
            process.pid,
            process.machine,
            process.address,
            process.cursor,
            started_at,
        )
        self._execute(REGISTER, values)

    def publish(self, client: str, *, cursor: int, held: int, channels: int) -> bool:
        """Tell senders how far a reader has come; return False where its row is gone."""
        return self._execute(PUBLISH, (cursor, held, channels, client)).rowcount > 0

    def process(self, client: str) -> ProcessRow | None:
        """Return a registered reader, of whatever prefix, or None."""
        row = self._execute(PROCESS, (client,)).fetchone()
        return ProcessRow(*row) if row else None

    def processes(self) -> list[ProcessRow]:
        """Return all registered readers, of every prefix in this database."""
        return [ProcessRow(*row) for row in self._execute(PROCESSES)]

    def strangers(self) -> list[str]:
        """Return the clients that have members or listeners and are not registered."""
        return [client for (client,) in self._execute(STRANGERS)]

    def forget(self, client: str, cursor: int) -> None:
        """Delete a reader that is no more: memberships, unread messages, registration."""
        self._execute(FORGET_UNREAD, (client, cursor))
        for statement in FORGET:
            self._execute(statement, (client,))

    def flush(self) -> None:
        """Delete all messages and memberships."""
        for statement in FLUSH:
            self._execute(statement, (self._prefix,))

    # Housekeeping

    def oldest(self, after: int, limit: int) -> list[tuple[int, int, int, float, float]]:
        """Return (id, kind, state, created_at, expires_at) of the first rows past id `after`."""
        return self._execute(OLDEST, (self._prefix, after, limit)).fetchall()

    def delete_messages(self, ids: Sequence[int]) -> None:
        """Delete rows by id."""
        self._connection.executemany(DELETE_MESSAGE, [(row_id,) for row_id in ids])

    def expired_waiting(self, now: float, limit: int) -> list[int]:
        """Return ids of expired rows that still stand among what waits."""
        return [row_id for (row_id,) in self._execute(EXPIRED_WAITING, (self._prefix, now, limit))]

    def retire(self, ids: Sequence[int]) -> None:
        """Take expired rows out of what waits; they stay in the log."""
        self._connection.executemany(RETIRE, [(row_id,) for row_id in ids])

    def expired_memberships(self, now: float, limit: int) -> list[int]:
        """Return ids of memberships past their expiry."""
        return [row_id for (row_id,) in self._execute(EXPIRED_MEMBERSHIPS, (self._prefix, now, limit))]

    def delete_memberships(self, ids: Sequence[int]) -> None:
        """Delete memberships by id."""
        self._connection.executemany(DELETE_MEMBERSHIP, [(row_id,) for row_id in ids])

    def lowest_cursor(self) -> int | None:
        """Return how far every registered reader has come, or None without readers."""
        lowest: int | None = self._execute(LOWEST_CURSOR, (self._prefix,)).fetchone()[0]
        return lowest

    # Looking inside

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

    def touch_last(self) -> None:
        """Write one page without changing anything; see `housekeeping.checkpoint`."""
        self._execute(TOUCH_LAST)

    def probe(self) -> None:
        """Raise sqlite3.OperationalError where tables or columns are missing."""
        for statement in PROBES:
            self._execute(statement)


def _log_rows(cursor: sqlite3.Cursor) -> Generator[LogRow, None, None]:
    try:
        for row in cursor:
            yield LogRow(*row)
    finally:
        cursor.close()
