"""Where messages wait inside a process, and who waits for them.

A message stays in its mailbox until a `receive()` takes it, in the same step in which it returns. Waking a receiver is
a hint and hands over nothing, so that a receiver which is cancelled, or whose loop ends, can lose nothing: what it was
woken for still lies there for the next.

Nothing here knows the database, and nothing locks: `inbox` calls it under its lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from channels_sqlite import names
from channels_sqlite.codec import Message
from channels_sqlite.counters import Counters
from channels_sqlite.waiters import Waiter

__all__ = ["Entry", "Mailbox", "Mailboxes"]


@dataclass(slots=True)
class Entry:
    """A message that waits, still encoded; a broadcast's entry is shared by all its members."""

    id: int
    expires_at: float  # seconds since 1970
    payload: bytes
    shared: bool = field(default=False, compare=False)
    template: Message | None = field(default=None, compare=False)
    """The message, to be copied for each member; None when it was not decoded yet, or is more than a flat dict."""


class Mailbox:
    """What waits on one channel: messages in order of their ids, receivers in order of their calls."""

    __slots__ = (
        "capacity",
        "channel",
        "claiming",
        "entries",
        "of_queue",
        "queue",
        "releasing",
        "specific",
        "waiters",
        "woken",
    )

    def __init__(self, channel: str, capacity: int) -> None:
        self.channel = channel
        self.queue = names.queue_of(channel)
        self.specific = "!" in channel
        self.of_queue = channel == self.queue and self.specific  # for receivers of all names of the queue
        self.capacity = capacity
        self.entries: deque[Entry] = deque()
        self.waiters: dict[Waiter, None] = {}
        self.woken = 0  # waiters that were woken and have not come back yet
        self.claiming = 0  # messages of a normal channel asked for and not here yet
        self.releasing = 0  # transactions under way that put messages of a normal channel back

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

    def take_surplus(self) -> list[Entry]:
        """Take out the newest messages that nobody waits for, newest first.

        Not while more of them are on their way here: what goes back and what comes must not overtake each other.
        """
        if self.claiming:
            return []
        return [self.entries.pop() for _ in range(len(self.entries) - len(self.waiters))]

    def drop_expired(self, now: float) -> int:
        """Drop what is past its expiry and return how many. Ids order the entries, expiries nearly so."""
        entries = self.entries
        before = len(entries)
        while entries and entries[0].expires_at <= now:
            entries.popleft()
        return before - len(entries)

    @property
    def empty(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.entries or self.waiters or self.claiming or self.releasing)


class Mailboxes:
    """The mailboxes of one process by channel name; a sweep forgets those in which nothing is left.

    A receiver may wait on one process-specific channel, or on all names with its part up to the `!`: the latter's
    mailbox never holds messages, it is served from those of the full names.
    """

    def __init__(self, capacity_of: Callable[[str], int], counters: Counters) -> None:
        self._capacity_of = capacity_of
        self._counters = counters
        self._boxes: dict[str, Mailbox] = {}
        self.find: Callable[[str], Mailbox | None] = self._boxes.get
        """Returns the mailbox of a channel if there is one."""
        self._queue_waiters = 0  # receivers that wait for all names of a queue
        self.held = 0  # messages for process-specific channels
        self.waiting_channels = 0  # process-specific channels with a receiver

    def __len__(self) -> int:
        return len(self._boxes)

    def __iter__(self) -> Iterator[tuple[str, Mailbox]]:
        return iter(list(self._boxes.items()))

    def open(self, channel: str) -> Mailbox:
        """Return the mailbox of `channel`, made if need be."""
        box = self._boxes.get(channel)
        if box is None:
            box = self._boxes[channel] = Mailbox(channel, self._capacity_of(channel))
        return box

    # Waiters

    def add_waiter(self, waiter: Waiter) -> Mailbox:
        """Let `waiter` stand in line on its channel; return the mailbox of that."""
        waiter.box = box = self.find(waiter.channel) or self.open(waiter.channel)
        if box.specific:
            self.waiting_channels += not box.waiters
            self._queue_waiters += box.of_queue
        box.waiters[waiter] = None
        return box

    def remove_waiter(self, waiter: Waiter) -> bool:
        """Take `waiter` out of the line; return whether it stood there."""
        box = self._boxes.get(waiter.channel)
        if box is None or not box.remove(waiter):
            return False
        if box.specific:
            self.waiting_channels -= not box.waiters
            self._queue_waiters -= box.of_queue
        return True

    def _evict(self, channel: str, gone: Callable[[Waiter], bool]) -> bool:
        box = self._boxes[channel]
        before = len(box.waiters)
        if not before or not box.evict(gone):
            return False
        if box.specific:
            self.waiting_channels -= not box.waiters
            if box.of_queue:
                self._queue_waiters -= before - len(box.waiters)
        return True

    # Process-specific channels

    def put(self, channels: Sequence[str], entry: Entry, now: float) -> tuple[int, list[Waiter]]:
        """Put a message into the mailboxes of process-specific channels.

        Returns how many had no room, and the waiters to notify. This loop is most of what a broadcast costs.
        """
        find = self.find
        full = 0
        notify: list[Waiter] = []
        for channel in channels:
            box = find(channel) or self.open(channel)
            entries = box.entries
            if len(entries) >= box.capacity:
                self._drop_expired(box, now)
                if len(entries) >= box.capacity:
                    full += 1
                    continue
            entries.append(entry)
            waiter: Waiter | None = None
            if box.waiters and not box.of_queue:
                if box.woken:
                    waiter = box.next_to_wake(len(entries))
                else:
                    waiter = next(iter(box.waiters))
                    waiter.woken = True
                    box.woken = 1
            if waiter is None and self._queue_waiters:
                waiter = self.wake_for_queue(box.queue)
            if waiter is not None:
                notify.append(waiter)
        self.held += len(channels) - full
        return full, notify

    def wakeable(self, channel: str) -> list[Waiter]:
        """Return the receivers to notify on `channel`, and on its queue, for the messages that are there."""
        waiters: list[Waiter] = []
        box = self._boxes.get(channel)
        if box is not None and not box.of_queue:
            waiters.extend(iter(lambda: box.next_to_wake(len(box.entries)), None))
        if self._queue_waiters and "!" in channel:
            queue = names.queue_of(channel)
            waiters.extend(iter(lambda: self.wake_for_queue(queue), None))
        return waiters

    def wake_for_queue(self, queue: str) -> Waiter | None:
        """Return a receiver to notify that waits for all names of `queue`, if messages are left for it."""
        box = self._boxes.get(queue)
        if box is None or not box.waiters:
            return None
        return box.next_to_wake(self._unattended(queue))

    def _unattended(self, queue: str) -> int:
        """Return how many messages lie in mailboxes of `queue` beyond those that their own receivers are woken for."""
        return sum(
            len(box.entries) - (box.woken if name != queue else 0)
            for name, box in self._boxes.items()
            if name.startswith(queue)
        )

    def take(self, channel: str, now: float, *, woken: bool) -> tuple[str, Entry] | None:
        """Take the oldest unexpired message for a receiver on `channel`: the full channel name and the entry.

        A receiver that was not woken (`woken` is False) leaves the messages that others have been woken for.
        """
        box = self._boxes.get(channel)
        if box is None or box.of_queue:
            return self._take_of_queue(channel, now, woken=woken) if channel.endswith("!") else None
        entries = box.entries
        if entries and entries[0].expires_at <= now:
            self._drop_expired(box, now)
        if not entries or (not woken and len(entries) <= box.woken and not self._evict(channel, _gone)):
            return None
        self.held -= box.specific
        return channel, entries.popleft()

    def take_woken(self, waiter: Waiter, now: float) -> tuple[str, Entry] | None:
        """Take `waiter` out of the line, and the message that it was woken for; None when another receiver has that."""
        box = waiter.box
        # Who is marked as woken stands in line, and a mailbox with somebody in line is not forgotten.
        if waiter.woken and box is not None and not box.of_queue:
            entries = box.entries
            if entries and entries[0].expires_at > now:
                del box.waiters[waiter]
                waiter.woken = False
                box.woken -= 1
                if box.specific:
                    self.held -= 1
                    if not box.waiters:
                        self.waiting_channels -= 1
                return box.channel, entries.popleft()
        self.remove_waiter(waiter)
        return self.take(waiter.channel, now, woken=waiter.woken)

    def _take_of_queue(self, queue: str, now: float, *, woken: bool) -> tuple[str, Entry] | None:
        """Take the oldest message that a receiver on the whole queue may take."""
        line = self._boxes.get(queue)
        if line is not None and not woken and self._unattended(queue) <= line.woken:
            if not self._evict(queue, _gone):
                return None
        oldest: str | None = None
        lowest = 0
        for name, box in self:
            if not name.startswith(queue):
                continue
            self._drop_expired(box, now)
            if len(box.entries) > (box.woken if name != queue else 0):
                if oldest is None or box.entries[0].id < lowest:
                    oldest, lowest = name, box.entries[0].id
        if oldest is None:
            return None
        self.held -= 1
        return oldest, self._boxes[oldest].entries.popleft()

    def drop_all_expired(self, now: float) -> int:
        """Drop every expired message; return how many."""
        return sum(self._drop_expired(box, now) for _, box in self if box.entries)

    def sweep(self, now: float, *, all_waiters: bool) -> tuple[int, list[str]]:
        """Drop expired messages, who was woken a sweep ago and has not come, and mailboxes in which nothing is left.

        With `all_waiters` those who were not woken and are gone are found as well. Mailboxes in which somebody just
        waits, the most by far, are passed over. Returns how many messages have expired, and the channels where
        somebody was taken out of line: their messages are for others now.
        """
        dropped = 0
        evicted = []
        # A mailbox is not forgotten as soon as it is empty: that of a busy receiver would be made for every message.
        for name, box in [
            (name, box)
            for name, box in self._boxes.items()
            if all_waiters or box.entries or box.woken or not box.waiters
        ]:
            dropped += self._drop_expired(box, now)
            if self._evict(name, _stuck):
                evicted.append(name)
            if box.empty:
                del self._boxes[name]
        return dropped, evicted

    def _drop_expired(self, box: Mailbox, now: float) -> int:
        dropped = box.drop_expired(now)
        if box.specific:
            self.held -= dropped
        self._counters.dropped_expired += dropped
        return dropped

    def clear(self) -> None:
        """Drop every message; receivers keep waiting."""
        for box in self._boxes.values():
            box.entries.clear()
        self.held = 0


def _gone(waiter: Waiter) -> bool:
    return waiter.gone


def _stuck(waiter: Waiter) -> bool:
    stuck = waiter.gone or waiter.late
    waiter.late = waiter.woken
    return stuck
