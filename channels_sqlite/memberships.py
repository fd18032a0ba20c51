"""Which channels of this process are in which groups: what a broadcast needs, without asking the database.

Complete by construction: a client's channels get into groups through this process, which notes it here, or through
another one, which says so in the log. `inbox` calls this under its lock.
"""

from __future__ import annotations

import math

__all__ = ["Memberships"]

Membership = tuple[int, "float | None"]
"""The id of the last message too old for the member, and when it ends (seconds since 1970), or None."""


class Memberships:
    """Groups to member channels."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Membership]] = {}
        self._none_ends_before = math.inf  # seconds since 1970

    def of(self, group: str, message_id: int, now: float) -> list[str]:
        """Return the members that the message with this id is for."""
        return [
            channel
            for channel, (joined_id, expires_at) in self._groups.get(group, {}).items()
            if joined_id < message_id and (expires_at is None or expires_at > now)
        ]

    def get(self, group: str, channel: str) -> Membership | None:
        """Return one membership, or None."""
        return self._groups.get(group, {}).get(channel)

    def set(self, group: str, channel: str, membership: Membership | None) -> None:
        """Note a membership, or with None that there is none."""
        if membership is not None:
            self._groups.setdefault(group, {})[channel] = membership
            if membership[1] is not None:
                self._none_ends_before = min(self._none_ends_before, membership[1])
            return
        members = self._groups.get(group)
        if members is not None:
            members.pop(channel, None)
            if not members:
                del self._groups[group]

    def all(self) -> list[tuple[str, str, float | None]]:
        """Return (group, channel, expires_at) of all memberships."""
        return [
            (group, channel, expires_at)
            for group, members in self._groups.items()
            for channel, (_, expires_at) in members.items()
        ]

    def drop_expired(self, now: float) -> list[tuple[str, str]]:
        """Drop what has ended; return (group, channel) of it."""
        if now < self._none_ends_before:
            return []
        ends_at = [(group, channel, ends) for group, channel, ends in self.all() if ends is not None]
        ended = [(group, channel) for group, channel, ends in ends_at if ends <= now]
        for group, channel in ended:
            self.set(group, channel, None)
        self._none_ends_before = min((ends for _, _, ends in ends_at if ends > now), default=math.inf)
        return ended

    def drop_older(self, message_id: int) -> None:
        """Drop the memberships from before the message with this id."""
        for group, members in list(self._groups.items()):
            for channel, (joined_id, _) in list(members.items()):
                if joined_id < message_id:
                    self.set(group, channel, None)
