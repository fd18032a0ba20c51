"""What senders need to know of the mailboxes of a process: how full each queue is, and how many receivers there are.

The mailboxes of process-specific channels that have the part up to the `!` in common are a queue: their capacity is
judged together. `mailboxes` calls this under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["Queue", "Queues", "Unread"]


class Unread(NamedTuple):
    """How far this process has read, as senders need to know it; see `models.Process`."""

    cursor: int
    held: Mapping[str, int]
    channels: int


class Queue:
    """What some mailboxes hold together."""

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


class Queues:
    """The queues of one process by name, those that have mailboxes."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self.waiting_channels = 0
        """Channels with a receiver."""
        self._published_channels = 1  # the number of them by which senders multiply
        self._many_waiting = 1  # more of them than senders should go on without
        self.due = False
        """Senders should be told: a tenth of what some queue may hold was consumed, or many more wait."""

    def admit(self, name: str, capacity: int) -> Queue:
        """Return the queue of a new mailbox."""
        queue = self._queues.get(name) or self._queues.setdefault(name, Queue(name))
        queue.admit(capacity, self._published_channels)
        return queue

    def dismiss(self, queue: Queue) -> None:
        """Note that a mailbox of it is gone."""
        queue.boxes -= 1
        if not queue.boxes:
            self._queues.pop(queue.name, None)

    def waits(self) -> None:
        """Note that there is a receiver on one more channel.

        Senders learn soon when many more sockets wait here; that fewer do, they learn within a second.
        """
        self.waiting_channels += 1
        if self.waiting_channels > self._many_waiting:
            self.due = True

    def hold(self, channels: Sequence[str], queue_of: Callable[[str], Queue]) -> None:
        """Count a message for each of `channels`."""
        if len(self._queues) == 1:  # as in most processes, even for a broadcast to thousands
            for queue in self._queues.values():
                queue.held += len(channels)
            return
        for channel in channels:
            queue_of(channel).held += 1

    def consume(self, queue: Queue, messages: int = 1) -> None:
        """Count messages that are gone."""
        queue.held -= messages
        queue.consumed += messages
        if queue.consumed >= queue.publish_every:
            self.due = True

    def held(self, name: str) -> int:
        """Return how many messages a queue holds."""
        queue = self._queues.get(name)
        return 0 if queue is None else queue.held

    def unread(self, cursor: int) -> Unread:
        """Return all of it."""
        held = {name: queue.held for name, queue in self._queues.items() if queue.held}
        return Unread(cursor, held, self.waiting_channels)

    def expect(self, channels: int) -> None:
        """Set when senders are to be told next, who know of so many receivers."""
        self._published_channels = max(1, channels)
        self._many_waiting = max(1, int(channels * 1.1))
        self.due = False
        for queue in self._queues.values():
            queue.consumed = 0
            queue.expect(self._published_channels)

    def clear(self) -> None:
        """Note that all messages are gone."""
        for queue in self._queues.values():
            queue.held = 0
