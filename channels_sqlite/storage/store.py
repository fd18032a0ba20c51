"""All statements on one connection, and its transactions.

A `Store` belongs to one connection; whoever holds that connection's lock may call it. Methods that write expect a
transaction opened with `begin()`: a deferred one that reads first would fail with SQLITE_BUSY_SNAPSHOT whatever the
time-out (https://www.sqlite.org/rescode.html#busy_snapshot).
"""

from __future__ import annotations

import time

from channels_sqlite.kinds import Kind, State
from channels_sqlite.storage.groups import Groups
from channels_sqlite.storage.history import Kept
from channels_sqlite.storage.messages import Messages
from channels_sqlite.storage.overview import Overview
from channels_sqlite.storage.presences import Presences
from channels_sqlite.storage.readers import Readers
from channels_sqlite.storage.scheduled import Scheduled
from channels_sqlite.storage.table import INFINITY_SQL as _NEVER
from channels_sqlite.storage.task_schedules import TaskSchedules
from channels_sqlite.storage.tasks import Tasks

__all__ = ["Store"]

# Takes the write lock at once, so that nothing read inside the transaction can be out of date when it is written.
BEGIN = "BEGIN IMMEDIATE"
# For a deferred transaction that somebody else has opened. Changes nothing, and takes the write lock as its first
# statement would: SQLite's busy handler waits for that lock only where the transaction has not read before
# (https://www.sqlite.org/c3ref/busy_handler.html).
LOCK = "DELETE FROM channels_sqlite_message WHERE 0"
# Changes whenever another connection has committed (https://www.sqlite.org/pragma.html#pragma_data_version).
DATA_VERSION = "PRAGMA data_version"
# Parameters: cursor, client. What a dead reader had not read: a range of the primary key from its cursor on.
FORGET_UNREAD = f"""
    DELETE FROM channels_sqlite_message
    WHERE id > ? AND kind IN ({Kind.SPECIFIC.value}, {Kind.MEMBERSHIP.value}) AND client = ?
"""
# Parameters: client.
FORGET = (
    "DELETE FROM channels_sqlite_membership WHERE client = ?",
    "DELETE FROM channels_sqlite_presence WHERE client = ?",
    "DELETE FROM channels_sqlite_listener WHERE client = ?",
    "DELETE FROM channels_sqlite_process WHERE client = ?",
)
# Parameters: prefix. What tells of presences stays for those who have not heard it, or the last word, that everybody
# has left, would not fit what they know; see READ_LOG. So does the last word of an earlier flush. It goes by and by, as
# all that was read does.
FLUSH = (
    f"""
    DELETE FROM channels_sqlite_message
    WHERE prefix = ? AND kind <> {Kind.PRESENCE.value} AND NOT (kind = {Kind.FLUSH.value} AND length(payload) > 0)
        AND NOT (state = {State.WAITING.value} AND expires_at = {_NEVER})
    """,
    f"""
    UPDATE channels_sqlite_message SET state = {State.DONE.value} WHERE prefix = ? AND kind = {Kind.PRESENCE.value}
    """,
    "DELETE FROM channels_sqlite_membership WHERE prefix = ?",
    "DELETE FROM channels_sqlite_scheduled WHERE prefix = ?",
    "DELETE FROM channels_sqlite_presence WHERE prefix = ?",
)
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
    """
    SELECT id, prefix, kind, name, excluded, token, created_at, due_at, expiry_s, tries, tried_at, payload, history
    FROM channels_sqlite_scheduled LIMIT 0
    """,
    "SELECT id, last FROM channels_sqlite_lastid LIMIT 0",
    "SELECT prefix, epoch, place, first FROM channels_sqlite_historyepoch LIMIT 0",
    "SELECT id, prefix, group_name, floor FROM channels_sqlite_historyfloor LIMIT 0",
    """
    SELECT id, prefix, group_name, client, channel, key, turn, since, heard_id, expires_at, info
    FROM channels_sqlite_presence LIMIT 0
    """,
    """
    SELECT id, key, prefix, backend, queue, is_async, state, priority, due_at, path, payload, unique_key, enqueued_at,
        run_after, started_at, last_attempted_at, finished_at, kept_until, failure_retention, worker, worker_ids,
        attempts, failures, crashes, max_crashes, last_start, ended, untold, progress, outcome, errors
    FROM channels_sqlite_queuedtask LIMIT 0
    """,
    "SELECT id, prefix, backend, name, rule, next_at FROM channels_sqlite_taskschedule LIMIT 0",
)


class Store(Messages, Groups, Presences, Readers, Scheduled, Kept, Overview, Tasks, TaskSchedules):
    """The statements on one connection, for the layer with this `prefix`."""

    def of(self, prefix: str) -> Store:
        """Return the statements for another layer's prefix, on the same connection."""
        return self if prefix == self._prefix else Store(self._connection, prefix)

    def begin(self) -> None:
        """Take the write lock, or raise the sqlite3.OperationalError that `errors.is_busy` recognises."""
        self._execute(BEGIN)

    def lock(self) -> None:
        """Take the write lock in a transaction that is open already, else for a moment; errors as `begin`."""
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

    def data_version(self) -> int:
        """Return a number that changes when another connection commits."""
        version: int = self._execute(DATA_VERSION).fetchone()[0]
        return version

    def forget(self, client: str, cursor: int) -> set[str]:
        """Delete a reader that is no more: memberships, unread messages, registration; its tasks go back.

        Returns the clients that may run those tasks, to be woken. Others must have been told of its presences before.
        """
        to_wake = self.release_tasks(client, time.time())
        self._execute(FORGET_UNREAD, (cursor, client))
        for statement in FORGET:
            self._execute(statement, (client,))
        return to_wake - {client}

    def flush(self) -> None:
        """Delete all messages, those that are to be sent later included, all memberships and presences."""
        for statement in FLUSH:
            self._execute(statement, (self._prefix,))

    def probe(self) -> None:
        """Raise sqlite3.OperationalError where tables or columns are missing."""
        for statement in PROBES:
            self._execute(statement)
