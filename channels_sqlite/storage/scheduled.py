"""What is to be sent later, `channels_sqlite_scheduled`: not in the log, whose ids stand for the order of the sends.

A row is new (`tries` is 0) until it is due. It then goes into the log, or is held up by a channel that is full: it has
been tried once, and more often from then on. Two partial indexes keep the two apart, so that what is held up costs
those who look for what is due nothing, and the other way round.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from channels_sqlite.kinds import Kind
from channels_sqlite.storage.table import Table

__all__ = ["Agenda", "Scheduled", "ScheduledRow"]


class ScheduledRow(NamedTuple):
    """A message that is due, without its payload. `name` is a channel's or a group's."""

    id: int
    kind: int
    name: str
    due_at: float
    expiry_s: float
    tries: int
    tried_at: float
    excluded: str
    history: bool


class Agenda(NamedTuple):
    """What there is to do: when the next new message is due (seconds since 1970), and whether some are held up."""

    next_due: float | None
    held_up: bool


# Parameters: prefix, kind, name, excluded, token, created_at, due_at, expiry_s, payload, history.
SCHEDULE = """
    INSERT INTO channels_sqlite_scheduled
        (prefix, kind, name, excluded, token, created_at, due_at, expiry_s, tries, tried_at, payload, history)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)
"""
# Parameters: id, prefix, token. Primary key.
CANCEL = "DELETE FROM channels_sqlite_scheduled WHERE id = ? AND prefix = ? AND token = ?"
# Parameters: prefix. One probe of channels_sqlite_due.
NEXT_DUE = """
    SELECT due_at FROM channels_sqlite_scheduled WHERE prefix = ? AND tries = 0 ORDER BY due_at, id LIMIT 1
"""
# Parameters: prefix, prefix. The same, and one probe of channels_sqlite_held_up.
AGENDA = """
    SELECT
        (SELECT due_at FROM channels_sqlite_scheduled WHERE prefix = ? AND tries = 0 ORDER BY due_at, id LIMIT 1),
        EXISTS (SELECT 1 FROM channels_sqlite_scheduled WHERE prefix = ? AND tries > 0)
"""
# Parameters: prefix, now, limit. Index channels_sqlite_due, in its order.
DUE = """
    SELECT id, kind, name, due_at, expiry_s, tries, tried_at, excluded, history FROM channels_sqlite_scheduled
    WHERE prefix = ? AND tries = 0 AND due_at <= ? ORDER BY due_at, id LIMIT ?
"""
# Parameters: prefix, name. One probe of channels_sqlite_held_up.
IS_HELD_UP = "SELECT EXISTS (SELECT 1 FROM channels_sqlite_scheduled WHERE prefix = ? AND name = ? AND tries > 0)"
# Parameters: prefix, after name. Likewise.
NEXT_HELD_UP = """
    SELECT name FROM channels_sqlite_scheduled WHERE prefix = ? AND tries > 0 AND name > ? ORDER BY name LIMIT 1
"""
# Parameters: prefix, name, limit. Index channels_sqlite_held_up, in its order.
HELD_UP = """
    SELECT id, kind, name, due_at, expiry_s, tries, tried_at, excluded, history FROM channels_sqlite_scheduled
    WHERE prefix = ? AND name = ? AND tries > 0 ORDER BY due_at, id LIMIT ?
"""
# Parameters: tries, now, id.
TRIED = "UPDATE channels_sqlite_scheduled SET tries = ?, tried_at = ? WHERE id = ?"
# Parameters: id.
TAKE = "DELETE FROM channels_sqlite_scheduled WHERE id = ? RETURNING CAST(payload AS BLOB)"
# Parameters: prefix. Scans the table, without the payloads that have pages of their own; for `channels_status`.
COUNT_SCHEDULED = "SELECT count(*) FROM channels_sqlite_scheduled WHERE prefix = ?"


class Scheduled(Table):
    """Scheduled messages of one prefix."""

    def schedule(
        self,
        kind: Kind,
        name: str,
        payload: bytes,
        *,
        excluded: str,
        token: str,
        created_at: float,
        due_at: float,
        expiry_s: float,
        history: bool,
    ) -> int:
        """Add a message and return its id. `history`: a group with history keeps it once it is sent."""
        values = (self._prefix, kind, name, excluded, token, created_at, due_at, expiry_s, payload, history)
        return self._execute(SCHEDULE, values).lastrowid or 0

    def cancel(self, row_id: int, token: str) -> bool:
        """Delete a message that was not sent yet; return whether there was one."""
        return self._execute(CANCEL, (row_id, self._prefix, token)).rowcount > 0

    def next_due(self) -> float | None:
        """Return when the next new message is due, or None."""
        row: tuple[float] | None = self._execute(NEXT_DUE, (self._prefix,)).fetchone()
        return row[0] if row else None

    def agenda(self) -> Agenda:
        """Return what there is to do."""
        next_due, held_up = self._execute(AGENDA, (self._prefix, self._prefix)).fetchone()
        return Agenda(next_due, bool(held_up))

    def due(self, now: float, limit: int) -> list[ScheduledRow]:
        """Return the new messages that are due, the earliest first."""
        return [_row(row) for row in self._execute(DUE, (self._prefix, now, limit)).fetchall()]

    def is_held_up(self, name: str) -> bool:
        """Whether messages for a channel are held up, behind which others must wait."""
        return bool(self._execute(IS_HELD_UP, (self._prefix, name)).fetchone()[0])

    def next_held_up(self, after: str) -> str | None:
        """Return the next channel by name for which messages are held up."""
        row: tuple[str] | None = self._execute(NEXT_HELD_UP, (self._prefix, after)).fetchone()
        return row[0] if row else None

    def held_up(self, name: str, limit: int) -> list[ScheduledRow]:
        """Return the messages that are held up for a channel, the earliest first."""
        return [_row(row) for row in self._execute(HELD_UP, (self._prefix, name, limit)).fetchall()]

    def tried(self, row: ScheduledRow, now: float) -> None:
        """Note that a message has found its channel full once more."""
        self._execute(TRIED, (row.tries + 1, now, row.id))

    def take_scheduled(self, row: ScheduledRow) -> bytes:
        """Delete a message and return its payload."""
        payload: bytes = self._execute(TAKE, (row.id,)).fetchall()[0][0]
        return payload

    def count_scheduled(self) -> int:
        """Return how many messages are to be sent later, those included that are held up."""
        count: int = self._execute(COUNT_SCHEDULED, (self._prefix,)).fetchone()[0]
        return count


def _row(values: tuple[Any, ...]) -> ScheduledRow:  # Any: of the types of its columns
    row = ScheduledRow(*values)
    return row._replace(history=bool(row.history))
