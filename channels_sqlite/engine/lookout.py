"""What is done for those who wait: after a wake-up, and at every poll."""

from __future__ import annotations

import time

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.delivery.reader import Reader
from channels_sqlite.engine.seat import Seat
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import OpenDatabase
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.waking.pace import Duty
from channels_sqlite.waking.wake_socket import WakeSocket
from channels_sqlite.waking.write_alarm import WriteAlarm

__all__ = ["Lookout"]

REOPEN_RETRY_S = 0.5


class Lookout(Duty):
    """The duty of whoever watches."""

    def __init__(
        self,
        interval_s: float,
        *,
        database: OpenDatabase,
        background: BackgroundThread,
        outbox: Outbox,
        reader: Reader,
        seat: Seat,
        reports: Reports,
    ) -> None:
        self.interval_s = interval_s
        self._database = database
        self._background = background
        self._outbox = outbox
        self._reader = reader
        self._seat = seat
        self._reports = reports
        self._reopen_at = 0.0  # monotonic seconds

    @property
    def wake_socket(self) -> WakeSocket | None:
        """The process's own."""
        return self._seat.wake_socket

    def look(self) -> bool:
        """Read; return whether there was anything."""
        before = self._reader.found
        self._reader.pull()
        return self._reader.found != before

    def poll(self) -> bool:
        """Read if others have committed; return whether anything was or may be new."""
        if self._database.is_sound():
            self._outbox.flush_stale()
            return self._reader.poll(self._woken)
        now = time.monotonic()
        if not self._background.stopping.is_set() and now >= self._reopen_at:
            self._reopen_at = now + REOPEN_RETRY_S
            self._background.submit(self.reopen)
        return True

    def _woken(self) -> bool:
        """Whether a wake-up has come that nobody has seen yet."""
        wake = self._seat.wake_socket
        return wake is not None and wake.drain()

    def rest(self, alarm: WriteAlarm) -> bool:
        """Set `alarm`; return whether whatever is committed after the latest poll rings it."""
        connections = self._database.connections
        return (
            connections is not None
            and connections.wal
            and alarm.set(f"{connections.path}-wal")
            and self._reader.nobody_writes()
        )

    def failed(self, what: str, error: Exception) -> None:
        """Report it."""
        self._reports.failed(what, error)

    def reopen(self) -> None:
        """Open the database again, on the background thread; what fails is tried again at the next poll."""
        try:
            self._database.open()
        except Exception as error:  # noqa: BLE001  # reported
            self._reports.failed("opening the database again", error)
        else:
            self._reader.pull()
