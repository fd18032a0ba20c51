"""Normal channels: claiming messages for those who wait for them, and putting back what nobody took.

A process claims exactly as many messages as it has receivers waiting: more would be lost with it. Coroutines get theirs
through their boxes, because they may be cancelled while a claim is under way. A thread claims one message for itself
when it is told that something waits.

Senders wake only for the first message that waits on a channel, which is enough: whoever begins to wait looks first, or
claims where the last claim saw that more is there; a claim that got less than it asked for has seen the channel empty.

Threads: everything may be called from any thread. `_lock` guards which channels this process listens to, and nothing is
locked inside it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from channels_sqlite import names
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.concurrency.reentry import exclusive
from channels_sqlite.delivery.claimed_boxes import ClaimedBoxes
from channels_sqlite.delivery.entries import Entry, claimed
from channels_sqlite.delivery.epochs import Epochs, copy_of
from channels_sqlite.delivery.lines import Taken
from channels_sqlite.delivery.reader import Reader
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections
from channels_sqlite.storage.messages import ClaimedRow
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import GivenUpError, Transaction, Write

__all__ = ["Claims"]


class Claims:
    """What one process claims from normal channels."""

    def __init__(
        self,
        client: str,
        outbox: Outbox,
        boxes: ClaimedBoxes,
        reader: Reader,
        reports: Reports,
        *,
        epochs: Epochs,
        delete: bool,
    ) -> None:
        """`delete`: claimed rows are not kept."""
        self._client = client
        self._outbox = outbox
        self._boxes = boxes
        self._reader = reader
        self._reports = reports
        self._epochs = epochs
        self._delete = delete
        self._lock = threading.Lock()  # guards all that follows; nothing is waited for inside
        self._closed = False  # no thread waits here any more
        self._listening: dict[str, float] = {}  # channels and when a receiver last waited (monotonic)
        self._gates: dict[str, dict[Gate, None]] = {}  # of threads that wait
        self._plentiful: set[str] = set()  # channels on which the last claim left something
        self._ready: list[str] = []  # channels that the step of reading in hand found something on
        boxes.on_left = self.hand_on
        reader.register(self)

    # Which messages there are

    def read(self, connections: Connections, *, behind: bool) -> bool:
        """Find the channels on which coroutines wait here and messages in the database; open the gates of threads."""
        if not behind:
            return False
        with self._lock:
            channels = list(self._listening)
            watched = list(self._gates)
        wanted = self._boxes.wanting(channels) if channels else []
        if not wanted and not watched:
            return False
        waiting = connections.reader.store.channels_with_waiting(json.dumps([*wanted, *watched]), time.time())
        if watched:
            # Workers look for themselves whether a task is there for them.
            ringing = [*waiting, *(channel for channel in watched if channel.startswith(names.TASKS))]
            with self._lock:
                gates = [gate for channel in ringing for gate in self._gates.get(channel, ())]
            for gate in gates:
                gate.open()
        self._ready = [channel for channel in wanted if channel in waiting]
        self._reader.found += len(self._ready)
        return False

    def follow(self) -> None:
        """Claim from the channels that the step has found."""
        ready, self._ready = self._ready, []
        for channel in ready:
            self.claim(channel)

    # For coroutines

    def look(self, channel: str) -> None:
        """Look for a message for a coroutine that began to wait; where more was left than claimed, claim at once."""
        if channel in self._plentiful:
            self.claim(channel)
        else:
            self._reader.pull()

    def claim(self, channel: str) -> None:
        """Claim as many messages as coroutines wait for."""
        count = self._boxes.ask_for(channel)
        if not count:
            return

        def claim(transaction: Transaction) -> None:
            rows, more = transaction.store.claim(channel, now=transaction.now, limit=count, delete=self._delete)
            entries = [self._entry(transaction.store, row) for row in rows]
            # In the order of the commits, so that two claims on two threads cannot swap their messages.
            transaction.after_commit.append(lambda: self._arrived(channel, count, entries, more=more))

        self._outbox.post(claim, lambda write: self._claimed(channel, count, write))

    def _entry(self, store: Store, row: ClaimedRow) -> Entry:
        entry = claimed(row)
        local = row[-1]
        if local is not None and entry.diff_of is None:
            entry.position = self._epochs.position_of_copy(store, local)
        return entry

    def _arrived(self, channel: str, asked: int, entries: Sequence[Entry], *, more: bool) -> None:
        self._boxes.arrived(channel, asked, entries)
        if more:
            self._plentiful.add(channel)
        else:
            self._plentiful.discard(channel)

    def _claimed(self, channel: str, asked: int, write: Write[None]) -> None:
        if write.error is not None:
            self._arrived(channel, asked, [], more=False)
            self._reports.failed(f"claiming from channel {channel!r}", write.error)
        self.hand_on(channel)  # back to the database what came for receivers that left meanwhile

    def hand_on(self, channel: str) -> None:
        """Find somebody else for what a receiver that left was woken for; else put it back into the database."""
        surplus = self._boxes.pass_on(channel)
        if surplus:
            self._put_back(channel, surplus)

    def _put_back(self, channel: str, surplus: Sequence[Entry]) -> None:
        """Put messages back, newest first, of which the boxes know that they are on their way."""
        self._outbox.post(self._unclaim(channel, surplus), lambda write: self._released(channel, surplus, write))

    def _unclaim(self, channel: str, entries: Sequence[Entry]) -> Callable[[Transaction], None]:
        def unclaim(transaction: Transaction) -> None:
            left = [entry for entry in entries if _is_wanted(transaction, channel, entry)]
            rows = [
                (entry.id, entry.expires_at, entry.payload, entry.diff_of or copy_of(entry.position)) for entry in left
            ]
            transaction.store.unclaim(channel, rows, now=transaction.now, deleted=self._delete)
            transaction.wake.update(transaction.store.listeners(channel))

        return unclaim

    def _released(self, channel: str, surplus: Sequence[Entry], write: Write[None]) -> None:
        if write.error is None:
            self._boxes.released(channel)
        else:  # they stay here, for the next receiver in this process, or who closes
            self._boxes.released(channel, surplus)
            self._reports.failed(f"putting {len(surplus)} messages back into channel {channel!r}", write.error)
        self._reader.pull()  # for receivers that came meanwhile

    # For threads

    @contextmanager
    def watched(self, channels: Sequence[str], gate: Gate) -> Iterator[None]:
        """Have `gate` opened whenever messages wait on one of `channels`."""
        with exclusive, self._lock:
            if self._closed:
                raise LayerClosedError("the channel layer was closed")
            new = [channel for channel in channels if self._note_waiting(channel)]
            for channel in channels:
                self._gates.setdefault(channel, {})[gate] = None
        try:
            for channel in new:
                with exclusive:
                    self._listen(channel)
            yield
        finally:
            with exclusive, self._lock:
                for channel in channels:
                    gates = self._gates.get(channel, {})
                    gates.pop(gate, None)
                    if not gates:
                        self._gates.pop(channel, None)

    def take_one(self, channels: Sequence[str], give_up: Callable[[], bool]) -> Taken | None:
        """Claim one message for the calling thread, from the first of `channels` that has one.

        It waits for the write lock until `give_up` says so; raises as `Outbox.write_blocking`. Interrupted (Ctrl-C), it
        puts back what it claimed.
        """
        left_over = self._boxes.take_left_over(channels)  # what could not be put back
        if left_over is not None:
            return left_over
        claimed: list[Taken] = []

        def claim(transaction: Transaction) -> None:
            taken = self.first(transaction, channels)
            if taken is not None:
                transaction.after_commit.append(partial(claimed.append, taken))

        try:
            self._outbox.write_blocking(claim, give_up=give_up)
        except GivenUpError:
            return None
        except BaseException:
            for channel, entry in claimed:
                self._boxes.release(channel)
                self._put_back(channel, [entry])
            raise
        return claimed[0] if claimed else None

    def first(self, transaction: Transaction, channels: Sequence[str]) -> Taken | None:
        """Claim the oldest message of the first of `channels` that has one."""
        for channel in channels:
            rows, _ = transaction.store.claim(channel, now=transaction.now, limit=1, delete=self._delete)
            if rows:
                return channel, self._entry(transaction.store, rows[0])
        return None

    # Closing

    def shut(self) -> set[Gate]:
        """Let no thread wait any more; return the gates of those that do."""
        with self._lock:
            self._closed = True
            return {gate for gates in self._gates.values() for gate in gates}

    def put_back_in(self, transaction: Transaction, left: Mapping[str, Sequence[Entry]]) -> None:
        """Put what was claimed and not received into its places, and have others look for it."""
        for channel, entries in left.items():
            self._unclaim(channel, entries)(transaction)

    # Being woken

    def note_waiting(self, channel: str) -> None:
        """Note that a coroutine waits on a channel, and have this process woken for it."""
        with self._lock:
            new = self._note_waiting(channel)
        if new:
            self._listen(channel)

    def _note_waiting(self, channel: str) -> bool:
        known = channel in self._listening
        self._listening[channel] = time.monotonic()
        return not known

    def _listen(self, channel: str) -> None:
        # What was sent before senders knew of this listener woke nobody, so it is looked for afterwards.
        self._outbox.post(
            lambda transaction: transaction.store.listen(channel, self._client), lambda _: self._reader.pull()
        )

    def listening(self) -> list[str]:
        """Return the channels that this process is woken for."""
        with self._lock:
            return list(self._listening)

    def forget_idle(self, idle_s: float) -> None:
        """Be woken no more for the channels that nobody has waited on for `idle_s` seconds."""
        before = time.monotonic() - idle_s
        in_use = self._boxes.in_use(self.listening())
        with self._lock:
            for channel in self._listening:
                if channel in self._gates or channel in in_use:
                    self._listening[channel] = time.monotonic()
            idle = [channel for channel, last in self._listening.items() if last < before]
            for channel in idle:
                del self._listening[channel]
                self._plentiful.discard(channel)
        for channel in idle:
            self._unlisten(channel)

    def _unlisten(self, channel: str) -> None:
        def apply(transaction: Transaction) -> None:
            with self._lock:
                listens = channel in self._listening  # a receiver may have come since
            if not listens:
                transaction.store.unlisten(channel, self._client)

        self._outbox.run_patiently(apply)

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()


def _is_wanted(transaction: Transaction, channel: str, entry: Entry) -> bool:
    """Whether a message may go back: a diff may not, where the channel does not hear it any more, or has a new list."""
    if entry.diff_of is None:
        return True
    row = transaction.store.presence(entry.diff_of, "", channel)
    return row is not None and row.heard_id < entry.id
