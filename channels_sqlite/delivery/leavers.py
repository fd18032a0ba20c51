"""Channels that are given up for good: out of their groups, whatever becomes of who received on them.

Threads: `leave` may be called from any thread, but not by the garbage collector; `retry` on the background thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from channels_sqlite.delivery.attendance import Attendance
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.reports import Reports
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction, Write

__all__ = ["Leavers"]


class Leavers:
    """The process-specific channels of one process that leave, until they have left."""

    def __init__(self, outbox: Outbox, boxes: Mailboxes, attendance: Attendance, reports: Reports) -> None:
        self._outbox = outbox
        self._boxes = boxes
        self._attendance = attendance
        self._reports = reports
        self._leaving: dict[str, Collection[str]] = {}

    def leave(self, channel: str, groups: Collection[str]) -> None:
        """Take a channel out of `groups`, after all that was written before; what waits for it there is dropped.

        Nobody waits for it: what fails is tried again at each sweep, until the layer is closed.
        """
        self._leaving[channel] = groups
        self._outbox.post(self._apply(channel, groups), lambda write: self._done(channel, write))

    def retry(self) -> None:
        """Try again what has failed, or is on its way."""
        for channel, groups in list(self._leaving.items()):
            try:
                self._outbox.run_patiently(self._apply(channel, groups))
            except ChannelDatabaseError as error:
                self._reports.failed("taking channels out of their groups", error)
                return

    def _apply(self, channel: str, groups: Collection[str]) -> Callable[[Transaction], None]:
        def apply(transaction: Transaction) -> None:
            for group in groups:
                self._attendance.discard(group, channel)(transaction)
            transaction.after_commit.append(lambda: self._left(channel))

        return apply

    def _left(self, channel: str) -> None:
        self._boxes.drop(channel)
        self._leaving.pop(channel, None)

    def _done(self, channel: str, write: Write[None]) -> None:
        if write.error is None or not isinstance(write.error, ChannelDatabaseError):
            self._leaving.pop(channel, None)  # a closed layer has no memberships
        else:
            self._reports.failed("taking a channel out of its groups", write.error)
