"""The log, past this process's cursor, into the mailboxes: what other processes have sent, and what this one has.

There are two ways in. A step of the reader reads what is new; `take_in` gets what this very process has just committed
for itself.

Threads: `read` runs in the reader's turn; the rest may be called from any thread.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.delivery.audience import Audience
from channels_sqlite.delivery.diffs import farewells
from channels_sqlite.delivery.entries import Entry, diff_entry
from channels_sqlite.delivery.epochs import Epochs
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.members import Members
from channels_sqlite.delivery.own_changes import OwnChanges
from channels_sqlite.delivery.reader import Reader
from channels_sqlite.delivery.withdrawals import Withdrawals
from channels_sqlite.histories import Position
from channels_sqlite.kinds import PRESENCE_TOO, Kind
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections, OpenDatabase
from channels_sqlite.storage.messages import LogRow
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import ElsewhereError, Transaction

__all__ = ["Log", "OwnRows"]

# One step of reading, so that no event loop is held up for more than a few milliseconds.
STEP_IDS = 2000
STEP_BYTES = 2 * 1024 * 1024
STEP_DELIVERIES = 1000
BROADCASTS = frozenset({Kind.GROUP, Kind.KEPT})
FOR_MANY = BROADCASTS | {Kind.PRESENCE}


class _OutOfDateError(Exception):
    """What was read may be older than what this process has changed since: it is to be read again."""


class OwnRows(NamedTuple):
    """All rows for this process with `after` < id <= `up_to`: those of one transaction of its own."""

    after: int
    up_to: int
    rows: Sequence[LogRow]


@dataclass(slots=True)
class Broadcast:
    """A broadcast on its way to the members of this process, or a presence diff to those who hear it."""

    group: str
    entry: Entry
    members: list[str]
    done: int = 0
    dropped: int = 0
    abandoned: int = 0  # of those dropped


class Log:
    """Reads on in the log. Its cursor is that of the mailboxes."""

    def __init__(
        self,
        client: str,
        database: OpenDatabase,
        outbox: Outbox,
        *,
        reader: Reader,
        boxes: Mailboxes,
        members: Members,
        audience: Audience,
        changes: OwnChanges,
        epochs: Epochs,
        reports: Reports,
    ) -> None:
        self._client = client
        self._database = database
        self._outbox = outbox
        self._reader = reader
        self._boxes = boxes
        self._members = members
        self._audience = audience
        self._own_changes = changes
        self._epochs = epochs
        self._reports = reports
        self._own: deque[OwnRows] = deque()
        self._is_registered = False  # this process is, or somebody has deleted that it is
        self._read_at = 0.0  # seconds since 1970, when the log was last read
        self._broadcast: Broadcast | None = None  # the one whose members did not all fit into a step
        self._withdrawals = Withdrawals()
        self._withdrawn_by: Transaction | None = None  # that holds the turn at reading
        self._epoch = ""  # of what this step reads, once it is known
        self.on_flush: Callable[[], object] = _nothing
        """Called when somebody has flushed the layer, once the mailboxes are cleared."""
        reader.register(self)

    def take_in(self, own: OwnRows) -> None:
        """Bring in rows of this process's own that were just committed, without reading them back. Never raises.

        Broadcasts come in the next iteration of the running loop: sending must not take longer for many members.
        """
        self._own.append(own)
        loop = running_loop()
        if loop is not None and any(row.kind in FOR_MANY for row in own.rows):
            self._reader.work_soon(loop)
        else:
            self._reader.work()

    # In the reader's turn

    def read(self, connections: Connections, *, behind: bool) -> bool:
        """Deliver one step of the log; return whether there is more."""
        self._epoch = ""
        self._own_changes.begin()
        try:
            more = not self._deliver_own(connections) or behind
            if more:
                more = self._step(connections)
        finally:
            self._own_changes.end()
        if self._withdrawals and self._broadcast is None:
            self._withdrawals.passed(self._boxes.cursor)
        return more

    def follow(self) -> None:
        """Nothing comes after it."""

    def _deliver_own(self, connections: Connections) -> bool:
        """Deliver rows of this process's own, where nothing else lies before them; return whether that was so."""
        while self._own:
            own = self._own.popleft()
            if own.after != self._boxes.cursor or not self._deliver_all(own.rows, connections):
                self._own.clear()  # the rest is found in the log, with what lies between
                return False
            self._boxes.read_on(own.up_to)
            self._read_at = time.time()
        return True

    def _deliver_all(self, rows: Sequence[LogRow], connections: Connections) -> bool:
        """Deliver rows one by one; return False where they are too many for a step, or the members of one are."""
        count = 0
        for row in rows:
            if self._broadcast is not None or count >= STEP_DELIVERIES:
                return False
            try:
                count += self._deliver(row, connections)
            except _OutOfDateError:
                return False
        return self._broadcast is None

    def _step(self, connections: Connections) -> bool:
        if self._broadcast is not None and self._spread(self._broadcast):
            return True
        after = self._boxes.cursor
        newest, registered, log = connections.reader.store.read_log(after, after + STEP_IDS, self._client)
        if self._is_registered and not registered:
            # What it holds of memberships is gone with it, so that the log cannot be read as it was meant.
            log.close()
            registration = self._outbox.registration
            if registration is not None:
                registration.return_soon()
            return False
        self._read_at = time.time()
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
                except _OutOfDateError:
                    up_to = row.id - 1
                    break
                except Exception as error:  # noqa: BLE001  # one odd row must not hold up all that follow
                    self._reports.undecodable(row.id, type(error).__name__)
                self._reader.found += 1
                size += len(row.payload)
                if count >= STEP_DELIVERIES or size >= STEP_BYTES or self._broadcast is not None:
                    up_to = row.id
                    break
        self._boxes.read_on(up_to)
        if self._own_changes.awaited:
            return False
        return up_to < newest or self._broadcast is not None

    def _deliver(self, row: LogRow, connections: Connections) -> int:
        """Put one row of the log where it belongs; return about how much work it was."""
        if row.kind == Kind.SPECIFIC:
            entry = Entry(row.id, row.expires_at, row.payload)
            channel = row.queue + (row.local or "")
            dropped, abandoned = self._boxes.put([channel], entry)
            if dropped:
                self._reports.dropped(channel, abandoned=bool(abandoned))
            return 1
        if row.kind in BROADCASTS:
            members = self._members.of(row.queue, row.id, time.time())
            if row.local:
                excluded = frozenset(row.local.split(" "))
                members = [channel for channel in members if channel not in excluded]
            entry = Entry(row.id, row.expires_at, row.payload, shared=True)
            if row.kind == Kind.KEPT:
                members = self._place_in_history(entry, row.queue, members, connections)
            self._spread(Broadcast(row.queue, entry, members))
            return 1 + len(members)
        if row.kind == Kind.MEMBERSHIP:
            channel = row.payload.decode("ascii", "replace")  # a name; any other is nobody's
            membership = connections.reader.store.member(row.queue, self._client, channel)
            if row.local == PRESENCE_TOO:
                self._learn(row.queue, channel, connections)
            if not self._members.learn(row.queue, channel, membership):
                raise _OutOfDateError
            if row.local not in (None, PRESENCE_TOO):  # somebody else has read the history for it, from that id on
                self._boxes.withdraw_kept(channel, row.queue, int(row.local) - 1, row.id)
            return 1
        if row.kind == Kind.PRESENCE:
            hearers = self._audience.of(row.queue, row.id)
            self._spread(Broadcast(row.queue, diff_entry(row.id, row.queue, row.payload, row.expires_at), hearers))
            return 1 + len(hearers)
        if row.kind == Kind.FLUSH:
            self._boxes.clear()
            self.on_flush()
            self._members.drop_older(row.id)
            for group, payload in farewells(row.payload):
                self._put_diff(self._audience.of(group, row.id), diff_entry(row.id, group, payload))
            self._audience.drop_older(row.id)
        else:
            self._reports.undecodable(row.id, f"its kind {row.kind} is not known")
        return 1

    def _learn(self, group: str, channel: str, connections: Connections) -> None:
        """Note what a channel is in the presence of a group, of which another transaction has told.

        Raises _OutOfDateError where this process has changed it since the step began to read.
        """
        row = connections.reader.store.presence(group, self._client, channel)
        if not self._audience.learn(group, channel, row):
            raise _OutOfDateError
        self._boxes.withdraw(channel, group, math.inf if row is None else row.heard_id)

    def _put_diff(self, channels: Sequence[str], entry: Entry) -> None:
        self._boxes.put_diff(channels, entry, self._audience)

    def _place_in_history(self, entry: Entry, group: str, members: list[str], connections: Connections) -> list[str]:
        """Give a broadcast its position, and return the members that have not read it in the history."""
        store = connections.reader.store  # of the snapshot that is being read
        self._epoch = self._epoch or self._epochs.current(store)
        self._epochs.told(store, entry.id)
        entry.group, entry.position = group, str(Position(self._epoch, entry.id))
        return self._withdrawals.without(group, entry.id, members) if self._withdrawals else members

    def _spread(self, broadcast: Broadcast) -> bool:
        """Hand a broadcast to the next members of this process; return whether some are left for the next step."""
        channels = broadcast.members[broadcast.done : broadcast.done + STEP_DELIVERIES]
        if broadcast.entry.diff_of is not None:
            self._put_diff(channels, broadcast.entry)
        else:
            dropped, abandoned = self._boxes.put(channels, broadcast.entry)
            broadcast.dropped += dropped
            broadcast.abandoned += abandoned
        broadcast.done += len(channels)
        if broadcast.done < len(broadcast.members):
            self._broadcast = broadcast
            return True
        self._broadcast = None
        if broadcast.dropped:
            self._reports.skipped(
                broadcast.group, broadcast.dropped, len(broadcast.members), abandoned=broadcast.abandoned
            )
        return False

    # What is read from a history instead

    def withdraw(self, transaction: Transaction, group: str, channel: str, after: int, up_to: int) -> None:
        """Keep from a channel of this process's what its group was sent, with `after` < id <= `up_to`.

        That is what waits here, and what was not read from the log yet. Nobody reads on until the transaction has ended
        one way or the other, and what is failed goes back to its place. Call it last: raises ElsewhereError where an
        event loop would have to wait.
        """
        self._hold_reading(transaction)
        taken = self._boxes.withdraw_kept(channel, group, after, up_to)
        if taken:
            transaction.undo.append(lambda: self._boxes.put_back(channel, taken))
        if up_to > self._boxes.cursor:
            transaction.undo.append(self._withdrawals.add(group, channel, after, up_to))
        broadcast = self._broadcast
        if broadcast is not None and broadcast.group == group and after < broadcast.entry.id <= up_to:
            members = broadcast.members
            left = [member for member in members[broadcast.done :] if member != channel]
            broadcast.members = [*members[: broadcast.done], *left]
            transaction.undo.append(lambda: setattr(broadcast, "members", members))

    def _hold_reading(self, transaction: Transaction) -> None:
        if self._withdrawn_by is transaction:
            return
        if not self._database.reading.acquire(blocking=running_loop() is None):
            raise ElsewhereError
        self._withdrawn_by = transaction
        transaction.undo.append(self._read_again)
        transaction.after_commit.insert(0, self._read_again)

    def _read_again(self) -> None:
        if self._withdrawn_by is not None:
            self._withdrawn_by = None
            self._database.reading.release()
            if self._reader.wanted:
                self._reader.work()

    # Where to read on

    def resumes_at(self, transaction: Transaction) -> int | None:
        """Return from which id on to read in the file that was read before: None, as long as its ids just grow.

        0 where they began anew, as after `manage.py flush`; then the registration is gone as well.
        """
        cursor, read_at = self._boxes.cursor, self._read_at
        if transaction.registered:  # an older copy took its place, at most: what it has was read
            return transaction.newest if transaction.newest < cursor else None
        began_anew = transaction.newest < cursor or transaction.store.began_anew(cursor, read_at)
        return 0 if began_anew else None

    def start(self, cursor: int) -> Callable[[], None]:
        """Read on from the message with this id: nothing up to it was meant for this process. Return what undoes it."""
        with self._database.reading:
            before = self._boxes.cursor, self._is_registered, self._read_at
            self._set(cursor, True, time.time())
            self._own.clear()
            self._boxes.note_gaps()

        def undo() -> None:
            with self._database.reading:
                self._set(*before)

        return undo

    def _set(self, cursor: int, is_registered: bool, read_at: float) -> None:  # as `before` has them
        self._boxes.read_on(cursor)
        self._is_registered, self._read_at = is_registered, read_at

    def stop(self) -> None:
        """Note that this process is no reader any more."""
        self._is_registered = False


def _nothing() -> None:
    pass
