"""What one elected process does for all, on its background thread: dead processes, trimming, checkpoints.

The election is a `flock` that is held for the length of one round. What a round does may be done twice without harm,
and is, when the elected process does not come to an end: it may have been suspended in the middle of its round.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable

from channels_sqlite.engine.checkpoints import Checkpoints
from channels_sqlite.engine.history_trimming import HistoryTrimming
from channels_sqlite.engine.trimming import ROUND_S, Trimming
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.options import Options
from channels_sqlite.processes import flocks
from channels_sqlite.processes.liveness import is_dead, lives, remove_orphans, remove_traces
from channels_sqlite.processes.lock_files import ElectionLock
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections
from channels_sqlite.storage.errors import is_busy
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

SOONEST_S, LATEST_S = 1.0, 60.0  # between two rounds while there is something to do
ORPHANS_EVERY_S = 4.0  # what is left goes within ten seconds, also when one round is another process's
CLEAR_UP_PATIENCE_S = 0.5
PATIENT_ROUNDS = 3  # that were another process's, one after the other, until this one works beside it


class Housekeeping:
    """One round of `run` does what is due, when no other process is at it."""

    def __init__(
        self,
        client: str,
        options: Options,
        *,
        connections: Connections,
        place: MeetingPlace,
        outbox: Outbox,
        reports: Reports,
    ) -> None:
        self._client = client
        self._options = options
        self._connections = connections
        self._store = connections.patient.store
        self._place = place
        self._outbox = outbox
        self._reports = reports
        self._lock = ElectionLock(place, "housekeeping")
        self.trimming = Trimming(options, self._store, outbox, reports)
        self.histories = HistoryTrimming(options, self._store, outbox, reports)
        self.checkpoints = Checkpoints(connections, place, outbox, reports)
        self._orphans_at = 0.0  # monotonic
        self._not_elected = 0  # rounds one after the other

    def run(self) -> None:
        """Do a round, on the background thread."""
        with self._lock as elected:
            self._not_elected = 0 if elected else self._not_elected + 1
            if not elected and self._not_elected <= PATIENT_ROUNDS:
                return
            # Each for itself: a full disk that keeps one from its work may be what another one mends.
            self._attempt("looking for dead processes", self.bury_the_dead)
            if self._options.auto_trim:
                self._attempt("trimming histories", lambda: self.histories.trim(time.monotonic() + ROUND_S))
                self._attempt("trimming", lambda: self.trimming.trim(time.monotonic() + ROUND_S))
            self._attempt("retiring what has expired", self.trimming.retire_expired)
        self._attempt("a checkpoint", self.checkpoints.do_if_due)

    def due_in_s(self) -> float | None:
        """Return the seconds until the next round is due, when nobody writes; None: never."""
        due_s: float | None = None
        if not self.checkpoints.wal_is_fresh:
            due_s = SOONEST_S
        else:
            kept_due_s = self.histories.due_in_s if self._options.auto_trim else None
            rows_due_s = [due for due in (self.trimming.due_in_s(), kept_due_s) if due is not None]
            if rows_due_s:
                due_s = min(max(min(rows_due_s), SOONEST_S), LATEST_S)
        if not self._connections.path or not flocks.have_flock():
            return due_s
        # Nobody tells when another process dies, or comes.
        return ORPHANS_EVERY_S if due_s is None else min(due_s, ORPHANS_EVERY_S)

    def _attempt(self, what: str, work: Callable[[], object]) -> None:
        try:
            work()
        except sqlite3.Error as error:
            if not is_busy(error):
                self._reports.failed(what, error)
        except ChannelDatabaseError as error:
            self._reports.failed(what, error)

    # Dead processes

    def bury_the_dead(self, patience_s: float | None = None) -> None:
        """Delete memberships and unread messages of processes that the kernel shows to be dead.

        `patience_s`: how long to wait for the write lock each time; None: for the database's time-out.
        """
        for process in self._store.processes():
            if process.client == self._client or not is_dead(process, self._place):
                continue
            client, cursor = process.client, process.cursor

            def forget(transaction: Transaction, client: str = client, cursor: int = cursor) -> None:
                transaction.wake.update(transaction.store.forget(client, cursor))

            self._outbox.run_patiently(forget, patience_s)
            remove_traces(process, self._place)
            self._reports.dead(client, process.pid)
        now = time.monotonic()
        if now >= self._orphans_at:
            self._orphans_at = now + ORPHANS_EVERY_S
            self._forget_strangers(patience_s)
            remove_orphans(self._place, self._is_registered)

    def _is_registered(self, client: str) -> bool:
        return self._store.process(client) is not None

    def _forget_strangers(self, patience_s: float | None) -> None:
        """Delete memberships of clients that are not registered, as when one is added for a process already dead.

        One that lives stays: its row went behind its back, and it is about to register again.
        """
        if all(lives(client, self._place) for client in self._store.strangers()):
            return

        def forget(transaction: Transaction) -> None:
            for client in transaction.store.strangers():
                if not lives(client, self._place):
                    transaction.wake.update(transaction.store.forget(client, transaction.newest))

        self._outbox.run_patiently(forget, patience_s)

    def clear_up(self) -> None:
        """Take along what dead processes left, before this one goes: it may be the last. Never raises."""
        self._orphans_at = 0.0
        try:
            self.bury_the_dead(CLEAR_UP_PATIENCE_S)
        except Exception as error:  # noqa: BLE001  # whoever comes next does it
            logger.debug("left to the next process to clear up: %s", error)
