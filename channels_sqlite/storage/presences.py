"""Who is present in which group, and who watches, `channels_sqlite_presence`.

One row for each channel. Its key is "" where it only watches. A row lasts no longer than the membership of its channel,
and goes in the same transaction; see `delivery.attendance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from channels_sqlite.kinds import State
from channels_sqlite.storage.table import INFINITY_SQL as _NEVER
from channels_sqlite.storage.table import Table

__all__ = ["Attendee", "PresenceRow", "Presences", "PresentRow"]


class PresenceRow(NamedTuple):
    """What a channel is in a group; see `models.Presence`."""

    key: str
    turn: int
    since: float
    heard_id: int
    expires_at: float | None
    info: bytes


class PresentRow(NamedTuple):
    """Somebody who is in a group: the info of the channel that joined last, and how many channels there are."""

    key: str
    info: bytes
    channels: int
    since: float


class Attendee(NamedTuple):
    """A channel in a group, and the key that it has there."""

    group: str
    client: str
    channel: str
    key: str


# Parameters: prefix, group, client, channel. Unique index channels_sqlite_attendee.
PRESENCE = """
    SELECT key, turn, since, heard_id, expires_at, CAST(info AS BLOB) FROM channels_sqlite_presence
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""
# Parameters: prefix, group, client, channel, key, now, newest id, expires_at, info, prefix, group, key. The turn after
# the last of that key, whose range of channels_sqlite_attendance is read for the time when it came.
ATTEND = """
    INSERT INTO channels_sqlite_presence
        (prefix, group_name, client, channel, key, turn, since, heard_id, expires_at, info)
    SELECT ?, ?, ?, ?, ?, ifnull(max(turn), 0) + 1, ifnull(min(since), ?), ?, ?, ? FROM channels_sqlite_presence
    WHERE prefix = ? AND group_name = ? AND key = ?
    ON CONFLICT (client, prefix, group_name, channel) DO UPDATE SET
        key = excluded.key, turn = excluded.turn, since = excluded.since, heard_id = excluded.heard_id,
        expires_at = excluded.expires_at, info = excluded.info
    RETURNING key, turn, since, heard_id, expires_at, CAST(info AS BLOB)
"""
# Parameters: prefix, group, client, channel, newest id, expires_at. One who is present goes on to be.
WATCH = """
    INSERT INTO channels_sqlite_presence
        (prefix, group_name, client, channel, key, turn, since, heard_id, expires_at, info)
    VALUES (?, ?, ?, ?, '', 0, 0.0, ?, ?, x'')
    ON CONFLICT (client, prefix, group_name, channel) DO UPDATE SET
        heard_id = excluded.heard_id, expires_at = excluded.expires_at
    RETURNING key, turn, since, heard_id, expires_at, CAST(info AS BLOB)
"""
# Parameters: prefix, group, client, channel, key, turn, since, heard_id, expires_at, info. As it was before.
RESTORE = """
    INSERT OR REPLACE INTO channels_sqlite_presence
        (prefix, group_name, client, channel, key, turn, since, heard_id, expires_at, info)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# Parameters: info, expires_at, prefix, group, client, channel.
UPDATE_PRESENCE = """
    UPDATE channels_sqlite_presence SET info = ?, expires_at = ?
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""
# Parameters: newest id, prefix, group, client, channel.
HEARD = """
    UPDATE channels_sqlite_presence SET heard_id = ?
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""
# Parameters: expires_at, prefix, group, client, channel.
PROLONG = """
    UPDATE channels_sqlite_presence SET expires_at = ?
    WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""
# Parameters: prefix, group, client, channel.
DEPART = """
    DELETE FROM channels_sqlite_presence WHERE prefix = ? AND group_name = ? AND client = ? AND channel = ?
"""
# Parameters: prefix, group, key. One probe of channels_sqlite_attendance.
INFO_OF = """
    SELECT CAST(info AS BLOB) FROM channels_sqlite_presence WHERE prefix = ? AND group_name = ? AND key = ?
    ORDER BY turn DESC, id DESC LIMIT 1
"""
# Parameters: prefix, group. In the order of channels_sqlite_attendance. Beside max(), SQLite takes the other columns
# from the row that has the largest value (https://www.sqlite.org/lang_select.html#bareagg).
WHO = """
    SELECT key, CAST(info AS BLOB), count(*), since, max(turn) FROM channels_sqlite_presence
    WHERE prefix = ? AND group_name = ? AND key > '' GROUP BY key ORDER BY key
"""
# Parameters: prefix, group. Index channels_sqlite_attendance alone.
COUNT_PRESENT = """
    SELECT count(DISTINCT key) FROM channels_sqlite_presence WHERE prefix = ? AND group_name = ? AND key > ''
"""
# Parameters: prefix, key. Index channels_sqlite_whereabouts alone, in its order.
WHEREABOUTS = """
    SELECT DISTINCT group_name FROM channels_sqlite_presence WHERE prefix = ? AND key = ? ORDER BY group_name
"""
# Parameters: prefix, group. One probe of channels_sqlite_attendee per live process.
CLIENTS_THAT_HEAR = """
    SELECT client FROM channels_sqlite_process AS process
    WHERE process.prefix = ? AND EXISTS (
        SELECT 1 FROM channels_sqlite_presence AS presence
        WHERE presence.prefix = process.prefix AND presence.group_name = ? AND presence.client = process.client
    )
"""
# Parameters: prefix, group. Index channels_sqlite_attendee alone.
NORMAL_THAT_HEAR = """
    SELECT channel FROM channels_sqlite_presence WHERE client = '' AND prefix = ? AND group_name = ?
"""
# Parameters: prefix. Likewise; for a flush.
ALL_NORMAL_THAT_HEAR = """
    SELECT group_name, channel FROM channels_sqlite_presence WHERE client = '' AND prefix = ? ORDER BY group_name
"""
# Parameters: prefix. For a flush, which ends all of it.
ALL_PRESENT = """
    SELECT group_name, key, CAST(info AS BLOB), max(turn) FROM channels_sqlite_presence
    WHERE prefix = ? AND key > '' GROUP BY group_name, key
"""
# Parameters: client. Index channels_sqlite_attendee alone, in its order.
GROUPS_ATTENDED = """
    SELECT DISTINCT prefix, group_name FROM channels_sqlite_presence WHERE client = ? LIMIT ?
"""
# Parameters: client, prefix, group.
ATTENDEES_OF = """
    SELECT channel, key FROM channels_sqlite_presence WHERE client = ? AND prefix = ? AND group_name = ?
"""
# Parameters: prefix, now, limit. Index channels_sqlite_presence_ends.
EXPIRED_PRESENCES = """
    SELECT group_name, client, channel, key FROM channels_sqlite_presence
    WHERE prefix = ? AND expires_at <= ? ORDER BY expires_at LIMIT ?
"""
# Parameters: prefix. One probe of channels_sqlite_presence_ends.
NEXT_PRESENCE_ENDS = """
    SELECT expires_at FROM channels_sqlite_presence
    WHERE prefix = ? AND expires_at IS NOT NULL ORDER BY expires_at LIMIT 1
"""
# What waits on normal channels and tells of presences; it never expires. Parameters: prefix, channel. Index
# channels_sqlite_waiting alone.
COUNT_TOLD = f"""
    SELECT count(*) FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND state = {State.WAITING.value} AND expires_at = {_NEVER}
"""
# Parameters: prefix, channel. Likewise, and reads those rows.
TOLD = f"""
    SELECT id, local, CAST(payload AS BLOB) FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND state = {State.WAITING.value} AND expires_at = {_NEVER} ORDER BY id
"""
# Parameters: prefix, channel, group. Likewise.
WITHDRAW = f"""
    DELETE FROM channels_sqlite_message
    WHERE prefix = ? AND queue = ? AND state = {State.WAITING.value} AND expires_at = {_NEVER} AND local = ?
"""
# Parameters: id, of one that waits.
WITHDRAW_ONE = "DELETE FROM channels_sqlite_message WHERE id = ?"
# Parameters: prefix. For `channels_status`: scans the presences of the prefix.
ATTENDANCES = """
    SELECT group_name, count(DISTINCT nullif(key, '')), sum(key = '') FROM channels_sqlite_presence
    WHERE prefix = ? GROUP BY group_name
"""


class Presences(Table):
    """Presences of one prefix."""

    def presence(self, group: str, client: str, channel: str) -> PresenceRow | None:
        """Return what a channel is in a group, or None."""
        row = self._execute(PRESENCE, (self._prefix, group, client, channel)).fetchone()
        return PresenceRow(*row) if row else None

    def attend(
        self,
        group: str,
        client: str,
        channel: str,
        key: str,
        info: bytes,
        *,
        heard_id: int,
        expires_at: float | None,
        now: float,
    ) -> PresenceRow:
        """Have a channel be present under a key, as the one that joined last."""
        values = (self._prefix, group, client, channel, key, now, heard_id, expires_at, info, self._prefix, group, key)
        return PresenceRow(*self._execute(ATTEND, values).fetchall()[0])

    def watch(self, group: str, client: str, channel: str, *, heard_id: int, expires_at: float | None) -> PresenceRow:
        """Have a channel watch, or renew what it is."""
        values = (self._prefix, group, client, channel, heard_id, expires_at)
        return PresenceRow(*self._execute(WATCH, values).fetchall()[0])

    def restore(self, group: str, client: str, channel: str, row: PresenceRow) -> None:
        """Have a channel be what it was."""
        self._execute(RESTORE, (self._prefix, group, client, channel, *row))

    def update_presence(self, group: str, client: str, channel: str, *, info: bytes, expires_at: float | None) -> None:
        """Change what a channel tells."""
        self._execute(UPDATE_PRESENCE, (info, expires_at, self._prefix, group, client, channel))

    def heard(self, group: str, client: str, channel: str, newest_id: int) -> None:
        """Note up to which id a channel knows of all changes."""
        self._execute(HEARD, (newest_id, self._prefix, group, client, channel))

    def prolong(self, group: str, client: str, channel: str, expires_at: float | None) -> None:
        """Have a presence end as late as its membership."""
        self._execute(PROLONG, (expires_at, self._prefix, group, client, channel))

    def depart(self, group: str, client: str, channel: str) -> None:
        """End a presence."""
        self._execute(DEPART, (self._prefix, group, client, channel))

    def info_of(self, group: str, key: str) -> bytes | None:
        """Return the info of the channel of a key that joined last; None: the key is not present."""
        row: tuple[bytes] | None = self._execute(INFO_OF, (self._prefix, group, key)).fetchone()
        return row[0] if row else None

    def who(self, group: str) -> list[PresentRow]:
        """Return who is present, by key."""
        return [PresentRow(*row[:4]) for row in self._execute(WHO, (self._prefix, group))]

    def count_present(self, group: str) -> int:
        """Return how many keys are present."""
        count: int = self._execute(COUNT_PRESENT, (self._prefix, group)).fetchone()[0]
        return count

    def whereabouts(self, key: str) -> list[str]:
        """Return the groups in which a key is present, sorted."""
        return [group for (group,) in self._execute(WHEREABOUTS, (self._prefix, key))]

    def clients_that_hear(self, group: str) -> list[str]:
        """Return the live processes that have channels which are present or watch."""
        return [client for (client,) in self._execute(CLIENTS_THAT_HEAR, (self._prefix, group))]

    def normal_that_hear(self, group: str) -> list[str]:
        """Return the normal channels that are present or watch."""
        return [channel for (channel,) in self._execute(NORMAL_THAT_HEAR, (self._prefix, group)).fetchall()]

    def all_normal_that_hear(self) -> list[tuple[str, str]]:
        """Return (group, channel) of the same in all groups."""
        return self._execute(ALL_NORMAL_THAT_HEAR, (self._prefix,)).fetchall()

    def all_present(self) -> list[tuple[str, str, bytes]]:
        """Return (group, key, info) of everybody, by group."""
        return [row[:3] for row in self._execute(ALL_PRESENT, (self._prefix,))]

    def groups_attended(self, client: str, limit: int = -1) -> list[tuple[str, str]]:
        """Return (prefix, group), of whatever prefix, in which channels of a client are present or watch."""
        return self._execute(GROUPS_ATTENDED, (client, limit)).fetchall()

    def attendees_of(self, group: str, client: str) -> list[Attendee]:
        """Return the channels of a client that are present in a group or watch."""
        rows = self._execute(ATTENDEES_OF, (client, self._prefix, group))
        return [Attendee(group, client, channel, key) for channel, key in rows.fetchall()]

    def expired_presences(self, now: float, limit: int) -> list[Attendee]:
        """Return those who may be past their expiry, the first first."""
        return [Attendee(*row) for row in self._execute(EXPIRED_PRESENCES, (self._prefix, now, limit)).fetchall()]

    def next_presence_ends(self) -> float | None:
        """Return when the next one may end (seconds since 1970), or None."""
        row: tuple[float] | None = self._execute(NEXT_PRESENCE_ENDS, (self._prefix,)).fetchone()
        return row[0] if row else None

    def count_told(self, channel: str) -> int:
        """Return how many messages that tell of presences wait on a normal channel."""
        count: int = self._execute(COUNT_TOLD, (self._prefix, channel)).fetchone()[0]
        return count

    def told(self, channel: str) -> list[tuple[int, str, bytes]]:
        """Return (id, group, payload) of these."""
        return self._execute(TOLD, (self._prefix, channel)).fetchall()

    def withdraw(self, channel: str, group: str) -> None:
        """Delete those that tell of `group`."""
        self._execute(WITHDRAW, (self._prefix, channel, group))

    def withdraw_some(self, ids: Sequence[int]) -> None:
        """Delete some by id."""
        self._connection.executemany(WITHDRAW_ONE, [(row_id,) for row_id in ids])

    def attendances(self) -> list[tuple[str, int, int]]:
        """Return (group, keys, watching channels) of all groups that have any."""
        return self._execute(ATTENDANCES, (self._prefix,)).fetchall()
