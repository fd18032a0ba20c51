"""Who reads, `channels_sqlite_process`, and which normal channels each is woken for, `channels_sqlite_listener`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from channels_sqlite.kinds import State, TaskState
from channels_sqlite.storage.table import Table

__all__ = ["ProcessRow", "Readers"]


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A registered reader; see `models.Process`."""

    client: str
    pid: int
    machine: str
    address: str
    cursor: int
    held: str  # JSON object of queue to messages, without the queues that hold none
    channels: int

    def held_in(self, queue: str) -> int:
        """Return how many messages it has read and not received on the channels with the part `queue` up to the `!`."""
        held: Mapping[str, int] = json.loads(self.held)
        return held.get(queue, 0)

    @property
    def held_in_all(self) -> int:
        """How many messages it has read and not received."""
        held: Mapping[str, int] = json.loads(self.held)
        return sum(held.values())


# Parameters: prefix, channel. Unique index channels_sqlite_listener.
LISTENERS = "SELECT client FROM channels_sqlite_listener WHERE prefix = ? AND channel = ?"
# Parameters: prefix, channel, now. The same where nothing waits on the channel, nobody elsewhere: for what waits they
# have been woken, and who claims sees whether more is there. One probe of channels_sqlite_waiting.
LISTENERS_OF_EMPTY = f"""
    SELECT client FROM channels_sqlite_listener AS listener WHERE prefix = ? AND channel = ? AND NOT EXISTS (
        SELECT 1 FROM channels_sqlite_message AS message
        WHERE message.prefix = listener.prefix AND message.queue = listener.channel
            AND state = {State.WAITING.value} AND expires_at > ?
    )
"""
# Parameters: prefix, channel, client.
LISTEN = "INSERT OR IGNORE INTO channels_sqlite_listener (prefix, channel, client) VALUES (?, ?, ?)"
UNLISTEN = "DELETE FROM channels_sqlite_listener WHERE prefix = ? AND channel = ? AND client = ?"
# Parameters: client, prefix, pid, machine, address, cursor, started_at.
REGISTER = """
    INSERT OR REPLACE INTO channels_sqlite_process
        (client, prefix, pid, machine, address, cursor, held, channels, started_at)
    VALUES (?, ?, ?, ?, ?, ?, '{}', 0, ?)
"""
# Parameters: cursor, held (JSON), channels, client.
PUBLISH = "UPDATE channels_sqlite_process SET cursor = ?, held = ?, channels = ? WHERE client = ?"
# Parameters: client. Primary key.
PROCESS = """
    SELECT client, pid, machine, address, cursor, held, channels FROM channels_sqlite_process WHERE client = ?
"""
PROCESSES = "SELECT client, pid, machine, address, cursor, held, channels FROM channels_sqlite_process"
# Parameters: prefix.
ANY_REGISTERED = "SELECT EXISTS (SELECT 1 FROM channels_sqlite_process WHERE prefix = ?)"
# Parameters: prefix. One row for each process.
ELDEST = "SELECT client FROM channels_sqlite_process WHERE prefix = ? ORDER BY started_at, client LIMIT 1"
# Parameters: JSON array of clients. One probe of the primary key for each.
UNREGISTERED = """
    SELECT value FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM channels_sqlite_process WHERE client = value)
"""
# Clients with members, presences, listeners or tasks and without a registration, which comes first. Scans three indexes
# on client, and channels_sqlite_task_running, which holds what runs.
STRANGERS = f"""
    SELECT client FROM (
        SELECT client FROM channels_sqlite_membership UNION SELECT client FROM channels_sqlite_presence
        UNION SELECT client FROM channels_sqlite_listener
        UNION SELECT worker FROM channels_sqlite_queuedtask WHERE state = {TaskState.RUNNING.value}
    ) WHERE client <> '' AND client NOT IN (SELECT client FROM channels_sqlite_process)
"""
# Parameters: prefix. The furthest that every registered reader has come; NULL without readers.
LOWEST_CURSOR = "SELECT min(cursor) FROM channels_sqlite_process WHERE prefix = ?"


class Readers(Table):
    """Registered readers."""

    def listeners(self, channel: str) -> list[str]:
        """Return the processes that are woken for messages on a normal channel."""
        return [client for (client,) in self._execute(LISTENERS, (self._prefix, channel))]

    def listeners_of_empty(self, channel: str, now: float) -> list[str]:
        """Return the processes to wake for the next message: nobody where one waits, as they were woken for that."""
        return [client for (client,) in self._execute(LISTENERS_OF_EMPTY, (self._prefix, channel, now))]

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

    def publish(self, client: str, *, cursor: int, held: Mapping[str, int], channels: int) -> None:
        """Tell senders how far a reader has come, and what it holds by queue."""
        self._execute(PUBLISH, (cursor, json.dumps(held), channels, client))

    def process(self, client: str) -> ProcessRow | None:
        """Return a registered reader, of whatever prefix, or None."""
        row = self._execute(PROCESS, (client,)).fetchone()
        return ProcessRow(*row) if row else None

    def processes(self) -> list[ProcessRow]:
        """Return all registered readers, of every prefix in this database."""
        return [ProcessRow(*row) for row in self._execute(PROCESSES)]

    def any_registered(self) -> bool:
        """Whether any reader of this prefix is registered."""
        return bool(self._execute(ANY_REGISTERED, (self._prefix,)).fetchone()[0])

    def eldest_reader(self) -> str | None:
        """Return the reader that registered before all others: who looks for what is due; see `engine.due_messages`."""
        row: tuple[str] | None = self._execute(ELDEST, (self._prefix,)).fetchone()
        return row[0] if row else None

    def unregistered(self, clients: Sequence[str]) -> list[str]:
        """Return those of `clients` that are not registered, whatever their prefix."""
        return [client for (client,) in self._execute(UNREGISTERED, (json.dumps(clients),))]

    def strangers(self) -> list[str]:
        """Return the clients that have members, presences, listeners or tasks and are not registered."""
        return [client for (client,) in self._execute(STRANGERS)]

    def lowest_cursor(self) -> int | None:
        """Return how far every registered reader has come, or None without readers."""
        lowest: int | None = self._execute(LOWEST_CURSOR, (self._prefix,)).fetchone()[0]
        return lowest
