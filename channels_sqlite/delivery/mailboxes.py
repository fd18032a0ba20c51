"""Where messages wait inside a process, and who waits for them.

A message stays in its mailbox until a `receive()` takes it, in the same step in which it returns. Waking a receiver is
a hint and hands over nothing, so that a receiver which is cancelled, or whose loop ends, can lose nothing: what it was
woken for still lies there for the next.

Threads: everything may be called from any thread. `_lock` is held for memory operations alone, and nothing is locked
inside it; receivers are notified once it is released.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from channels_sqlite import names
from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.counters import Counters
from channels_sqlite.delivery.consumers import CANCELLED, Consumer, consumer_of
from channels_sqlite.delivery.entries import merged
from channels_sqlite.delivery.gaps import Gaps
from channels_sqlite.delivery.mailbox import Entry, Mailbox, Queue, Waiter
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.options import Options

__all__ = ["Mailboxes", "Taken", "Unread"]

C = TypeVar("C")
W = TypeVar("W", bound=Waiter)

Taken = tuple[str, Entry]
"""A message on its way out: the full name of its channel, and the entry."""


class Unread(NamedTuple):
    """How far this process has read, as senders need to know it; see `models.Process`."""

    cursor: int
    held: Mapping[str, int]
    channels: int


class Mailboxes:
    """The mailboxes of one process by channel name; a sweep forgets those in which nothing is left.

    A receiver may wait on one process-specific channel, or on all names with its part up to the `!`: the latter's
    mailbox never holds messages, it is served from those of the full names.
    """

    def __init__(self, options: Options, counters: Counters) -> None:
        self._options = options
        self._counters = counters
        self._lock = threading.Lock()  # guards all that follows; nothing is waited for inside
        self._boxes: dict[str, Mailbox] = {}
        self.find: Callable[[str], Mailbox | None] = self._boxes.get
        """Returns the mailbox of a channel; only valid channels, which may be received on here, have one."""
        self._closed = False  # nobody receives here any more
        self.cursor = 0
        """The id up to which the log was read: all of it that is for this process lies here, or did."""
        self._queues: dict[str, Queue] = {}  # of process-specific channels
        self._queue_waiters = 0  # receivers that wait for all names of a queue
        self.waiting_channels = 0  # process-specific channels with a receiver
        self._published_channels = 1  # the number of them by which senders multiply
        self._many_waiting = 1  # more of them than senders should go on without
        self._due = False  # senders should be told: a tenth of what some queue may hold was consumed, or many more wait
        self._latest_expiry = 0.0  # of all messages that were put in (seconds since 1970)
        self._mixed_until = 0.0  # until then some may expire before others that came earlier (seconds since 1970)
        # Kept for channels without a mailbox that a group has as members: who received there last.
        self._absent: dict[str, Consumer] = {}
        # Channels where a message has expired unread that may be abandoned; whoever receives takes his out.
        self._lapsed: set[str] = set()
        self._gaps = Gaps()
        self.missed: Callable[[str], bool] = self._gaps.missed
        """Returns whether a channel, whose receiver watches for gaps, has missed a message; takes no lock."""
        self.on_left: Callable[[str], object] = self.wake
        """Called when a receiver has left a channel: what it was woken for is another's."""
        self.on_due: Callable[[], object] = _nothing
        """Called when senders should be told how far this process has read."""

    def _box_of(self, channel: str) -> Mailbox:
        """Return the mailbox of `channel`, made if need be."""
        box = self._boxes.get(channel)
        if box is None:
            name = names.queue_of(channel)
            capacity = self._options.capacity_of(channel)
            if "!" in channel:
                queue = self._queues.get(name) or self._queues.setdefault(name, Queue(name))
                queue.admit(capacity, self._published_channels)
            else:
                queue = Queue(name)
            box = self._boxes[channel] = Mailbox(channel, capacity, queue)
            box.consumer = self._absent.pop(channel, None)
        return box

    def _forget(self, box: Mailbox) -> None:
        del self._boxes[box.channel]
        box.queue.boxes -= 1
        if not box.queue.boxes:
            self._queues.pop(box.queue.name, None)

    # Receiving

    def take_or_wait(self, channel: str, new_waiter: Callable[[str, C], W], context: C) -> Taken | W:
        """Take the next message for `channel`, or stand in line for it with a `new_waiter(channel, context)`.

        The caller ends waiting with `take_woken` or `give_up`. Raises LayerClosedError once nobody receives any more.
        """
        with self._lock:
            if self._closed:
                raise LayerClosedError("the channel layer was closed")
            box = self._boxes.get(channel)
            taken: Taken | None = None
            if box is None or box.entries or box.of_queue:
                taken = self._take(channel, time.time(), woken=False)
            if taken is None:
                waiter = new_waiter(channel, context)
                box = self._add_waiter(waiter)
                # Senders learn soon when more sockets wait here; that fewer do, they learn within a second.
                if box.specific and self.waiting_channels > self._many_waiting:
                    self._due = True
            if box is not None and box.specific:
                box.consumer = consumer_of(channel)
                if self._lapsed:
                    self._lapsed.discard(channel)
        if self._due:
            self.on_due()
        return waiter if taken is None else taken

    def take_woken(self, waiter: Waiter) -> Taken | None:
        """Leave the line and take the message that `waiter` was woken for; None when another receiver has it."""
        now = time.time()
        taken: Taken | None = None
        with self._lock:
            box = waiter.box
            # Who is marked as woken stands in line, and a mailbox with somebody in line is not forgotten.
            if waiter.woken and box is not None and not box.of_queue:
                entries = box.entries
                if entries and entries[0].expires_at > now:
                    del box.waiters[waiter]
                    waiter.woken = False
                    box.woken -= 1
                    entry = entries.popleft()
                    if box.specific:
                        if entry.diff_of is None:
                            queue = box.queue
                            queue.held -= 1
                            queue.consumed += 1
                            if queue.consumed >= queue.publish_every:
                                self._due = True
                        else:
                            box.diffs -= 1
                        if not box.waiters:
                            self.waiting_channels -= 1
                    taken = box.channel, entry
            if taken is None:
                self._remove_waiter(waiter)
                taken = self._take(waiter.channel, now, woken=waiter.woken)
        if self._due:
            self.on_due()
        return taken

    def give_up(self, waiter: Waiter, *, cancelled: bool = False) -> None:
        """Leave the line without a message; one that this waiter was woken for goes to the next.

        `cancelled`: its caller was, and may never come back.
        """
        with self._lock:
            self._remove_waiter(waiter)
            if cancelled and "!" in waiter.channel:
                self._note_cancelled(waiter.channel)
        self.on_left(waiter.channel)

    def stands(self, waiter: Waiter) -> bool:
        """Return whether `waiter` stands in line for what may still come."""
        with self._lock:
            return not self._closed and waiter.box is not None and waiter in waiter.box.waiters

    def shut(self) -> list[Waiter]:
        """Let nobody receive any more; return who waits."""
        with self._lock:
            self._closed = True
            return [waiter for box in self._boxes.values() for waiter in box.waiters]

    # Waiters

    def _add_waiter(self, waiter: Waiter) -> Mailbox:
        waiter.box = box = self._box_of(waiter.channel)
        if box.specific:
            self.waiting_channels += not box.waiters
            self._queue_waiters += box.of_queue
        box.waiters[waiter] = None
        return box

    def _remove_waiter(self, waiter: Waiter) -> bool:
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

    def _notify(self, waiters: Iterable[Waiter]) -> None:
        here = running_loop()
        for waiter in waiters:
            if not waiter.notify(here):  # its loop is closed: the next one, please
                self.give_up(waiter)

    def wake(self, channel: str) -> None:
        """Notify receivers for the messages that lie there, on a channel and on its queue."""
        with self._lock:
            waiters = [] if self._closed else self._wakeable(channel)
        self._notify(waiters)

    def _wakeable(self, channel: str) -> list[Waiter]:
        """Return the receivers to notify, marked as woken."""
        waiters: list[Waiter] = []
        box = self._boxes.get(channel)
        if box is not None and not box.of_queue:
            waiters.extend(iter(lambda: box.next_to_wake(len(box.entries)), None))
        if self._queue_waiters and "!" in channel:
            queue = names.queue_of(channel)
            waiters.extend(iter(lambda: self._wake_for_queue(queue), None))
        return waiters

    def _wake_for_queue(self, queue: str) -> Waiter | None:
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

    # Process-specific channels

    def put(self, channels: Sequence[str], entry: Entry) -> tuple[int, int]:
        """Put a message of the log into the mailboxes of process-specific channels, and notify who waits there.

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
        self._hold(channels)
        for box in full:
            self._consume(box.queue)
        if full:
            self._gaps.note(box.channel for box in full)
        return full, notify

    def _hold(self, channels: Sequence[str]) -> None:
        """Count a message for each of `channels`, which have mailboxes."""
        if len(self._queues) == 1:  # as in most processes, even for a broadcast to thousands
            for queue in self._queues.values():
                queue.held += len(channels)
            return
        for channel in channels:
            self._boxes[channel].queue.held += 1

    def _consume(self, queue: Queue, messages: int = 1) -> None:
        """Count messages of process-specific channels that are gone."""
        queue.held -= messages
        queue.consumed += messages
        if queue.consumed >= queue.publish_every:
            self._due = True

    def read_on(self, cursor: int) -> None:
        """Note up to which id the log was read."""
        with self._lock:
            self.cursor = cursor

    def _take(self, channel: str, now: float, *, woken: bool) -> Taken | None:
        """Take the oldest unexpired message for a receiver on `channel`.

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
        entry = entries.popleft()
        if entry.diff_of is not None:
            box.diffs -= box.specific
        elif box.specific:
            queue = box.queue  # as `_consume`, without a call for every message
            queue.held -= 1
            queue.consumed += 1
            if queue.consumed >= queue.publish_every:
                self._due = True
        return channel, entry

    def _take_of_queue(self, queue: str, now: float, *, woken: bool) -> Taken | None:
        """Take the oldest message that a receiver on the whole queue may take."""
        line = self._boxes.get(queue)
        if line is not None and not woken and self._unattended(queue) <= line.woken:
            if not self._evict(queue, _gone):
                return None
        oldest: str | None = None
        lowest = 0
        for name, box in self._boxes.items():
            if not name.startswith(queue):
                continue
            self._drop_expired(box, now)
            if len(box.entries) > (box.woken if name != queue else 0):
                if oldest is None or box.entries[0].id < lowest:
                    oldest, lowest = name, box.entries[0].id
        if oldest is None:
            return None
        box = self._boxes[oldest]
        box.consumer = None
        entry = box.entries.popleft()
        if entry.diff_of is None:
            self._consume(box.queue)
        else:
            box.diffs -= 1
        return oldest, entry

    # Presence diffs on process-specific channels

    def put_diff(self, channels: Sequence[str], entry: Entry, hears: Callable[[str], bool]) -> None:
        """Put a diff of the log into mailboxes, and notify who waits there.

        `hears` says whether a channel hears it now; it is called under the lock, and takes none. What is withdrawn
        after that lies here by then.
        """
        waiters: list[Waiter] = []
        with self._lock:
            self.cursor = entry.id
            known: dict[tuple[int, ...], list[Entry]] = {}
            for channel in channels:
                if not hears(channel):
                    continue
                box = self._box_of(channel)
                box.entries.append(entry)
                box.diffs += 1
                if box.diffs > box.capacity:
                    self._put_together(box, known)
                waiters += self._wakeable(channel)
        self._notify(waiters)

    def _put_together(self, box: Mailbox, known: dict[tuple[int, ...], list[Entry]]) -> None:
        """Make one diff of those that a mailbox has of each group, in the place of the last.

        `known` has what was put together for other channels.
        """
        by_group: dict[str, list[Entry]] = {}
        for entry in box.entries:
            if entry.diff_of is not None:
                by_group.setdefault(entry.diff_of, []).append(entry)
        whole: dict[int, list[Entry]] = {}  # by the id of the last
        parts: set[int] = set()
        for entries in by_group.values():
            if len(entries) < 2:
                continue
            # By the very entries: one that was put together before has the id of its last part.
            these = tuple(map(id, entries))
            if these not in known:
                known[these] = merged(entries, self._options.max_message_size)
            whole[entries[-1].id] = known[these]
            parts.update(these)
        kept: deque[Entry] = deque()
        last: set[int] = set()
        for entry in reversed(box.entries):
            if id(entry) not in parts:
                kept.appendleft(entry)
            elif entry.id in whole and entry.id not in last:
                last.add(entry.id)
                kept.extendleft(reversed(whole[entry.id]))
        box.entries = kept
        box.diffs = sum(entry.diff_of is not None for entry in kept)

    def withdraw(self, channel: str, group: str, up_to: float = math.inf) -> None:
        """Drop the diffs of `group`, up to an id, that wait on a channel."""
        with self._lock:
            box = self._boxes.get(channel)
            if box is None or not box.diffs:
                return
            kept = [entry for entry in box.entries if entry.diff_of != group or entry.id > up_to]
            if len(kept) < len(box.entries):
                box.diffs -= len(box.entries) - len(kept)
                box.entries = deque(kept)

    # Normal channels; see `claims`

    def _missing(self, channel: str) -> int:
        box = self._boxes.get(channel)
        if box is None or box.releasing:  # what is put back comes before what would be claimed now
            return 0
        return len(box.waiters) - len(box.entries) - box.claiming

    def wanting(self, channels: Iterable[str]) -> list[str]:
        """Return the normal channels on which more receivers wait than messages are here or were asked for."""
        with self._lock:
            return [channel for channel in channels if self._missing(channel) > 0]

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

    def pass_on(self, channel: str) -> list[Entry]:
        """Notify receivers for what lies on a channel, and take out what there are none for; of a normal one alone.

        `released` is called for what is returned. Once closed this does nothing: whoever closes puts back all of it.
        """
        surplus: list[Entry] = []
        with self._lock:
            if self._closed:
                return surplus
            box = self._boxes.get(channel)
            if box is not None and not box.specific:
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

    def take_left_over(self, channels: Iterable[str]) -> Taken | None:
        """Take a message that nobody waits for, from the first of some normal channels that has one."""
        with self._lock:
            for channel in channels:
                box = self._boxes.get(channel)
                if box is not None and len(box.entries) > len(box.waiters):
                    return channel, box.entries.popleft()
        return None

    def holds_claimed(self) -> bool:
        """Whether messages of normal channels lie here."""
        with self._lock:
            return any(box.entries for box in self._boxes.values() if not box.specific)

    def take_all_claimed(self) -> dict[str, list[Entry]]:
        """Take out all messages of normal channels, by channel."""
        with self._lock:
            left = {name: list(box.entries) for name, box in self._boxes.items() if not box.specific and box.entries}
            for name in left:
                self._boxes[name].entries.clear()
        return left

    def in_use(self, channels: Iterable[str]) -> set[str]:
        """Return those of `channels` that have messages or receivers."""
        with self._lock:
            return {name for name in channels if (box := self._boxes.get(name)) is not None and not box.empty}

    # What senders need to know; see `progress`

    def unread(self) -> Unread:
        """Return how far this process has read, now."""
        with self._lock:
            return self._unread()

    def _unread(self) -> Unread:
        held = {name: queue.held for name, queue in self._queues.items() if queue.held}
        return Unread(self.cursor, held, self.waiting_channels)

    def unread_of(self, name: str, *, anew: bool = False) -> tuple[int, int, int]:
        """Return cursor, messages held in a queue, and receivers, now; `anew`: after a look for what has expired."""
        with self._lock:
            if anew:
                for box in self._boxes.values():
                    if box.entries and box.queue.name == name:
                        self._drop_expired(box, time.time())
            queue = self._queues.get(name)
            return self.cursor, queue.held if queue is not None else 0, self.waiting_channels

    def begin_count(self) -> Unread:
        """Return how far this process has read, for senders, who are told again when enough has changed after that."""
        with self._lock:
            unread = self._unread()
            self._expect(unread.channels)
            return unread

    def forget_count(self) -> None:
        """Note that senders know nothing."""
        with self._lock:
            self._expect(0)

    def _expect(self, channels: int) -> None:
        """Set when senders are to be told next, who know of so many receivers."""
        self._published_channels = max(1, channels)
        self._many_waiting = max(1, int(channels * 1.1))
        self._due = False
        for queue in self._queues.values():
            queue.consumed = 0
            queue.expect(self._published_channels)

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
                if box.diffs and box.consumer is not None and _has_lapsed(box, now):
                    self._lapsed.add(name)
                if self._evict(name, _stuck):
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
        if box.specific:
            self._consume(box.queue, dropped)
            self._gaps.note((box.channel,))
            if box.consumer is not None:
                self._lapsed.add(box.channel)

    def clear(self) -> None:
        """Drop every message, but for what tells of presences; receivers keep waiting."""
        with self._lock:
            self._gaps.note_all()
            for box in self._boxes.values():
                box.entries = deque(entry for entry in box.entries if entry.diff_of is not None)
            for queue in self._queues.values():
                queue.held = 0

    # Channels whose consumers are gone; see `abandoned`

    def _note_cancelled(self, channel: str) -> None:
        """Note that a receiver on a process-specific channel was cancelled, and is out of the line."""
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
                kept = deque(entry for entry in box.entries if not entry.shared)
                messages = len(box.entries) - len(kept) - box.diffs
                self._counters.dropped_expired += messages
                self._consume(box.queue, messages)
                box.entries = kept
                box.diffs = 0

    # Messages that are read from a history instead

    def withdraw_kept(self, channel: str, group: str, after: int, up_to: int) -> list[Entry]:
        """Take out of a process-specific channel what a group with history was sent, with `after` < id <= `up_to`."""
        with self._lock:
            box = self._boxes.get(channel)
            if box is None:
                return []
            taken = [entry for entry in box.entries if entry.group == group and after < entry.id <= up_to]
            if taken:
                ids = {entry.id for entry in taken}
                box.entries = deque(entry for entry in box.entries if entry.id not in ids)
                self._consume(box.queue, len(taken))
            return taken

    def put_back(self, channel: str, entries: Sequence[Entry]) -> None:
        """Undo `withdraw_kept`: the entries get their places back."""
        with self._lock:
            box = self._box_of(channel)
            box.entries = deque(sorted((*box.entries, *entries), key=lambda entry: entry.id))
            box.queue.held += len(entries)
            waiters = self._wakeable(channel)
        self._notify(waiters)

    # Channels whose receivers want to know of what they have missed

    def watch_gaps(self, channel: str) -> None:
        """From now on, have `missed` tell of this process-specific channel; what it missed before is made up for."""
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
        """Drop what lies on a process-specific channel on which nobody will receive any more, and forget it."""
        with self._lock:
            self._gaps.forget(channel)
            self._lapsed.discard(channel)
            box = self._boxes.get(channel)
            if box is None:
                return
            self._consume(box.queue, len(box.entries) - box.diffs)
            box.entries.clear()
            box.diffs = 0
            if box.empty:
                self._forget(box)

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()


def _gone(waiter: Waiter) -> bool:
    return waiter.gone


def _stuck(waiter: Waiter) -> bool:
    stuck = waiter.gone or waiter.late
    waiter.late = waiter.woken
    return stuck


def _has_lapsed(box: Mailbox, now: float) -> bool:
    return any(entry.lapses_at <= now for entry in box.entries if entry.diff_of is not None)


def _nothing() -> None:
    pass
