"""Reads: the log past this process's cursor into mailboxes, and normal channels through `claims`.

There are two ways in. `pull` reads, after a wake-up and when polling saw a change, without any lock of the database and
in steps of a few milliseconds. `take_in` gets what this very process has just committed for itself.

Threads: everything may be called from any thread. `_lock` guards mailboxes, memberships and cursor, and is held for
memory operations alone; `reading` is held while the reader connection is used, and whoever finds it taken leaves the
work to its holder.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from channels_sqlite.claims import Claims
from channels_sqlite.connections import Connections
from channels_sqlite.exceptions import ChannelDatabaseError, is_busy
from channels_sqlite.loops import running_loop
from channels_sqlite.mailboxes import Entry, Mailboxes
from channels_sqlite.memberships import Memberships
from channels_sqlite.options import Options
from channels_sqlite.outbox import Outbox
from channels_sqlite.reports import Reports
from channels_sqlite.store import Kind, LogRow
from channels_sqlite.waiters import Waiter

__all__ = ["Inbox", "OwnRows", "Unread"]

logger = logging.getLogger(__name__)

# One step of reading, so that no event loop is held up for more than a few milliseconds.
STEP_IDS = 2000
STEP_ROWS = 256
STEP_BYTES = 2 * 1024 * 1024
STEP_DELIVERIES = 1000

T = TypeVar("T")
C = TypeVar("C")
W = TypeVar("W", bound=Waiter)

Taken = tuple[str, Entry]
"""A message on its way out: the full name of its channel, and the entry."""


class Unread(NamedTuple):
    """How far this process has read, as senders need to know it; see `models.Process`."""

    cursor: int
    held: int
    channels: int


class OwnRows(NamedTuple):
    """All rows for this process with `after` < id <= `up_to`: those of one transaction of its own."""

    after: int
    up_to: int
    rows: Sequence[LogRow]


@dataclass(slots=True)
class Broadcast:
    """A broadcast on its way to the members of this process."""

    group: str
    entry: Entry
    members: list[str]
    done: int = 0
    dropped: int = 0


class Inbox:
    """What one layer receives in one process."""

    def __init__(
        self,
        client: str,
        options: Options,
        outbox: Outbox,
        reports: Reports,
        *,
        failed: Callable[[sqlite3.Error], None],
        publish: Callable[[], None],
    ) -> None:
        """Wire it up.

        `failed` hears of errors that the connections may not survive; `publish` is called when senders should know how
        far this process has read.
        """
        self._client = client
        self._options = options
        self._reports = reports
        self._failed = failed
        self._publish = publish
        self.connections: Connections | None = None
        self.reading = threading.Lock()
        self._wanted = False  # there is work, for whoever holds `reading`
        self._behind = False  # ... and it is in the log
        self._own: deque[OwnRows] = deque()  # ... or these
        self._lock = threading.Lock()
        self._boxes = Mailboxes(options.capacity_of, reports.counters)
        self.find = self._boxes.find
        """Returns the mailbox of a channel; only valid channels, which may be received on here, have one."""
        self._members = Memberships()
        self._cursor = 0
        self._consumed = 0  # messages received or dropped since senders were last told
        self._published = Unread(0, 0, 0)
        self._expect(0)
        self._data_version = -1
        self.found = 0  # rows for this process, and channels to claim from
        self._broadcast: Broadcast | None = None  # the one whose members did not all fit into a step
        self.claims = Claims(
            client,
            outbox,
            reports,
            delete=options.message_retention == 0,
            lock=self._lock,
            boxes=self._boxes,
            pull=self.pull,
            notify=self._notify,
        )

    # Receiving

    def take_or_wait(self, channel: str, new_waiter: Callable[[str, C], W], context: C) -> Taken | W:
        """Take the next message for `channel`, or stand in line for it with a `new_waiter(channel, context)`.

        The caller ends waiting with `take_woken` or `give_up`.
        """
        if self._wanted:  # what was sent before must find the mailboxes as they were then
            self._work()
        boxes = self._boxes
        new = False
        with self._lock:
            box = boxes.find(channel)
            taken: Taken | None = None
            if box is None or box.entries or box.of_queue:
                taken = boxes.take(channel, time.time(), woken=False)
            if taken is None:
                waiter = new_waiter(channel, context)
                box = boxes.add_waiter(waiter)
                # Senders learn soon when more sockets wait here; that fewer do, they learn within a second.
                publish = box.specific and boxes.waiting_channels > self._many_waiting
                if not box.specific:
                    new = self.claims.note_waiting(channel)
            else:
                self._consumed += "!" in channel
                publish = self._consumed >= self._publish_every
        if new:
            self.claims.listen(channel)
        elif publish:
            self._publish()
        return waiter if taken is None else taken

    def take_woken(self, waiter: Waiter) -> Taken | None:
        """Leave the line and take the message that `waiter` was woken for; None when another receiver has it."""
        publish = False
        with self._lock:
            taken = self._boxes.take_woken(waiter, time.time())
            if taken is not None and "!" in taken[0]:
                self._consumed += 1
                publish = self._consumed >= self._publish_every
        if publish:
            self._publish()
        return taken

    def give_up(self, waiter: Waiter) -> None:
        """Leave the line without a message; one that this waiter was woken for goes to the next."""
        with self._lock:
            self._boxes.remove_waiter(waiter)
        self.claims.hand_on(waiter.channel)

    def _notify(self, *waiters: Waiter) -> None:
        here = running_loop()
        for waiter in waiters:
            if not waiter.notify(here):  # its loop is closed: the next one, please
                self.give_up(waiter)

    # Reading

    def pull(self) -> None:
        """Bring in what is new, and claim for those who wait on normal channels. Never raises."""
        self._behind = True
        self._work()

    def take_in(self, own: OwnRows) -> None:
        """Bring in rows of this process's own that were just committed, without reading them back. Never raises.

        Broadcasts come in the next iteration of the running loop: sending must not take longer for many members.
        """
        self._own.append(own)
        loop = running_loop()
        if loop is not None and any(row.kind == Kind.GROUP for row in own.rows):
            self._wanted = True
            loop.call_soon(self._work)
        else:
            self._work()

    def _work(self) -> None:
        self._wanted = True
        while self._wanted and self.reading.acquire(blocking=False):
            more = False
            ready: list[str] = []
            try:
                self._wanted = False
                connections = self.connections
                if connections is not None and not self._deliver_own(connections):
                    self._behind = False
                    more = self._step(connections)
                    ready = self.claims.ready(connections)
                    self.found += len(ready)
            except sqlite3.Error as error:
                if not is_busy(error):  # else the next poll tries again
                    self._failed(error)
            finally:
                self.reading.release()
            for channel in ready:
                self.claims.claim(channel)
            if more:
                self._wanted = self._behind = True
                loop = running_loop()
                if loop is not None:  # let it do something else first
                    loop.call_soon(self._work)
                    return

    def poll(self, woken: Callable[[], bool]) -> bool:
        """Pull if another connection has committed since the last poll; `woken` says whether this process was told.

        Returns whether one has, or may have.
        """
        if not self.reading.acquire(blocking=False):
            return True
        changed = False
        unknown = True
        try:
            connections = self.connections
            if connections is not None:
                version = connections.reader.store.data_version()
                changed = version != self._data_version or not connections.wal
                self._data_version = version
                unknown = False
        except sqlite3.Error as error:
            if not is_busy(error):
                self._failed(error)
        finally:
            self.reading.release()
        if changed or self._wanted:
            told, found = self._wanted or woken(), self.found
            self.pull()
            self._reports.counters.wakeups_missed += not told and self.found != found
            return True
        return unknown

    def nobody_writes(self) -> bool:
        """Whether all that was committed before this call was there at the last poll, and no transaction is under way.

        What is committed afterwards is then written to the file afterwards as well.
        """
        if not self.reading.acquire(blocking=False):
            return False
        try:
            connections = self.connections
            if connections is None:
                return False
            connections.reader.store.lock()
            return connections.reader.store.data_version() == self._data_version
        except sqlite3.Error:  # the next poll sees what is wrong, if anything is
            return False
        finally:
            self.reading.release()
            if self._wanted:
                self._work()

    def query(self, query: Callable[[Connections], T]) -> T:
        """Return what `query` reads on the reader connection. It may be held up for the length of another step."""
        try:
            with self.reading:
                if self.connections is None:
                    raise ChannelDatabaseError("the channel layer's database is not open; try again")
                return query(self.connections)
        finally:
            if self._wanted:  # somebody came meanwhile and left the work to the holder of `reading`
                self._work()

    def _deliver_own(self, connections: Connections) -> bool:
        """Deliver rows of this process's own, where nothing else lies before them; return whether that was all."""
        while self._own:
            own = self._own.popleft()
            if own.after != self._cursor or not self._deliver_all(own.rows, connections):
                self._own.clear()  # the rest is found in the log, with what lies between
                return False
            with self._lock:
                self._cursor = own.up_to
        return not self._behind

    def _deliver_all(self, rows: Sequence[LogRow], connections: Connections) -> bool:
        """Deliver rows one by one; return False where a broadcast with many members has to come to its end first."""
        for row in rows:
            if self._broadcast is not None:
                return False
            self._deliver(row, connections)
        return self._broadcast is None

    def _step(self, connections: Connections) -> bool:
        """Read one step of the log; return whether there is more."""
        if self._broadcast is not None and self._spread(self._broadcast):
            return True
        after = self._cursor
        newest, log = connections.reader.store.read_log(after, after + STEP_IDS, self._client)
        if newest <= after:
            log.close()
            return False
        up_to = min(newest, after + STEP_IDS)
        count = size = 0
        with closing(log) as rows:
            for row in rows:
                try:
                    count += self._deliver(row, connections)
                except sqlite3.Error:
                    raise
                except Exception as error:  # noqa: BLE001  # one odd row must not hold up all that follow
                    self._reports.undecodable(row.id, type(error).__name__)
                self.found += 1
                size += len(row.payload)
                if count >= STEP_DELIVERIES or size >= STEP_BYTES or self._broadcast is not None:
                    up_to = row.id
                    break
        with self._lock:
            self._cursor = up_to
        return up_to < newest or self._broadcast is not None

    def _deliver(self, row: LogRow, connections: Connections) -> int:
        """Put one row of the log where it belongs; return about how much work it was."""
        if row.kind == Kind.SPECIFIC:
            entry = Entry(row.id, row.expires_at, row.payload)
            channel = row.queue + (row.local or "")
            if self._put([channel], entry):
                self._reports.dropped(channel)
            return 1
        if row.kind == Kind.GROUP:
            with self._lock:
                members = self._members.of(row.queue, row.id, time.time())
            self._spread(Broadcast(row.queue, Entry(row.id, row.expires_at, row.payload, shared=True), members))
            return 1 + len(members)
        if row.kind == Kind.MEMBERSHIP:
            channel = row.payload.decode("ascii", "replace")  # a name; any other is nobody's
            membership = connections.reader.store.member(row.queue, self._client, channel)
            with self._lock:
                self._members.set(row.queue, channel, membership)
            return 1
        if row.kind == Kind.FLUSH:
            with self._lock:
                self._boxes.clear()
                self._members.drop_older(row.id)
        else:
            self._reports.undecodable(row.id, f"its kind {row.kind} is not known")
        return 1

    def _spread(self, broadcast: Broadcast) -> bool:
        """Hand a broadcast to the next members of this process; return whether some are left for the next step."""
        channels = broadcast.members[broadcast.done : broadcast.done + STEP_DELIVERIES]
        broadcast.dropped += self._put(channels, broadcast.entry)
        broadcast.done += len(channels)
        if broadcast.done < len(broadcast.members):
            self._broadcast = broadcast
            return True
        self._broadcast = None
        if broadcast.dropped:
            self._reports.skipped(broadcast.group, broadcast.dropped, len(broadcast.members))
        return False

    def _put(self, channels: list[str], entry: Entry) -> int:
        """Put `entry` into the mailboxes of process-specific channels; return how many were full."""
        now = time.time()
        if entry.expires_at <= now:
            self._reports.counters.dropped_expired += len(channels)
            return 0
        with self._lock:
            self._cursor = entry.id
            dropped, notify = self._boxes.put(channels, entry, now)
            self._consumed += dropped
        self._notify(*notify)
        return dropped

    # Memberships of this process's channels

    def joined(self, group: str, channel: str, joined_id: int, expires_at: float | None) -> Callable[[], None]:
        """Note a membership; return what undoes it.

        Called before the commit that makes it real: a broadcast that follows the commit may be read at once.
        """
        with self._lock:
            before = self._members.get(group, channel)
            self._members.set(group, channel, (joined_id, expires_at))

        def undo() -> None:
            with self._lock:
                self._members.set(group, channel, before)

        return undo

    def left(self, group: str, channel: str) -> None:
        """Note that a membership has ended."""
        with self._lock:
            self._members.set(group, channel, None)

    def memberships(self) -> list[tuple[str, str, float | None]]:
        """Return (group, channel, expires_at) of every membership of this process's channels."""
        with self._lock:
            return self._members.all()

    # What senders and housekeeping need to know

    def unread(self) -> Unread:
        """Return how far this process has read, now."""
        with self._lock:
            return self._unread()

    def _unread(self) -> Unread:
        return Unread(self._cursor, self._boxes.held, self._boxes.waiting_channels)

    def note_published(self) -> Unread:
        """Return how far this process has read, to be written for senders now."""
        with self._lock:
            self._consumed = 0
            self._published = self._unread()
            self._expect(self._published.channels)
            return self._published

    def _expect(self, channels: int) -> None:
        """Set when to publish next, with so many receivers: after a tenth of what they may leave unread."""
        self._publish_every = max(1, self._options.capacity * max(1, channels) // 10)
        self._many_waiting = max(1, int(channels * 1.1))

    def forget_published(self) -> None:
        """Note that senders know nothing of what was published."""
        with self._lock:
            self._published = Unread(-1, 0, 0)
            self._expect(0)

    def unpublished(self) -> bool:
        """Whether senders know less than there is to know."""
        with self._lock:
            return self._published != self._unread()

    def start(self, cursor: int) -> None:
        """Read on from the message with this id: nothing up to it was meant for this process."""
        with self.reading, self._lock:
            self._cursor = cursor
            self._own.clear()

    def sweep(self, *, loops_closed: bool) -> None:
        """Drop expired messages and memberships, and receivers whose loop has stopped.

        `loops_closed`: there may be receivers whose loop was closed.
        """
        now = time.time()
        with self._lock:
            ended = self._members.drop_expired(now)
            dropped, abandoned = self._boxes.sweep(now, all_waiters=loops_closed)
            self._consumed += dropped
        for channel in abandoned:
            self.claims.hand_on(channel)
        for group, channel in ended:
            self._reports.membership_ended(group, channel, self._options.group_expiry)

    def drop_expired(self) -> None:
        """Drop expired messages."""
        with self._lock:
            self._consumed += self._boxes.drop_all_expired(time.time())

    def close(self, error: Exception) -> None:
        """Fail every waiter, and put back what was claimed and not received."""
        with self._lock:
            boxes = list(self._boxes)
            waiters = [waiter for _, box in boxes for waiter in box.waiters]
            claimed = [(name, list(box.entries)) for name, box in boxes if "!" not in name and box.entries]
            for name, box in boxes:
                box.releasing += bool("!" not in name and box.entries)
                box.entries.clear()
        for waiter in waiters:
            waiter.fail(error)
        self.claims.fail(error)
        for channel, entries in claimed:
            self.claims.release(channel, entries)
