"""Which channels of this process are present in which groups, or watch them: to whom a presence diff goes.

Complete by construction, as `members` is: what a transaction of this process changes stands here before its commit, and
what another one changes is said in the log.

A channel hears the diffs that come after its list, and none that its list has taken in. Before a commit it is not known
whether there will be one; then a channel has a gap, of the ids that it will not hear, which are nobody's if there is
none.

Threads: everything may be called from any thread. `_lock` is held for memory operations alone; inside it that of the
mailboxes may be taken, which forget a channel that is in no group any more, and that of the own changes.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.members import Members
from channels_sqlite.delivery.own_changes import OwnChanges
from channels_sqlite.storage.presences import PresenceRow

__all__ = ["Audience", "Hearer"]


@dataclass(frozen=True, slots=True)
class Hearer:
    """One channel in one group, and with `gap_from` < id <= `gap_to` what it does not hear."""

    row: PresenceRow
    gap_from: float = math.inf
    gap_to: float = math.inf

    def hears(self, message_id: int) -> bool:
        """Whether a diff with this id is for it."""
        return self.row.heard_id < message_id and not self.gap_from < message_id <= self.gap_to

    @property
    def leaves(self) -> bool:
        """Whether its gap has no end."""
        return math.isinf(self.gap_to) and not math.isinf(self.gap_from)

    @property
    def list_id(self) -> float:
        """The newest id that a list of its own has taken in, or will have."""
        return self.row.heard_id if math.isinf(self.gap_to) else self.gap_to


class Audience:
    """Groups to channels."""

    def __init__(self, boxes: Mailboxes, members: Members, own: OwnChanges) -> None:
        self._boxes = boxes
        self._members = members
        self._own = own
        # Guards all that follows; inside those of the mailboxes and of the own changes may be waited for.
        self._lock = threading.Lock()
        self._groups: dict[str, dict[str, Hearer]] = {}
        self._counts: dict[str, int] = {}  # channels, and in how many groups they are present or watch

    def of(self, group: str, message_id: int) -> list[str]:
        """Return the channels that the diff with this id is for."""
        with self._lock:
            return [name for name, hearer in self._groups.get(group, {}).items() if hearer.hears(message_id)]

    def hears(self, group: str, channel: str, message_id: int) -> bool:
        """Whether a diff is for one channel. Takes no lock."""
        hearer = self._groups.get(group, {}).get(channel)
        return hearer is not None and hearer.hears(message_id)

    def list_id(self, group: str, channel: str) -> float:
        """Return the newest id that a list of this channel's own has taken in, or will have; -1 where it has none.

        Takes no lock.
        """
        hearer = self._groups.get(group, {}).get(channel)
        return -1 if hearer is None else hearer.list_id

    def attends(self, channel: str) -> bool:
        """Whether a channel is present or watches in some group. Takes no lock."""
        return channel in self._counts

    def is_anywhere(self, channel: str) -> bool:
        """Whether a channel is in some group, in whatever way. Takes no lock."""
        return channel in self._counts or self._members.is_member(channel)

    def attended_by(self, channels: Collection[str]) -> list[tuple[str, str]]:
        """Return (group, channel) of all in which these are present or watch."""
        with self._lock:
            return [
                (group, channel)
                for group, hearers in self._groups.items()
                for channel in hearers
                if channel in channels
            ]

    def all(self) -> list[tuple[str, str, PresenceRow]]:
        """Return (group, channel, row) of all."""
        with self._lock:
            return [
                (group, channel, hearer.row)
                for group, hearers in self._groups.items()
                for channel, hearer in hearers.items()
            ]

    def _set(self, group: str, channel: str, hearer: Hearer | None) -> None:
        hearers = self._groups.get(group, {})
        if hearer is not None:
            if channel not in hearers:
                self._counts[channel] = self._counts.get(channel, 0) + 1
            self._groups.setdefault(group, hearers)[channel] = hearer
        elif hearers.pop(channel, None) is not None:
            if not hearers:
                del self._groups[group]
            self._counts[channel] -= 1
            if not self._counts[channel]:
                del self._counts[channel]
                if not self._members.is_member(channel):
                    self._boxes.forget_consumer(channel)

    # Of a transaction of this process: before its commit, and after it

    def enter(
        self, group: str, channel: str, row: PresenceRow, newest_before: int
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        """Note what a channel is from now on; return what undoes it, and what is to be done after the commit.

        `newest_before` is the id up to which it hears as it did until now.
        """
        with self._lock:
            before = self._groups.get(group, {}).get(channel)
            now = Hearer(row)
            if before is not None:
                gap_from = min(before.gap_from, newest_before)
                now = Hearer(row._replace(heard_id=before.row.heard_id), gap_from, row.heard_id)
            self._set(group, channel, now)

        def settle() -> None:
            with self._lock:
                hearer = self._groups.get(group, {}).get(channel)
                if hearer is not None and hearer.gap_to == row.heard_id:  # not left or joined since
                    self._set(group, channel, Hearer(hearer.row._replace(heard_id=row.heard_id)))

        return self._undoing(group, channel, now, before), settle

    def leave(
        self, group: str, channel: str, newest_before: int
    ) -> tuple[Callable[[], None], Callable[[], None]] | None:
        """Likewise, of a channel that leaves; None where it is not here."""
        with self._lock:
            before = self._groups.get(group, {}).get(channel)
            if before is None:
                return None
            now = Hearer(before.row, min(before.gap_from, newest_before), math.inf)
            self._set(group, channel, now)

        def settle() -> None:
            with self._lock:
                hearer = self._groups.get(group, {}).get(channel)
                if hearer is not None and hearer.leaves:  # not joined since
                    self._set(group, channel, None)

        return self._undoing(group, channel, now, before), settle

    def update(self, group: str, channel: str, info: bytes, expires_at: float | None) -> Callable[[], None]:
        """Note what a channel tells, for when the tables were emptied; return what undoes it."""
        with self._lock:
            before = self._groups.get(group, {}).get(channel)
            if before is None:
                return _nothing
            now = replace(before, row=before.row._replace(info=info, expires_at=expires_at))
            self._set(group, channel, now)
        return self._undoing(group, channel, now, before)

    def _undoing(self, group: str, channel: str, now: Hearer, before: Hearer | None) -> Callable[[], None]:
        def undo() -> None:
            with self._lock:
                if self._groups.get(group, {}).get(channel) is now:
                    self._set(group, channel, before)

        return undo

    # From the log

    def learn(self, group: str, channel: str, row: PresenceRow | None) -> bool:
        """Note what was read; return False where it must be read again, as this process has changed it meanwhile."""
        with self._lock:
            if self._own.overtook(group, channel):
                return False
            self._set(group, channel, None if row is None else Hearer(row))
            return True

    def drop_older(self, message_id: int) -> None:
        """Drop those whose list is from before the message with this id."""
        with self._lock:
            for group, hearers in list(self._groups.items()):
                for channel, hearer in list(hearers.items()):
                    if hearer.list_id < message_id:
                        self._set(group, channel, None)

    def begin_anew(self, cursor: int) -> Callable[[], None]:
        """Have all hear what comes after the message with this id, of another file or of ids that began anew."""
        with self._lock:
            before = self._groups
            self._groups = {
                group: {channel: Hearer(hearer.row._replace(heard_id=cursor)) for channel, hearer in hearers.items()}
                for group, hearers in before.items()
            }

        def undo() -> None:
            with self._lock:
                self._groups = before

        return undo

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()


def _nothing() -> None:
    pass
