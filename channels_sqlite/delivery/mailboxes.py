"""The mailboxes of process-specific channels: where messages of the log wait inside a process.

Threads: as `lines`, whose lock guards all that is here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from channels_sqlite import names
from channels_sqlite.counters import Counters
from channels_sqlite.delivery.consumers import CANCELLED, Consumer, consumer_of
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.delivery.gaps import Gaps
from channels_sqlite.delivery.lines import Lines, Taken
from channels_sqlite.delivery.mailbox import Mailbox, Waiter
from channels_sqlite.delivery.queues import Queue, Queues, Unread
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.options import Options

__all__ = ["Mailboxes"]

C = TypeVar("C")
W = TypeVar("W", bound=Waiter)


class Hearing(Protocol):
    """Who hears of presences; see `audience`. It is asked under the lock, and takes none."""

    def hears(self, group: str, channel: str, message_id: int) -> bool:
        """Whether a diff is for one channel."""

    def list_id(self, group: str, channel: str) -> float:
        """Return the newest id that a list of this channel's own has taken in, or will have; -1 where it has none."""


class Mailboxes(Lines[Mailbox]):
    """The mailboxes of one process by channel name.

    A receiver may wait on one channel, or on all names with its part up to the `!`: the latter's mailbox never holds
    messages, it is served from those of the full names.
    """

    def __init__(self, options: Options, counters: Counters) -> None:
        super().__init__()
        self._options = options
        self._counters = counters
        self._queues = Queues()
        self._queue_waiters = 0  # receivers that wait for all names of a queue
        self.cursor = 0
        """The id up to which the log was read: all of it that is for this process lies here, or did."""
        self._latest_expiry = 0.0  # of all messages that were put in (seconds since 1970)
        self._mixed_until = 0.0  # until then some may expire before others that came earlier (seconds since 1970)
        # Kept for channels without a mailbox that a group has as members: who received there last.
        self._absent: dict[str, Consumer] = {}
        # Channels where a message has expired unread that may be abandoned; whoever receives takes his out.
        self._lapsed: set[str] = set()
        self._gaps = Gaps()
        self.missed: Callable[[str], bool] = self._gaps.missed
        """Returns whether a channel, whose receiver watches for gaps, has missed a message; takes no lock."""
        self.on_due: Callable[[], object] = _nothing
        """Called when senders should be told how far this process has read."""

    def _box_of(self, channel: str) -> Mailbox:
        """Return the mailbox of `channel`, made if need be."""
        box = self._boxes.get(channel)
        if box is None:
            capacity = self._options.capacity_of(channel)
            queue = self._queues.admit(names.queue_of(channel), capacity)
            box = self._boxes[channel] = Mailbox(channel, capacity, queue)
            box.consumer = self._absent.pop(channel, None)
        return box

    def _forget(self, box: Mailbox) -> None:
        del self._boxes[box.channel]
        self._queues.dismiss(box.queue)

    # Receiving

    def take_or_wait(self, channel: str, new_waiter: Callable[[str, C], W], context: C) -> Taken | W:
        """Take the next message or stand in line, and note who receives there; `channel` may be a whole queue."""
        with self._lock:
            if self._closed:
                raise LayerClosedError("the channel layer was closed")
            box = self._boxes.get(channel)
            taken: Taken | None = None
            if box is None or box.entries or box.of_queue:
                taken = self._take_from(channel, time.time(), woken=False)
            if taken is None:
                waiter = new_waiter(channel, context)
                box = self._add_waiter(waiter)
            if box is not None:
                box.consumer = consumer_of(channel)
                if self._lapsed:
                    self._lapsed.discard(channel)
        if self._queues.due:
            self.on_due()
        return waiter if taken is None else taken

    def take_woken(self, waiter: Waiter) -> Taken | None:
        """Leave the line and take the message that `waiter` was woken for; None when another receiver has it."""
        now = time.time()
        taken: Taken | None = None
        with self._lock:
            box = self._boxes.get(waiter.channel)
            # Who is marked as woken stands in line. This is what is done below, for most messages in fewer calls.
            if waiter.woken and box is not None and not box.of_queue:
                entries = box.entries
                if entries and entries[0].expires_at > now:
                    del box.waiters[waiter]
                    waiter.woken = False
                    box.woken -= 1
                    if not box.waiters:
                        self._queues.waiting_channels -= 1
                    entry = entries.popleft()
                    self._count_out(box, entry)
                    taken = waiter.channel, entry
            if taken is None:
                self._remove_waiter(waiter)
                taken = self._take_from(waiter.channel, now, woken=waiter.woken)
        if self._queues.due:
            self.on_due()
        return taken

    def _take_from(self, channel: str, now: float, *, woken: bool) -> Taken | None:
        """Take the oldest unexpired message for a receiver on `channel`, which may be a whole queue."""
        box = self._boxes.get(channel)
        if box is None or box.of_queue:
            return self._take_of_queue(channel, now, woken=woken) if channel.endswith("!") else None
        entry = self._take(box, now, woken=woken)
        if entry is None:
            return None
        self._count_out(box, entry)
        return channel, entry

    def _take_of_queue(self, queue: str, now: float, *, woken: bool) -> Taken | None:
        """Take the oldest message that a receiver on the whole queue may take."""
        line = self._boxes.get(queue)
        if line is not None and line.woken and not woken and self._unattended(queue) <= line.woken:
            if not self._evict_gone(line):
                return None
        oldest: Mailbox | None = None
        mixed = now < self._mixed_until
        for box in self._filled(queue):
            first = box.entries[0]
            if mixed or first.expires_at <= now or first.diff_of is not None:
                self._drop_expired(box, now)
            if len(box.entries) > box.woken and (oldest is None or box.entries[0].id < oldest.entries[0].id):
                oldest = box
        if oldest is None:
            return None
        oldest.consumer = None
        entry = oldest.entries.popleft()
        self._count_out(oldest, entry)
        return oldest.channel, entry

    def _count_out(self, box: Mailbox, entry: Entry) -> None:
        """Note that one was taken."""
        if entry.diff_of is not None:
            box.diffs -= 1
            return
        queue = box.queue  # as `Queues.consume`, without a call for every message
        queue.held -= 1
        queue.consumed += 1
        if queue.consumed >= queue.publish_every:
            self._queues.due = True

    # Lines

    @property
    def waiting_channels(self) -> int:
        """How many channels have a receiver."""
        return self._queues.waiting_channels

    def _add_waiter(self, waiter: Waiter) -> Mailbox:
        box = self._box_of(waiter.channel)
        if not box.waiters:
            self._queues.waits()
        self._queue_waiters += box.of_queue
        waiter.box = box
        box.waiters[waiter] = None
        return box

    def _remove_waiter(self, waiter: Waiter) -> None:
        box = self._boxes.get(waiter.channel)
        if box is not None and box.remove(waiter):
            self._queues.waiting_channels -= not box.waiters
            self._queue_waiters -= box.of_queue

    def _evict(self, box: Mailbox, gone: Callable[[Waiter], bool]) -> bool:
        before = len(box.waiters)
        if not before or not box.evict(gone):
            return False
        self._queues.waiting_channels -= not box.waiters
        if box.of_queue:
            self._queue_waiters -= before - len(box.waiters)
        return True

    def _wakeable(self, channel: str) -> list[Waiter]:
        """Return the receivers to notify on a channel and on its queue, marked as woken."""
        box = self._boxes.get(channel)
        waiters = [] if box is None or box.of_queue else box.wakeable()
        if self._queue_waiters:
            queue = names.queue_of(channel)
            waiters.extend(iter(lambda: self._wake_for_queue(queue), None))
        return waiters

    def _wake_for_queue(self, queue: str) -> Waiter | None:
        """Return a receiver to notify that waits for all names of `queue`, if messages are left for it."""
        box = self._boxes.get(queue)
        if box is None or box.woken >= len(box.waiters):  # counting looks at each mailbox
            return None
        return box.next_to_wake(self._unattended(queue))

    def _unattended(self, queue: str) -> int:
        """Return how many messages lie in mailboxes of `queue` beyond those that their own receivers are woken for."""
        return sum(max(0, len(box.entries) - box.woken) for box in self._filled(queue))

    def _filled(self, queue: str) -> Iterator[Mailbox]:
        """Yield the mailboxes of `queue` in which something lies; that of its own name never holds anything."""
        return (box for box in self._boxes.values() if box.entries and box.queue.name == queue)

    # Messages of the log

    def read_on(self, cursor: int) -> None:
        """Note up to which id the log was read."""
        with self._lock:
            self.cursor = cursor

    def put(self, channels: Sequence[str], entry: Entry) -> tuple[int, int]:
        """Put a message into mailboxes, and notify who waits there.

        Returns how many were full, and how many of those are abandoned.
        """
        now = time.time()
        if entry.expires_at <= now:
            self._counters.dropped_expired += len(channels)
            with self._lock:
                self._gaps.note(channels)
            return 0, 0
        with self._lock:
            self.cursor = entry.id
            if entry.expires_at >= self._latest_expiry:
                self._latest_expiry = entry.expires_at
            else:
                self._mixed_until = self._latest_expiry
            full, waiters = self._put(channels, entry, now)
            abandoned = sum(box.abandoned for box in full) if full else 0
        self._notify(waiters)
        return len(full), abandoned

    def _put(self, channels: Sequence[str], entry: Entry, now: float) -> tuple[list[Mailbox], list[Waiter]]:
        """Return the mailboxes that had no room, and whom to notify. This loop is most of what a broadcast costs."""
        find = self.find
        full: list[Mailbox] = []
        notify: list[Waiter] = []
        for channel in channels:
            box = find(channel) or self._box_of(channel)
            entries = box.entries
            if len(entries) - box.diffs >= box.capacity:
                self._drop_expired(box, now)
                if len(entries) - box.diffs >= box.capacity:
                    full.append(box)
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
                waiter = self._wake_for_queue(box.queue.name)
            if waiter is not None:
                notify.append(waiter)
        self._queues.hold(channels, self._queue_of)
        for box in full:
            self._queues.consume(box.queue)
        if full:
            self._gaps.note(box.channel for box in full)
        return full, notify

    def _queue_of(self, channel: str) -> Queue:
        return self._boxes[channel].queue

    def clear(self) -> None:
        """Drop every message, but for what tells of presences; receivers keep waiting."""
        with self._lock:
            self._gaps.note_all()
            for box in self._boxes.values():
                box.drop_messages()
            self._queues.clear()

    # Presence diffs

    def put_diff(self, channels: Sequence[str], entry: Entry, hearing: Hearing) -> None:
        """Put a diff of the log into mailboxes, and notify who waits there.

        `hearing` is asked whether a channel hears it now: what is withdrawn after that lies here by then.
        """
        waiters: list[Waiter] = []
        with self._lock:
            self.cursor = entry.id
            known: dict[tuple[int, ...], list[Entry]] = {}
            for channel in channels:
                if hearing.hears(entry.diff_of or "", channel, entry.id):
                    box = self._box_of(channel)
                    if box.put_diff(entry):
                        box.put_together(known, self._options.max_message_size, hearing.list_id)
                    waiters += self._wakeable(channel)
        self._notify(waiters)

    def withdraw(self, channel: str, group: str, up_to: float = math.inf) -> None:
        """Drop the diffs of `group`, up to an id, that wait on a channel."""
        with self._lock:
            box = self._boxes.get(channel)
            if box is not None:
                box.withdraw_diffs(group, up_to)

    # Messages that are read from a history instead

    def withdraw_kept(self, channel: str, group: str, after: int, up_to: int) -> list[Entry]:
        """Take out of a channel what a group with history was sent, with `after` < id <= `up_to`."""
        with self._lock:
            box = self._boxes.get(channel)
            if box is None:
                return []
            taken = box.withdraw_kept(group, after, up_to)
            self._queues.consume(box.queue, len(taken))
            return taken

    def put_back(self, channel: str, entries: Sequence[Entry]) -> None:
        """Undo `withdraw_kept`: the entries get their places back."""
        with self._lock:
            box = self._box_of(channel)
            box.put_back(entries)
            box.queue.held += len(entries)
            waiters = self._wakeable(channel)
        self._notify(waiters)

    # What senders need to know; see `progress`

    def unread(self) -> Unread:
        """Return how far this process has read, now."""
        with self._lock:
            return self._queues.unread(self.cursor)

    def unread_of(self, name: str, *, anew: bool = False) -> tuple[int, int, int]:
        """Return cursor, messages held in a queue, and receivers, now; `anew`: after a look for what has expired."""
        with self._lock:
            if anew:
                for box in self._boxes.values():
                    if box.entries and box.queue.name == name:
                        self._drop_expired(box, time.time())
            return self.cursor, self._queues.held(name), self._queues.waiting_channels

    def begin_count(self) -> Unread:
        """Return how far this process has read, for senders, who are told again when enough has changed after that."""
        with self._lock:
            unread = self._queues.unread(self.cursor)
            self._queues.expect(unread.channels)
            return unread

    def forget_count(self) -> None:
        """Note that senders know nothing."""
        with self._lock:
            self._queues.expect(0)

    # Sweeping

    def sweep(self, *, all_waiters: bool, is_member: Callable[[str], bool]) -> list[str]:
        """Drop expired messages, who was woken a sweep ago and has not come, and mailboxes in which nothing is left.

        With `all_waiters` those who were not woken and are gone are found as well. Mailboxes in which somebody just
        waits, the most by far, are passed over. `is_member` says whether a group has a channel, of which it stays known
        then who received there; it is called under the lock, and takes none. Returns the channels where somebody was
        taken out of line: their messages are for others now.
        """
        now = time.time()
        evicted = []
        with self._lock:
            # A mailbox is not forgotten as soon as it is empty: that of a busy receiver would be made for every
            # message.
            for name, box in [
                (name, box)
                for name, box in self._boxes.items()
                if all_waiters or box.entries or box.woken or not box.waiters
            ]:
                self._drop_expired(box, now)
                if box.diffs and box.consumer is not None and box.has_lapsed(now):
                    self._lapsed.add(name)
                if self._evict_stuck(box):
                    evicted.append(name)
                if box.empty:
                    self._forget(box)
                    if box.consumer is not None and is_member(name):
                        self._absent[name] = box.consumer
        return evicted

    def _drop_expired(self, box: Mailbox, now: float) -> None:
        dropped = box.drop_expired(now, mixed=now < self._mixed_until)
        if not dropped:
            return
        self._counters.dropped_expired += dropped
        self._queues.consume(box.queue, dropped)
        self._gaps.note((box.channel,))
        if box.consumer is not None:
            self._lapsed.add(box.channel)

    # Channels whose consumers are gone; see `abandoned`

    def _note_cancelled(self, channel: str) -> None:
        box = self._boxes.get(channel)
        if box is not None and not box.waiters and not self._whole_queue_is_received(box):
            box.consumer = CANCELLED

    def _whole_queue_is_received(self, box: Mailbox) -> bool:
        line = self._boxes.get(box.queue.name)
        return line is not None and bool(line.waiters)

    def lapsed_and_abandoned(self) -> list[str]:
        """Return the abandoned channels in which a message has expired unread, and stop looking at the others."""
        with self._lock:
            self._lapsed = {channel for channel in self._lapsed if self._is_abandoned(channel)}
            return list(self._lapsed)

    def still_abandoned(self, channels: Iterable[str]) -> set[str]:
        """Return those of such channels on which nobody has received meanwhile."""
        with self._lock:
            return {name for name in channels if name in self._lapsed and self._is_abandoned(name)}

    def _is_abandoned(self, channel: str) -> bool:
        """Whether nobody is left who receives on a channel; see `Mailbox.abandoned`."""
        box = self._boxes.get(channel)
        if box is not None:
            return box.abandoned and not self._whole_queue_is_received(box)
        return channel in self._absent and self._absent[channel].ended

    def forget_consumer(self, channel: str) -> None:
        """Forget who received on a channel that has left its last group."""
        with self._lock:
            self._absent.pop(channel, None)
            self._lapsed.discard(channel)

    def drop_broadcasts(self, channel: str) -> None:
        """Drop what an abandoned channel got as a member of groups; messages of its own stay until they expire."""
        with self._lock:
            box = self._boxes.get(channel)
            if box is not None:
                messages = box.drop_broadcasts()
                self._counters.dropped_expired += messages
                self._queues.consume(box.queue, messages)

    # Channels whose receivers want to know of what they have missed

    def watch_gaps(self, channel: str) -> None:
        """From now on, have `missed` tell of this channel; what it missed before is made up for."""
        with self._lock:
            self._gaps.watch(channel)

    def note_gaps(self, channels: Iterable[str] | None = None) -> None:
        """These, or None: all, may have missed something that never came here."""
        with self._lock:
            if channels is None:
                self._gaps.note_all()
            else:
                self._gaps.note(channels)

    def drop(self, channel: str) -> None:
        """Drop what lies on a channel on which nobody will receive any more, and forget it."""
        with self._lock:
            self._gaps.forget(channel)
            self._lapsed.discard(channel)
            box = self._boxes.get(channel)
            if box is None:
                return
            self._queues.consume(box.queue, box.drop_all())
            if box.empty:
                self._forget(box)


def _nothing() -> None:
    pass
