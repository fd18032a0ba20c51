"""Which channels of this process are in which groups: what a broadcast needs, without asking the database.

Complete by construction: a client's channels get into groups through this process, which notes it here, or through
another one, which says so in the log.

Threads: everything may be called from any thread. `_lock` is held for memory operations alone; inside it that of the
mailboxes may be taken, which forget a channel that has left its last group, and that of the own changes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterator

from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.own_changes import OwnChanges

__all__ = ["Members", "Membership"]

Membership = tuple[int, "float | None"]
"""The id of the last message too old for the member, and when it ends (seconds since 1970), or None."""


class Members:
    """Groups to member channels."""

    def __init__(self, boxes: Mailboxes, own: OwnChanges) -> None:
        self._boxes = boxes
        self._own = own
        # Guards all that follows; inside those of the mailboxes and of the own changes may be waited for.
        self._lock = threading.Lock()
        self._groups: dict[str, dict[str, Membership]] = {}
        self._counts: dict[str, int] = {}  # channels, and in how many groups they are
        self._none_ends_before = math.inf  # seconds since 1970

    def of(self, group: str, message_id: int, now: float) -> list[str]:
        """Return the members that the message with this id is for."""
        with self._lock:
            return [
                channel
                for channel, (joined_id, expires_at) in self._groups.get(group, {}).items()
                if joined_id < message_id and (expires_at is None or expires_at > now)
            ]

    def left(self, group: str, channel: str) -> None:
        """Note that there is no such membership any more, after the commit."""
        with self._lock:
            self._set(group, channel, None)

    def joined(self, group: str, channel: str, membership: Membership) -> Callable[[], None]:
        """Note a membership; return what undoes it.

        Called before the commit that makes it real: a broadcast that follows the commit may be read at once.
        """
        with self._lock:
            before = self._set(group, channel, membership)

        def undo() -> None:
            with self._lock:
                if self._groups.get(group, {}).get(channel) is membership:  # not dropped since
                    self._set(group, channel, before)

        return undo

    def learn(self, group: str, channel: str, membership: Membership | None) -> bool:
        """Note what was read; return False where it must be read again, as this process has changed it meanwhile."""
        with self._lock:
            if self._own.overtook(group, channel):
                return False
            self._set(group, channel, membership)
            return True

    def _set(self, group: str, channel: str, membership: Membership | None) -> Membership | None:
        members = self._groups.get(group, {})
        before = members.get(channel)
        if membership is not None:
            if before is None:
                self._counts[channel] = self._counts.get(channel, 0) + 1
            self._groups.setdefault(group, members)[channel] = membership
            if membership[1] is not None:
                self._none_ends_before = min(self._none_ends_before, membership[1])
        elif before is not None:
            del members[channel]
            if not members:
                del self._groups[group]
            self._counts[channel] -= 1
            if not self._counts[channel]:
                del self._counts[channel]
                self._boxes.forget_consumer(channel)
        return before

    def is_member(self, channel: str) -> bool:
        """Whether a channel is in some group. Takes no lock."""
        return channel in self._counts

    def memberships_of(self, channels: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield (group, channel) of all memberships of these, holding the lock for one group at a time."""
        with self._lock:
            groups = list(self._groups)
        for group in groups:
            with self._lock:
                members = self._groups.get(group, {})
                # The cost is that of the smaller of the two.
                few, many = (members, channels) if len(members) < len(channels) else (channels, members)
                found = [channel for channel in few if channel in many]
            for channel in found:
                yield group, channel

    def all(self) -> list[tuple[str, str, int, float | None]]:
        """Return (group, channel, joined_id, expires_at) of all memberships."""
        with self._lock:
            return self._all()

    def _all(self) -> list[tuple[str, str, int, float | None]]:
        return [
            (group, channel, joined_id, expires_at)
            for group, members in self._groups.items()
            for channel, (joined_id, expires_at) in members.items()
        ]

    def drop_expired(self, now: float) -> list[tuple[str, str]]:
        """Drop what has ended; return (group, channel) of it."""
        with self._lock:
            if now < self._none_ends_before:
                return []
            ends_at = [(group, channel, ends) for group, channel, _, ends in self._all() if ends is not None]
            ended = [(group, channel) for group, channel, ends in ends_at if ends <= now]
            for group, channel in ended:
                self._set(group, channel, None)
            self._none_ends_before = min((ends for _, _, ends in ends_at if ends > now), default=math.inf)
            return ended

    def drop_older(self, message_id: int) -> None:
        """Drop the memberships from before the message with this id."""
        with self._lock:
            for group, members in list(self._groups.items()):
                for channel, (joined_id, _) in list(members.items()):
                    if joined_id < message_id:
                        self._set(group, channel, None)

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()
