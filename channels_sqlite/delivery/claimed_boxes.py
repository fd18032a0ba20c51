"""What was claimed from normal channels, until a receiver takes it; see `claims`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from channels_sqlite.counters import Counters
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.delivery.lines import Lines, Taken
from channels_sqlite.delivery.mailbox import Box

__all__ = ["ClaimedBoxes"]


class ClaimedBox(Box):
    """That of one normal channel."""

    __slots__ = ("claiming", "releasing")

    def __init__(self, channel: str) -> None:
        super().__init__(channel)
        self.claiming = 0  # messages asked for and not here yet
        self.releasing = 0  # transactions under way that put messages back

    @property
    def missing(self) -> int:
        """How many more receivers wait than messages are here or were asked for; less than 0: than wait."""
        if self.releasing:  # what is put back comes before what would be claimed now
            return 0
        return len(self.waiters) - len(self.entries) - self.claiming

    def take_surplus(self) -> list[Entry]:
        """Take out the newest messages that nobody waits for, newest first.

        Not while more of them are on their way here: what goes back and what comes must not overtake each other.
        """
        if self.claiming:
            return []
        return [self.entries.pop() for _ in range(len(self.entries) - len(self.waiters))]

    @property
    def empty(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.entries or self.waiters or self.claiming or self.releasing)


class ClaimedBoxes(Lines[ClaimedBox]):
    """The boxes of the normal channels of one process."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters = counters

    def _box_of(self, channel: str) -> ClaimedBox:
        return self._boxes.get(channel) or self._boxes.setdefault(channel, ClaimedBox(channel))

    # Claiming

    def wanting(self, channels: Iterable[str]) -> list[str]:
        """Return those on which more receivers wait than messages are here or were asked for."""
        with self._lock:
            return [channel for channel in channels if self._missing(channel) > 0]

    def _missing(self, channel: str) -> int:
        box = self._boxes.get(channel)
        return 0 if box is None else box.missing

    def ask_for(self, channel: str) -> int:
        """Return how many messages to claim now; `arrived` is called for as many."""
        with self._lock:
            count = 0 if self._closed else max(0, self._missing(channel))
            if count:
                self._box_of(channel).claiming += count
            return count

    def arrived(self, channel: str, asked: int, entries: Iterable[Entry]) -> None:
        """Put in what was claimed of the messages `asked` for. Receivers are notified by `pass_on`."""
        with self._lock:
            box = self._box_of(channel)
            box.claiming -= asked
            box.entries.extend(entries)

    def take_left_over(self, channels: Iterable[str]) -> Taken | None:
        """Take a message that nobody waits for, from the first of `channels` that has one."""
        with self._lock:
            for channel in channels:
                box = self._boxes.get(channel)
                if box is not None and len(box.entries) > len(box.waiters):
                    return channel, box.entries.popleft()
        return None

    def in_use(self, channels: Iterable[str]) -> set[str]:
        """Return those of `channels` that have messages or receivers."""
        with self._lock:
            return {name for name in channels if (box := self._boxes.get(name)) is not None and not box.empty}

    # Putting back

    def pass_on(self, channel: str) -> list[Entry]:
        """Notify receivers for what lies on a channel, and take out what there are none for.

        `released` is called for what is returned. Once closed this does nothing: whoever closes puts back all of it.
        """
        surplus: list[Entry] = []
        with self._lock:
            if self._closed:
                return surplus
            box = self._boxes.get(channel)
            if box is not None:
                surplus = box.take_surplus()
                box.releasing += bool(surplus)
            waiters = self._wakeable(channel)
        self._notify(waiters)
        return surplus

    def release(self, channel: str) -> None:
        """Note that a message which never lay here goes back; `released` is called for it."""
        with self._lock:
            self._box_of(channel).releasing += 1

    def released(self, channel: str, back: Sequence[Entry] = ()) -> None:
        """Note that a transaction which puts messages back has ended; `back` stays here: it has failed."""
        with self._lock:
            box = self._box_of(channel)
            box.releasing -= 1
            box.entries.extendleft(back)  # newest first
            waiters = self._wakeable(channel) if back and not self._closed else []
        self._notify(waiters)

    def hold_any(self) -> bool:
        """Whether messages lie here."""
        with self._lock:
            return any(box.entries for box in self._boxes.values())

    def take_all(self) -> dict[str, list[Entry]]:
        """Take out all messages, by channel."""
        with self._lock:
            left = {name: list(box.entries) for name, box in self._boxes.items() if box.entries}
            for name in left:
                self._boxes[name].entries.clear()
        return left

    def clear(self) -> None:
        """Drop every message, but for what tells of presences; receivers keep waiting."""
        with self._lock:
            for box in self._boxes.values():
                box.drop_messages()

    # Sweeping

    def sweep(self) -> list[str]:
        """Drop expired messages, who was woken a sweep ago and has not come, and boxes in which nothing is left.

        Returns the channels where somebody was taken out of line: their messages are for others now.
        """
        now = time.time()
        evicted = []
        with self._lock:
            for name, box in list(self._boxes.items()):
                self._drop_expired(box, now)
                if self._evict_stuck(box):
                    evicted.append(name)
                if box.empty:
                    del self._boxes[name]
        return evicted

    def _drop_expired(self, box: ClaimedBox, now: float) -> None:
        self._counters.dropped_expired += box.drop_expired(now, mixed=True)
