"""Who is in which group, `channels_sqlite_membership`."""

from __future__ import annotations

from collections.abc import Sequence

from channels_sqlite.storage.table import Table

__all__ = ["Groups"]

# Parameters: prefix, group, client, channel, newest id, expires_at, now. A renewed membership keeps the id it joined
# at, one that had ended starts anew.
JOIN = """
    INSERT INTO channels_sqlite_membership (prefix, group_name, client, channel, joined_id, expires_at)
    VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (prefix, group_name, client, channel) DO UPDATE SET
        joined_id = CASE WHEN expires_at <= ? THEN excluded.joined_id ELSE joined_id END,
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
    WHERE process.prefix = ? AND EXISTS (
        SELECT 1 FROM channels_sqlite_membership AS membership
        WHERE membership.prefix = process.prefix AND membership.group_name = ? AND membership.client = process.client
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
# Parameters: prefix, name, name. A range of channels_sqlite_member.
ANY_GROUP = """
    SELECT EXISTS (
        SELECT 1 FROM channels_sqlite_membership WHERE prefix = ? AND group_name >= ? AND group_name < ?
    )
"""
# One who is present ends otherwise, as others are told of it. One probe of channels_sqlite_attendee.
_NOT_PRESENT = """
    NOT EXISTS (
        SELECT 1 FROM channels_sqlite_presence AS presence
        WHERE presence.client = channels_sqlite_membership.client
            AND presence.prefix = channels_sqlite_membership.prefix
            AND presence.group_name = channels_sqlite_membership.group_name
            AND presence.channel = channels_sqlite_membership.channel AND presence.key > ''
    )
"""
# Parameters: prefix, now, limit.
EXPIRED_MEMBERSHIPS = f"""
    SELECT id FROM channels_sqlite_membership WHERE prefix = ? AND expires_at <= ? AND {_NOT_PRESENT} LIMIT ?
"""
# Parameters: id, now. It was found without a lock, and may have been renewed since.
DELETE_MEMBERSHIP = f"DELETE FROM channels_sqlite_membership WHERE id = ? AND expires_at <= ? AND {_NOT_PRESENT}"


class Groups(Table):
    """Memberships of one prefix."""

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

    def any_group(self, first: str, end: str) -> bool:
        """Whether a group whose name is from `first` on and before `end` has, or had, members."""
        return bool(self._execute(ANY_GROUP, (self._prefix, first, end)).fetchone()[0])

    def expired_memberships(self, now: float, limit: int) -> list[int]:
        """Return ids of memberships past their expiry."""
        return [row_id for (row_id,) in self._execute(EXPIRED_MEMBERSHIPS, (self._prefix, now, limit))]

    def delete_memberships(self, ids: Sequence[int], now: float) -> None:
        """Delete memberships by id, of which those stay that do not end by `now` (any more)."""
        self._connection.executemany(DELETE_MEMBERSHIP, [(row_id, now) for row_id in ids])
