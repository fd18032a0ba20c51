"""Normal channels: claiming messages for those who wait for them, and putting back what nobody took.

A process claims exactly as many messages as it has receivers waiting: more would be lost with it. Coroutines get theirs
through the mailboxes, because they may be cancelled while a claim is under way. A thread claims one message for itself
when it is told that something waits.

Senders wake only for the first message that waits on a channel, which is enough: whoever begins to wait looks first, or
claims where the last claim saw that more is there; a claim that got less than it asked for has seen the channel empty.

Threads: as `inbox`, whose lock and mailboxes are used here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from channels_sqlite.connections import Connections
from channels_sqlite.mailboxes import Entry, Mailboxes
from channels_sqlite.outbox import Outbox, Transaction, Write
from channels_sqlite.reports import Reports
from channels_sqlite.store import ClaimedRow
from channels_sqlite.waiters import Gate, Waiter

__all__ = ["Claims"]


class Claims:
    """What one process claims from normal channels."""

    def __init__(
        self,
        client: str,
        outbox: Outbox,
        reports: Reports,
        *,
        delete: bool,
        lock: threading.Lock,
        boxes: Mailboxes,
        pull: Callable[[], None],
        notify: Callable[[Waiter], None],
    ) -> None:
        """`delete`: claimed rows are not kept. `pull` looks for messages, and `notify` wakes who can take one."""
        self._client = client
        self._outbox = outbox
        self._reports = reports
        self._delete = delete
        self._lock = lock
        self._boxes = boxes
        self._pull = pull
        self._notify = notify
        self._listening: dict[str, float] = {}  # channels and when a receiver last waited (monotonic)
        self._gates: dict[str, dict[Gate, None]] = {}  # of threads that wait
        self._plentiful: set[str] = set()  # channels on which the last claim left something

    # Which messages there are

    def ready(self, connections: Connections) -> list[str]:
        """Return the channels on which coroutines wait here and messages in the database; open the gates of threads."""
        with self._lock:
            wanted = [channel for channel in self._listening if self._missing(channel) > 0]
            watched = list(self._gates)
        if not wanted and not watched:
            return []
        waiting = connections.reader.store.channels_with_waiting(json.dumps([*wanted, *watched]), time.time())
        if watched:
            with self._lock:
                gates = [gate for channel in waiting for gate in self._gates.get(channel, ())]
            for gate in gates:
                gate.open()
        return [channel for channel in wanted if channel in waiting]

    def _missing(self, channel: str) -> int:
        box = self._boxes.find(channel)
        if box is None or box.releasing:  # what is put back comes before what would be claimed now
            return 0
        return len(box.waiters) - len(box.entries) - box.claiming

    # For coroutines

    def look(self, channel: str) -> None:
        """Look for a message for a coroutine that began to wait; where more was left than claimed, claim at once."""
        if channel in self._plentiful:
            self.claim(channel)
        else:
            self._pull()

    def claim(self, channel: str) -> None:
        """Claim as many messages as coroutines wait for."""
        with self._lock:
            limit = self._missing(channel)
            if limit <= 0:
                return
            self._boxes.open(channel).claiming += limit

        def claim(transaction: Transaction) -> None:
            rows, more = transaction.store.claim(channel, now=transaction.now, limit=limit, delete=self._delete)
            # In the order of the commits, so that two claims on two threads cannot swap their messages.
            transaction.after_commit.append(lambda: self._arrived(channel, limit, rows, more))

        self._outbox.post(claim, lambda write: self._claimed(channel, limit, write))

    def _arrived(self, channel: str, limit: int, rows: Sequence[ClaimedRow], more: bool) -> None:
        with self._lock:
            box = self._boxes.open(channel)
            box.claiming -= limit
            box.entries.extend(Entry(*row) for row in rows)
            if more:
                self._plentiful.add(channel)
            else:
                self._plentiful.discard(channel)

    def _claimed(self, channel: str, limit: int, write: Write[None]) -> None:
        if write.error is not None:
            self._arrived(channel, limit, [], more=False)
            self._reports.failed(f"claiming from channel {channel!r}", write.error)
        self.hand_on(channel)  # back to the database what came for receivers that left meanwhile

    def hand_on(self, channel: str) -> None:
        """Find somebody else for what a receiver that left was woken for."""
        with self._lock:
            box = self._boxes.find(channel)
            surplus: list[Entry] = []
            if box is not None and "!" not in channel:
                surplus = box.take_surplus()
                box.releasing += bool(surplus)
            notify = self._boxes.wakeable(channel)
        for waiter in notify:
            self._notify(waiter)
        self.release(channel, surplus)

    def release(self, channel: str, surplus: list[Entry]) -> None:
        """Put messages that nobody waits for any longer, taken out while `releasing`, back into the database."""
        if not surplus:
            return
        self._outbox.post(self._unclaim(channel, surplus), lambda write: self._released(channel, surplus, write))

    def _unclaim(self, channel: str, entries: Sequence[Entry]) -> Callable[[Transaction], None]:
        rows = [(entry.id, entry.expires_at, entry.payload) for entry in entries]

        def unclaim(transaction: Transaction) -> None:
            transaction.store.unclaim(channel, rows, now=transaction.now, deleted=self._delete)
            transaction.wake.update(transaction.store.listeners(channel))

        return unclaim

    def _released(self, channel: str, surplus: list[Entry], write: Write[None]) -> None:
        notify: list[Waiter] = []
        with self._lock:
            box = self._boxes.open(channel)
            box.releasing -= 1
            if write.error is not None:  # they stay here, for the next receiver in this process
                box.entries.extendleft(surplus)
                notify = self._boxes.wakeable(channel)
        if write.error is not None:
            self._reports.failed(f"putting {len(surplus)} messages back into channel {channel!r}", write.error)
        for waiter in notify:
            self._notify(waiter)
        self._pull()  # for receivers that came meanwhile

    # For threads

    @contextmanager
    def watched(self, channels: Sequence[str], gate: Gate) -> Iterator[None]:
        """Have `gate` opened whenever messages wait on one of `channels`."""
        with self._lock:
            new = [channel for channel in channels if self.note_waiting(channel)]
            for channel in channels:
                self._gates.setdefault(channel, {})[gate] = None
        try:
            for channel in new:
                self.listen(channel)
            yield
        finally:
            with self._lock:
                for channel in channels:
                    gates = self._gates.get(channel, {})
                    gates.pop(gate, None)
                    if not gates:
                        self._gates.pop(channel, None)

    def take_one(self, channels: Sequence[str]) -> tuple[str, Entry] | None:
        """Claim one message for the calling thread, from the first of `channels` that has one.

        It waits for the write lock; raises as `Outbox.write_blocking`. Interrupted (Ctrl-C), it puts back what it
        claimed.
        """
        for channel in channels:
            with self._lock:
                box = self._boxes.find(channel)
                if box is not None and len(box.entries) > len(box.waiters):  # what could not be put back
                    return channel, box.entries.popleft()
        claimed: list[tuple[str, Entry]] = []

        def claim(transaction: Transaction) -> None:
            taken = self.first(transaction, channels)
            if taken is not None:
                transaction.after_commit.append(partial(claimed.append, taken))

        try:
            self._outbox.write_blocking(claim)
        except BaseException:
            for channel, entry in claimed:
                self._put_back(channel, entry)
            raise
        return claimed[0] if claimed else None

    def first(self, transaction: Transaction, channels: Sequence[str]) -> tuple[str, Entry] | None:
        """Claim the oldest message of the first of `channels` that has one."""
        for channel in channels:
            rows, _ = transaction.store.claim(channel, now=transaction.now, limit=1, delete=self._delete)
            if rows:
                return channel, Entry(*rows[0])
        return None

    def _put_back(self, channel: str, entry: Entry) -> None:
        with self._lock:
            self._boxes.open(channel).releasing += 1
        self.release(channel, [entry])

    # Being woken

    def note_waiting(self, channel: str) -> bool:
        """Note, under the lock, that a receiver waits; return whether `listen` is to be called outside of it."""
        known = channel in self._listening
        self._listening[channel] = time.monotonic()
        return not known

    def listen(self, channel: str) -> None:
        """Have this process woken for messages on `channel`."""
        # What was sent before senders knew of this listener woke nobody, so it is looked for afterwards.
        self._outbox.post(lambda transaction: transaction.store.listen(channel, self._client), lambda _: self._pull())

    def listening(self) -> list[str]:
        """Return the channels that this process is woken for."""
        with self._lock:
            return list(self._listening)

    def listens(self, channel: str) -> bool:
        """Whether this process is woken for a channel."""
        with self._lock:
            return channel in self._listening

    def idle_channels(self, idle_s: float) -> list[str]:
        """Forget the channels that nobody has waited on for `idle_s` seconds, and return their names."""
        before = time.monotonic() - idle_s
        with self._lock:
            for channel in self._listening:
                box = self._boxes.find(channel)
                if channel in self._gates or (box is not None and not box.empty):
                    self._listening[channel] = time.monotonic()
            idle = [channel for channel, last in self._listening.items() if last < before]
            for channel in idle:
                del self._listening[channel]
                self._plentiful.discard(channel)
        return idle

    def fail(self, error: Exception) -> None:
        """Fail the threads that wait."""
        with self._lock:
            gates = {gate for gates in self._gates.values() for gate in gates}
        for gate in gates:
            gate.fail(error)
