"""The statements on one connection, as methods.

A `Store` belongs to one connection; whoever holds that connection's lock may call it. Methods that write expect a
transaction opened with `begin()`: a deferred one that reads first would fail with SQLITE_BUSY_SNAPSHOT whatever the
time-out (https://www.sqlite.org/rescode.html#busy_snapshot).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from channels_sqlite import statements

__all__ = ["ClaimedRow", "FreeSpace", "Kind", "LogRow", "ProcessRow", "Store"]


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


ClaimedRow = tuple[int, float, bytes]
"""A message taken from a normal channel: (id, expires_at, payload)."""


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


class Store:
    """The statements on one connection, for the layer with this `prefix`."""

    def __init__(self, connection: sqlite3.Connection, prefix: str) -> None:
        self._execute = connection.execute
        self._connection = connection
        self._prefix = prefix

    # Transactions

    def begin(self) -> None:
        """Take the write lock, or raise the sqlite3.OperationalError that `exceptions.is_busy` recognises."""
        self._execute(statements.BEGIN)

    def lock(self) -> None:
        """Take the write lock in a transaction that is open already, else for a moment; errors as `begin`."""
        self._execute(statements.LOCK)

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
        row: tuple[int] | None = self._execute(statements.NEWEST_ID).fetchone()
        return row[0] if row else 0

    def newest_id_before(self, time_s: float) -> int:
        """Return the largest id of a message sent before `time_s` (seconds since 1970), or 0."""
        row: tuple[int] | None = self._execute(statements.NEWEST_ID_BEFORE, (time_s,)).fetchone()
        return row[0] if row else 0

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        version: int = self._execute(statements.DATA_VERSION).fetchone()[0]
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
        row_id = self._execute(statements.INSERT_MESSAGE, values).lastrowid
        return row_id or 0

    def read_log(self, after: int, up_to: int, client: str) -> tuple[int, Generator[LogRow, None, None]]:
        """Return the newest id, and the rows with `after` < id <= `up_to` that concern `client`, in order.

        The newest id is `after` when there is nothing newer. Close the rows before anything else is read.
        """
        cursor = self._execute(statements.READ_LOG, (after, up_to, self._prefix, client))
        first = cursor.fetchone()
        newest: int = after if first is None else first[0]
        return newest, _log_rows(cursor)

    # Normal channels

    def count_waiting(self, channel: str, *, now: float, limit: int) -> int:
        """Return how many unexpired messages wait on a normal channel, and `limit` when there are more."""
        count: int = self._execute(statements.COUNT_WAITING, (self._prefix, channel, now, limit)).fetchone()[0]
        return count

    def count_addressed(self, queue: str, *, after: int, now: float, limit: int) -> int:
        """Return how many unexpired messages past id `after` were sent to `queue`, and `limit` when there are more."""
        count: int = self._execute(statements.COUNT_ADDRESSED, (self._prefix, queue, after, now, limit)).fetchone()[0]
        return count

    def channels_with_waiting(self, channels_json: str, now: float) -> list[str]:
        """Return those of the channels (a JSON array) on which something waits."""
        return [name for (name,) in self._execute(statements.CHANNELS_WITH_WAITING, (self._prefix, channels_json, now))]

    def claim(self, channel: str, *, now: float, limit: int, delete: bool) -> tuple[list[ClaimedRow], bool]:
        """Take the oldest `limit` waiting messages, in order, and return whether more wait. `delete`: keep no row."""
        statement = statements.CLAIM_AND_DELETE if delete else statements.CLAIM
        ids = self._execute(statements.OLDEST_WAITING, (self._prefix, channel, now, limit + 1)).fetchall()
        # Fetched to its end, for only then a statement with RETURNING is done.
        return [self._execute(statement, row_id).fetchall()[0] for row_id in ids[:limit]], len(ids) > limit

    def unclaim(self, channel: str, rows: Sequence[ClaimedRow], *, now: float, deleted: bool) -> None:
        """Put claimed messages back into their places."""
        self._execute(statements.SKIP_IDS, (len(rows),))
        for row_id, expires_at, payload in rows:
            if deleted:
                self._execute(statements.REINSERT, (row_id, self._prefix, channel, now, expires_at, payload))
            else:
                self._execute(statements.UNCLAIM, (row_id,))

    # Groups

    def join(
        self, group: str, client: str, channel: str, *, joined_id: int, expires_at: float | None, now: float
    ) -> int:
        """Add or renew a membership; return the id of the last message that is too old for it."""
        values = (self._prefix, group, client, channel, joined_id, expires_at, now)
        joined: int = self._execute(statements.JOIN, values).fetchone()[0]
        return joined

    def leave(self, group: str, client: str, channel: str) -> bool:
        """End a membership; return whether there was one."""
        return self._execute(statements.LEAVE, (self._prefix, group, client, channel)).rowcount > 0

    def members(self, group: str, client: str, now: float) -> list[tuple[str, int, float | None]]:
        """Return (channel, joined_id, expires_at) of a client's members; the client "" has the normal channels."""
        return self._execute(statements.MEMBERS, (self._prefix, group, client, now)).fetchall()

    def member(self, group: str, client: str, channel: str) -> tuple[int, float | None] | None:
        """Return (joined_id, expires_at) of one membership, or None."""
        row: tuple[int, float | None] | None = self._execute(
            statements.MEMBER, (self._prefix, group, client, channel)
        ).fetchone()
        return row

    def clients_of_group(self, group: str) -> list[str]:
        """Return the live processes that have members in `group`."""
        return [client for (client,) in self._execute(statements.CLIENTS_OF_GROUP, (self._prefix, group))]

    def group_channels(self, group: str, now: float) -> list[str]:
        """Return the names of all members, sorted."""
        return [channel for (channel,) in self._execute(statements.GROUP_CHANNELS, (self._prefix, group, now))]

    # Processes

    def listeners(self, channel: str) -> list[str]:
        """Return the processes that are woken for messages on a normal channel."""
        return [client for (client,) in self._execute(statements.LISTENERS, (self._prefix, channel))]

    def listeners_of_empty(self, channel: str, now: float) -> list[str]:
        """Return the processes to wake for the next message: nobody where one waits, as they were woken for that."""
        return [client for (client,) in self._execute(statements.LISTENERS_OF_EMPTY, (self._prefix, channel, now))]

    def listen(self, channel: str, client: str) -> None:
        """Have `client` woken for messages on a normal channel."""
        self._execute(statements.LISTEN, (self._prefix, channel, client))

    def unlisten(self, channel: str, client: str) -> None:
        """Undo `listen`."""
        self._execute(statements.UNLISTEN, (self._prefix, channel, client))

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
        self._execute(statements.REGISTER, values)

    def publish(self, client: str, *, cursor: int, held: int, channels: int) -> bool:
        """Tell senders how far a reader has come; return False where its row is gone."""
        return self._execute(statements.PUBLISH, (cursor, held, channels, client)).rowcount > 0

    def process(self, client: str) -> ProcessRow | None:
        """Return a registered reader, of whatever prefix, or None."""
        row = self._execute(statements.PROCESS, (client,)).fetchone()
        return ProcessRow(*row) if row else None

    def processes(self) -> list[ProcessRow]:
        """Return all registered readers, of every prefix in this database."""
        return [ProcessRow(*row) for row in self._execute(statements.PROCESSES)]

    def strangers(self) -> list[str]:
        """Return the clients that have members or listeners and are not registered."""
        return [client for (client,) in self._execute(statements.STRANGERS)]

    def forget(self, client: str, cursor: int) -> None:
        """Delete a reader that is no more: memberships, unread messages, registration."""
        self._execute(statements.FORGET_UNREAD, (client, cursor))
        for statement in statements.FORGET:
            self._execute(statement, (client,))

    def flush(self) -> None:
        """Delete all messages and memberships."""
        for statement in statements.FLUSH:
            self._execute(statement, (self._prefix,))

    # Housekeeping

    def oldest(self, after: int, limit: int) -> list[tuple[int, int, int, float, float]]:
        """Return (id, kind, state, created_at, expires_at) of the first rows past id `after`."""
        return self._execute(statements.OLDEST, (self._prefix, after, limit)).fetchall()

    def delete_messages(self, ids: Sequence[int]) -> None:
        """Delete rows by id."""
        self._connection.executemany(statements.DELETE_MESSAGE, [(row_id,) for row_id in ids])

    def expired_waiting(self, now: float, limit: int) -> list[int]:
        """Return ids of expired rows that still stand among what waits."""
        return [row_id for (row_id,) in self._execute(statements.EXPIRED_WAITING, (self._prefix, now, limit))]

    def retire(self, ids: Sequence[int]) -> None:
        """Take expired rows out of what waits; they stay in the log."""
        self._connection.executemany(statements.RETIRE, [(row_id,) for row_id in ids])

    def expired_memberships(self, now: float, limit: int) -> list[int]:
        """Return ids of memberships past their expiry."""
        return [row_id for (row_id,) in self._execute(statements.EXPIRED_MEMBERSHIPS, (self._prefix, now, limit))]

    def delete_memberships(self, ids: Sequence[int]) -> None:
        """Delete memberships by id."""
        self._connection.executemany(statements.DELETE_MEMBERSHIP, [(row_id,) for row_id in ids])

    def lowest_cursor(self) -> int | None:
        """Return how far every registered reader has come, or None without readers."""
        lowest: int | None = self._execute(statements.LOWEST_CURSOR, (self._prefix,)).fetchone()[0]
        return lowest

    # Looking inside

    def count_rows(self) -> int:
        """Return how many messages the table holds, read ones and expired ones included."""
        count: int = self._execute(statements.COUNT_ROWS, (self._prefix,)).fetchone()[0]
        return count

    def waiting_channels(self, now: float) -> list[tuple[str, int, float]]:
        """Return (name, waiting messages, created_at of the oldest) of the normal channels where something waits."""
        return self._execute(statements.WAITING_CHANNELS, (self._prefix, now)).fetchall()

    def unread_queues(self, now: float) -> list[tuple[str, int, float]]:
        """Return the same of process-specific channels, up to their `!`, for what their process has not read yet."""
        return self._execute(statements.UNREAD_QUEUES, (self._prefix, now)).fetchall()

    def group_sizes(self, now: float) -> list[tuple[str, int]]:
        """Return (name, members) of all groups that have members."""
        return self._execute(statements.GROUP_SIZES, (self._prefix, now)).fetchall()

    def started(self) -> dict[str, float]:
        """Return the registered readers of this prefix, with the time of their start (seconds since 1970)."""
        return dict(self._execute(statements.STARTED, (self._prefix,)).fetchall())

    def listening(self) -> list[tuple[str, str]]:
        """Return (client, normal channel that it waits on) of all, sorted."""
        return self._execute(statements.LISTENING, (self._prefix,)).fetchall()

    def free_space(self) -> FreeSpace:
        """Return how much of the file is in use."""
        return FreeSpace(*self._execute(statements.FREE_SPACE).fetchone())

    def vacuum_step(self) -> None:
        """Give back some free pages; only where `auto_vacuum` is INCREMENTAL."""
        self._execute(statements.VACUUM_STEP).fetchall()

    def vacuum(self, *, incremental_from_now_on: bool) -> None:
        """Write the file anew without its free pages, outside of a transaction."""
        self._execute(statements.SPARE_MEMORY)
        if incremental_from_now_on:
            self._execute(statements.INCREMENTAL_FROM_NOW_ON)
        self._execute(statements.VACUUM)

    def touch_last(self) -> None:
        """Write one page without changing anything; see `housekeeping.checkpoint`."""
        self._execute(statements.TOUCH_LAST)

    def probe(self) -> None:
        """Raise sqlite3.OperationalError where tables or columns are missing."""
        for statement in statements.PROBES:
            self._execute(statement)


def _log_rows(cursor: sqlite3.Cursor) -> Generator[LogRow, None, None]:
    try:
        for row in cursor:
            yield LogRow(*row)
    finally:
        cursor.close()
