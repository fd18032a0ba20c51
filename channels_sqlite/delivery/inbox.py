"""What one layer receives in one process: the parts of `delivery`, put together, as receivers and the engine see them.

    reader ─ turns ─► log ────► mailboxes ─────► take_or_wait
                └───► claims ─► claimed boxes ────┘

Threads: everything may be called from any thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from channels_sqlite.delivery.abandoned import Abandoned
from channels_sqlite.delivery.attendance import Attendance, Here
from channels_sqlite.delivery.audience import Audience
from channels_sqlite.delivery.claimed_boxes import ClaimedBoxes
from channels_sqlite.delivery.claims import Claims
from channels_sqlite.delivery.departures import Departures
from channels_sqlite.delivery.epochs import Epochs
from channels_sqlite.delivery.leavers import Leavers
from channels_sqlite.delivery.lines import Taken
from channels_sqlite.delivery.log import Log
from channels_sqlite.delivery.mailbox import Waiter
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.members import Members
from channels_sqlite.delivery.notices import Notices
from channels_sqlite.delivery.own_changes import OwnChanges
from channels_sqlite.delivery.progress import Progress
from channels_sqlite.delivery.reader import Reader
from channels_sqlite.delivery.telling import Telling
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import OpenDatabase
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.waking.wakeups import Wakeups

__all__ = ["Inbox"]

C = TypeVar("C")
W = TypeVar("W", bound=Waiter)


class Inbox:
    """The receiving half of a layer."""

    def __init__(
        self,
        client: str,
        options: Options,
        database: OpenDatabase,
        *,
        outbox: Outbox,
        wakeups: Wakeups,
        reports: Reports,
    ) -> None:
        self._options = options
        self._reports = reports
        self.reader = Reader(database, reports)
        self.boxes = Mailboxes(options, reports.counters)
        self.changes = OwnChanges()
        self.changes.on_end = self.reader.pull
        self.members = Members(self.boxes, self.changes)
        self.audience = Audience(self.boxes, self.members, self.changes)
        self.epochs = Epochs()
        self.log = Log(
            client,
            database,
            outbox,
            reader=self.reader,
            boxes=self.boxes,
            members=self.members,
            audience=self.audience,
            changes=self.changes,
            epochs=self.epochs,
            reports=reports,
        )
        self.claimed = ClaimedBoxes(reports.counters)
        self.log.on_flush = self.claimed.clear
        self.claims = Claims(
            client,
            outbox,
            self.claimed,
            self.reader,
            reports,
            epochs=self.epochs,
            delete=options.message_retention == 0,
        )
        self.progress = Progress(client, outbox, self.boxes)
        here = Here(self.boxes, self.members, self.audience, self.changes)
        self.notices = Notices(client, options, self.log)
        telling = Telling(client, options, self.notices, wakeups)
        self.attendance = Attendance(options, here, self.notices, telling)
        self.departures = Departures(client, options, here, self.attendance, telling)
        self.leavers = Leavers(outbox, self.boxes, self.attendance, reports)
        self._abandoned = Abandoned(outbox, here, self.attendance, reports, batch_size=options.trim_batch_size)

    def lines_of(self, channel: str) -> Mailboxes | ClaimedBoxes:
        """Return where receivers on `channel` stand in line."""
        return self.boxes if "!" in channel else self.claimed

    def take_or_wait(self, channel: str, new_waiter: Callable[[str, C], W], context: C) -> Taken | W:
        """Take the next message for `channel`, or stand in line for it with a `new_waiter(channel, context)`.

        The caller ends waiting with `take_woken` or `give_up` of `lines_of(channel)`. Raises LayerClosedError once
        nobody receives any more.
        """
        if self.reader.wanted:  # what was sent before must find the mailboxes as they were then
            self.reader.work()
        if "!" in channel:
            return self.boxes.take_or_wait(channel, new_waiter, context)
        found = self.claimed.take_or_wait(channel, new_waiter, context)
        if isinstance(found, Waiter):
            self.claims.note_waiting(channel)
        return found

    def sweep(self, *, loops_closed: bool) -> None:
        """Drop expired messages and memberships, receivers whose loop has stopped, and who was abandoned.

        `loops_closed`: there may be receivers whose loop was closed. On the background thread.
        """
        ended = self.members.drop_expired(time.time())
        for channel in self.boxes.sweep(all_waiters=loops_closed, is_member=self.audience.is_anywhere):
            self.boxes.wake(channel)
        for channel in self.claimed.sweep():
            self.claims.hand_on(channel)
        self.boxes.note_gaps([channel for _, channel in ended])
        for group, channel in ended:
            self._reports.membership_ended(group, channel, self._options.group_expiry)
        self._abandoned.end_memberships()
        self.leavers.retry()

    def shut(self, *, tell: bool = True) -> None:
        """Fail every receiver, those included that are on their way to wait.

        `tell`: also those that wait already. At the interpreter's end they are of threads that end with it.
        """
        gates = self.claims.shut()
        waiters = [*self.boxes.shut(), *self.claimed.shut()]
        if not tell:
            return
        for gate in gates:
            gate.fail(LayerClosedError("the channel layer was closed"))
        for waiter in waiters:
            waiter.fail(LayerClosedError("the channel layer was closed"))

    def abandon(self) -> None:
        """In a forked child: threads of the parent may hold the locks for ever."""
        self.epochs.given.abandon()
        self.claims.abandon()
        self.changes.abandon()
        self.members.abandon()
        self.audience.abandon()
        self.boxes.abandon()
        self.claimed.abandon()
