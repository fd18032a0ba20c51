"""One channel's messages that wait, and who waits for them. `mailboxes` calls this under its lock."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from channels_sqlite.codec import Message
from channels_sqlite.delivery.consumers import Consumer

__all__ = ["Entry", "Mailbox", "Queue", "Waiter"]


@dataclass(slots=True)
class Entry:
    """A message that waits, still encoded; a broadcast's entry is shared by all its members."""

    id: int
    expires_at: float  # seconds since 1970
    payload: bytes
    shared: bool = field(default=False, compare=False)
    position: str = ""
    """What the message is given as its `__position__`; "" for one that is of no group with history."""
    group: str = ""
    """The group with history that it was sent to, on process-specific channels."""
    template: Message | None = field(default=None, compare=False)
    """The message, to be copied for each member; None when it was not decoded yet, or is more than a flat dict."""


class Waiter:
    """One waiting `receive()`, standing in line on one channel."""

    __slots__ = ("box", "channel", "late", "woken")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.box: Mailbox | None = None  # in which it stands in line
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


class Queue:
    """What the mailboxes of process-specific channels share that have the part up to the `!` in common."""

    __slots__ = ("boxes", "capacity", "consumed", "held", "name", "publish_every")

    def __init__(self, name: str) -> None:
        self.name = name
        self.boxes = 0
        self.held = 0  # messages in them
        self.capacity = 0  # the least of theirs
        self.consumed = 0  # messages received or dropped since senders were last told
        self.publish_every = 1  # of them

    def expect(self, channels: int) -> None:
        """Set when to publish next, with so many receivers: after a tenth of what they may leave unread."""
        self.publish_every = max(1, self.capacity * channels // 10)

    def admit(self, capacity: int, channels: int) -> None:
        """Take in one more mailbox."""
        self.capacity = min(self.capacity, capacity) if self.boxes else capacity
        self.boxes += 1
        self.expect(channels)


class Mailbox:
    """What waits on one channel: messages in order of their ids, receivers in order of their calls."""

    __slots__ = (
        "capacity",
        "channel",
        "claiming",
        "consumer",
        "entries",
        "of_queue",
        "queue",
        "releasing",
        "specific",
        "waiters",
        "woken",
    )

    def __init__(self, channel: str, capacity: int, queue: Queue) -> None:
        self.channel = channel
        self.queue = queue
        self.specific = "!" in channel
        self.of_queue = channel == queue.name and self.specific  # for receivers of all names of the queue
        self.consumer: Consumer | None = None  # who received last on a process-specific channel, where that is known
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

    def drop_expired(self, now: float, *, mixed: bool) -> int:
        """Drop what is past its expiry and return how many.

        Ids order the entries, and expiries nearly so; where they are `mixed`, one may expire before those in front.
        """
        entries = self.entries
        before = len(entries)
        while entries and entries[0].expires_at <= now:
            entries.popleft()
        if mixed and any(entry.expires_at <= now for entry in entries):
            kept = [entry for entry in entries if entry.expires_at > now]
            entries.clear()
            entries.extend(kept)
        return before - len(entries)

    @property
    def abandoned(self) -> bool:
        """Whether the latest receive() was cancelled, or its consumer has ended, and nobody has come since."""
        return self.consumer is not None and not self.waiters and self.consumer.ended

    @property
    def empty(self) -> bool:
        """Whether it can be forgotten."""
        return not (self.entries or self.waiters or self.claiming or self.releasing)
