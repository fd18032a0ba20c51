"""What senders must know of a reader, so that they can judge how full its channels are: how far it has read.

It is written into the reader's row after a tenth of what some channel may hold was received, and every second.
"""

from __future__ import annotations

import threading

from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.queues import Unread
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction, Write

__all__ = ["Progress"]

UNKNOWN = Unread(-1, {}, 0)


class Progress:
    """The progress of one layer in one process. May be called by any thread."""

    def __init__(self, client: str, outbox: Outbox, boxes: Mailboxes) -> None:
        self._client = client
        self._outbox = outbox
        self._boxes = boxes
        self._published = Unread(0, {}, 0)
        self._publishing = threading.Lock()  # held while senders are being told; only ever tried for
        boxes.on_due = self.publish_soon

    def publish_soon(self) -> None:
        """Tell senders how far this process has read."""
        if self._outbox.registration is not None and self._publishing.acquire(blocking=False):
            self._outbox.post(self._publish, self._done)

    def _publish(self, transaction: Transaction) -> None:
        self._published = cursor, held, channels = self._boxes.begin_count()
        transaction.store.publish(self._client, cursor=cursor, held=held, channels=channels)

    def _done(self, write: Write[None]) -> None:
        self._publishing.release()
        if write.error is not None:
            self.forget()

    def publish_if_changed(self) -> None:
        """Tell senders where they know less than there is to know."""
        if self._published != self._boxes.unread():
            self.publish_soon()

    def forget(self) -> None:
        """Note that senders know nothing of what was published."""
        self._published = UNKNOWN
        self._boxes.forget_count()
