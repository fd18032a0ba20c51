"""Sending what was scheduled once it is due: who looks, and when.

One process is elected to look: the reader that registered before all others. It sets a timer to the moment when the
next message is due, and whoever schedules an earlier one wakes it. That is all that happens while everybody is well.

Any process may do it in its place, for what is due is sent in the transaction that takes it out of the schedule. So
each looks once a second, at its tick, and those that wait for messages set a timer of their own a little later than
that of the elected one: it may have been killed and not be buried yet, or suspended.

Threads: `look` runs on the background thread, `read` and `follow` in whatever thread has the reader's turn.
"""

from __future__ import annotations

import math
import sqlite3
import time

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.delivery.schedule import Schedule
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections, OpenDatabase
from channels_sqlite.storage.errors import is_busy
from channels_sqlite.storage.outbox import Outbox

__all__ = ["DueMessages"]

TRY_AGAIN_S = 1.0  # between two tries at a full channel
STAND_IN_S = 0.4  # later than the one that is elected
STAND_IN_TRIES_S = 3.0  # likewise, for what is held up
ROUND_S = 0.25  # the longest that is sent in one go: other jobs wait for it
LONGEST_S = 86400.0  # until the next look: no lock can be waited on for centuries


class DueMessages:
    """Looks for one layer in one process."""

    def __init__(
        self,
        client: str,
        schedule: Schedule,
        *,
        database: OpenDatabase,
        outbox: Outbox,
        background: BackgroundThread,
        reports: Reports,
    ) -> None:
        self._client = client
        self._schedule = schedule
        self._database = database
        self._outbox = outbox
        self._background = background
        self._reports = reports
        self._elected = False
        self._next_due = math.inf  # as far as this process knows; seconds since 1970
        self._sooner = False  # something is due earlier than the timer says
        self._tried_again_at = -math.inf  # monotonic
        background.on_alarm = self.look

    def look(self) -> None:
        """Send what is due, and set the timer to what comes next. What fails is told, and tried again soon."""
        next_s = TRY_AGAIN_S
        try:
            next_s = self._look()
        except Exception as error:  # noqa: BLE001  # told, whatever it is: this must go on
            if not isinstance(error, sqlite3.Error) or not is_busy(error):
                self._reports.failed("sending what is due", error)
        finally:
            self._background.set_alarm(None if math.isinf(next_s) else next_s)

    def _look(self) -> float:
        """Do what there is to do; return the seconds until there is more."""
        connections = self._database.connections
        if connections is None or not self._database.is_sound():
            return math.inf  # a tick opens it again
        store = connections.patient.store
        ends = time.monotonic() + ROUND_S
        self._elected = store.eldest_reader() in (None, self._client)
        agenda = store.agenda()
        if agenda.held_up and self._tries_again_in_s() <= 0:
            self._tried_again_at = time.monotonic()
            self._try_again()
        more = agenda.next_due is not None and agenda.next_due <= time.time()
        while more and time.monotonic() < ends:
            more = self._outbox.run_patiently(self._schedule.send_due)
        agenda = store.agenda()
        self._next_due = math.inf if agenda.next_due is None else agenda.next_due
        next_s = self._next_due - time.time()
        if not self._elected:
            next_s += STAND_IN_S
        if agenda.held_up:
            next_s = min(next_s, self._tries_again_in_s())
        return next_s if math.isinf(next_s) else min(max(0.0, next_s), LONGEST_S)

    def _tries_again_in_s(self) -> float:
        pause_s = TRY_AGAIN_S if self._elected else STAND_IN_TRIES_S
        return self._tried_again_at + pause_s - time.monotonic()

    def _try_again(self) -> None:
        after: str | None = ""
        while after is not None:
            name = after
            after = self._outbox.run_patiently(lambda transaction: self._schedule.try_again(transaction, name))  # noqa: B023

    # In the reader's turn, and after it

    def read(self, connections: Connections, *, behind: bool) -> bool:
        """Where this process is the one that looks: see whether it was woken for something earlier."""
        if behind and self._elected:
            next_due = connections.reader.store.next_due()
            if next_due is not None and next_due < self._next_due:
                self._next_due = next_due
                self._sooner = True
        return False

    def follow(self) -> None:
        """Look, as soon as the thread comes to it."""
        if self._sooner:
            self._sooner = False
            try:
                self._background.submit(self.look)
            except ChannelDatabaseError as error:  # no thread for it; told by those who need one
                self._reports.failed("sending what is due", error)
