"""One channel's messages that wait, and who waits for them: called under the lock of the `lines` that it belongs to."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable

from channels_sqlite.delivery.consumers import Consumer
from channels_sqlite.delivery.entries import Entry, merged
from channels_sqlite.delivery.queues import Queue

__all__ = ["Box", "Mailbox", "Waiter"]


class Waiter:
    """One waiting `receive()`, standing in line on one channel."""

    __slots__ = ("box", "channel", "late", "woken")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.box: Box | None = None  # in which it stands in line
        self.woken = False
        self.late = False  # was woken before the last sweep and has not come since

    @property
    def gone(self) -> bool:
        """Whether nobody can come any more."""
        raise NotImplementedError

    def notify(self, here: asyncio.AbstractEventLoop | None) -> bool:
        """Wake it, from any thread, in which the loop `here` runs; return False when it is gone."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """End its waiting with an error, from any thread."""
        raise NotImplementedError


class Box:
    """What waits on one channel: messages in order of their ids, receivers in order of their calls."""

    __slots__ = ("channel", "entries", "waiters", "woken")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.entries: deque[Entry] = deque()
        self.waiters: dict[Waiter, None] = {}
        self.woken = 0  # waiters that were woken and have not come back yet

    def next_to_wake(self, messages: int) -> Waiter | None:
        """Return a waiter to wake when there are more `messages` than woken waiters, marked as woken."""
        if messages <= self.woken or self.woken >= len(self.waiters):
            return None
        for waiter in self.waiters:  # the woken ones stand at the front
            if not waiter.woken:
                waiter.woken = True
                self.woken += 1
                return waiter
        return None

    def wakeable(self) -> list[Waiter]:
        """Return those to wake for the messages here, marked as woken."""
        return list(iter(lambda: self.next_to_wake(len(self.entries)), None))

    def remove(self, waiter: Waiter) -> bool:
        """Take `waiter` out of the line; return whether it stood there."""
        if waiter not in self.waiters:
            return False
        del self.waiters[waiter]
        if waiter.woken:
            self.woken -= 1
        return True

    def evict(self, gone: Callable[[Waiter], bool]) -> bool:
        """Take the waiters that are `gone` out of the line; return whether there were any.

        One of them that comes all the same finds itself unwoken, and takes or waits like a newcomer.
        """
        evicted = [waiter for waiter in self.waiters if gone(waiter)]
        for waiter in evicted:
            self.remove(waiter)
            waiter.woken = False
        return bool(evicted)

    def drop_expired(self, now: float, *, mixed: bool) -> int:
        """Drop what is past its expiry and return how many.

        Ids order the entries, and expiries nearly so; where they are `mixed`, one may expire before those in front.
        """
        entries = self.entries
        before = len(entries)
        while entries and entries[0].expires_at <= now:
            entries.popleft()
        mixed = mixed or bool(entries and entries[0].diff_of is not None)
        if mixed and any(entry.expires_at <= now for entry in entries):
            self._keep(entry for entry in self.entries if entry.expires_at > now)
        return before - len(entries)

    def drop_messages(self) -> None:
        """Drop all but what tells of presences."""
        self._keep(entry for entry in self.entries if entry.diff_of is not None)

    def _keep(self, entries: Iterable[Entry]) -> int:
        """Drop all but these; return how many were dropped. The deque stays the one that callers have in hand."""
        kept = list(entries)
        dropped = len(self.entries) - len(kept)
        if dropped:
            self.entries.clear()
            self.entries.extend(kept)
        return dropped

    @property
    def empty(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.entries or self.waiters)


class Mailbox(Box):
    """That of a process-specific channel, or for the receivers of all names of a queue."""

    __slots__ = ("capacity", "consumer", "diffs", "of_queue", "queue")

    def __init__(self, channel: str, capacity: int, queue: Queue) -> None:
        super().__init__(channel)
        self.capacity = capacity
        self.queue = queue
        self.of_queue = channel == queue.name  # for receivers of all names of the queue; it holds no messages
        self.consumer: Consumer | None = None  # who received last, where that is known
        self.diffs = 0  # messages that tell of presences: they take no capacity, and are not counted by the queue

    @property
    def abandoned(self) -> bool:
        """Whether the latest receive() was cancelled, or its consumer has ended, and nobody has come since."""
        return self.consumer is not None and not self.waiters and self.consumer.ended

    def has_lapsed(self, now: float) -> bool:
        """Whether whoever has not received a diff that lies here may be gone."""
        return any(entry.lapses_at <= now for entry in self.entries if entry.diff_of is not None)

    def put_diff(self, entry: Entry) -> bool:
        """Put in what tells of a presence; return whether there are more of these than the capacity."""
        self.entries.append(entry)
        self.diffs += 1
        return self.diffs > self.capacity

    def put_together(
        self, known: dict[tuple[int, ...], list[Entry]], limit_bytes: int, list_id: Callable[[str, str], float]
    ) -> None:
        """Make one diff of those that are here of each group, in the place of the last.

        `known` has what was put together for other channels. `list_id` says of a group and a channel up to which id its
        list has taken in what has changed, or will have: what is older is about to be withdrawn, and left alone.
        """
        by_group: dict[str, list[Entry]] = {}
        for entry in self.entries:
            if entry.diff_of is not None and entry.id > list_id(entry.diff_of, self.channel):
                by_group.setdefault(entry.diff_of, []).append(entry)
        # By the very entries: one that was put together before has the id of its last part, and what a flush tells of
        # several groups has one id.
        whole: dict[int, list[Entry]] = {}  # in the place of the last
        parts: set[int] = set()
        for entries in by_group.values():
            if len(entries) < 2:
                continue
            these = tuple(map(id, entries))
            if these not in known:
                known[these] = merged(entries, limit_bytes)
            whole[these[-1]] = known[these]
            parts.update(these)
        kept: deque[Entry] = deque()
        for entry in self.entries:
            if id(entry) in whole:
                kept.extend(whole[id(entry)])
            elif id(entry) not in parts:
                kept.append(entry)
        self.entries = kept
        self.diffs = sum(entry.diff_of is not None for entry in kept)

    def withdraw_diffs(self, group: str, up_to: float = math.inf) -> None:
        """Drop the diffs of `group`, up to an id."""
        if self.diffs:
            self.diffs -= self._keep(entry for entry in self.entries if entry.diff_of != group or entry.id > up_to)

    def drop_broadcasts(self) -> int:
        """Drop what it got as a member of groups, and what tells of presences; return how many messages those were."""
        dropped = self._keep(entry for entry in self.entries if not entry.shared)
        messages = dropped - self.diffs
        self.diffs = 0
        return messages

    def drop_all(self) -> int:
        """Drop what is here; return how many messages there were."""
        messages = len(self.entries) - self.diffs
        self.entries.clear()
        self.diffs = 0
        return messages

    def withdraw_kept(self, group: str, after: int, up_to: int) -> list[Entry]:
        """Take out what a group with history was sent, with `after` < id <= `up_to`."""
        taken = [entry for entry in self.entries if entry.group == group and after < entry.id <= up_to]
        if taken:
            these = set(map(id, taken))
            self._keep(entry for entry in self.entries if id(entry) not in these)
        return taken

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Give entries their places back."""
        self.entries = deque(sorted((*self.entries, *entries), key=lambda entry: entry.id))
