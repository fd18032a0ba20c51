"""A process's entry among the readers: its row, its lock file, its wake-up socket.

All methods run on the background thread, but `publish_soon`, which any thread may call, and `abandon`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.inbox import Inbox
from channels_sqlite.notes import Note
from channels_sqlite.outbox import Outbox, Transaction, Write
from channels_sqlite.presence import LockFile, MeetingPlace, machine_id
from channels_sqlite.reports import Reports
from channels_sqlite.store import ProcessRow
from channels_sqlite.wakeup import WakeSocket, have_unix_datagrams

__all__ = ["Registration"]

logger = logging.getLogger(__name__)

IDLE_LISTENER_S = 30.0
LEAVE_PATIENCE_S = 3.0


class Registration:
    """Makes one reader known to senders and to the sweep, and keeps it known."""

    def __init__(
        self,
        client: str,
        prefix: str,
        *,
        inbox: Inbox,
        outbox: Outbox,
        reports: Reports,
        let_go: Callable[[], None],
        submit: Callable[[Callable[[], object]], None],
    ) -> None:
        """`let_go` has all that watch the wake-up socket leave it, `submit` runs a job on the background thread."""
        self._client = client
        self._prefix = prefix
        self._inbox = inbox
        self._outbox = outbox
        self._reports = reports
        self._let_go = let_go
        self._submit = submit
        self._place: MeetingPlace | None = None
        self._lock_file: LockFile | None = None
        self.wake_socket: WakeSocket | None = None
        self._started_at = time.time()
        self._publishing = False
        self.done = False

    def appear(self, place: MeetingPlace) -> None:
        """Show that this process lives, and leave it at that: it may never receive."""
        self._move_to(place)
        self.note()

    def note(self) -> None:
        """Write down what this process has done so far, for `status`."""
        note = Note(self._client, os.getpid(), self._prefix, self._started_at, self._reports.counters)
        try:
            self._hold_lock_file()
            if self._lock_file is not None:
                self._lock_file.write(note.encode())
        except OSError as error:
            self._reports.failed("writing down the counters", error)

    def enter(self, place: MeetingPlace) -> None:
        """Register; what is sent from now on is read."""
        self._move_to(place)
        self._take_place()
        self._write(lambda transaction: transaction.newest)
        self.done = True

    def enter_again(self, place: MeetingPlace, *, same_file: bool, since: float) -> None:
        """Register after the database was opened again, with the memberships and what is listened to.

        In the same file reading goes on where it was; in one that took the place of another it begins with what was
        sent after `since` (seconds since 1970), when the old file was last seen in its place.
        """

        def cursor(transaction: Transaction) -> int:
            read = self._inbox.unread().cursor
            if same_file and read <= transaction.newest:
                return read
            return transaction.store.newest_id_before(since)

        self._move_to(place)
        self._take_place()
        self._write(cursor)

    def _write(self, cursor_in: Callable[[Transaction], int]) -> None:
        address = "" if self.wake_socket is None else self.wake_socket.address
        memberships = self._inbox.memberships()
        listening = self._inbox.claims.listening()

        def apply(transaction: Transaction) -> None:
            store = transaction.store
            cursor = cursor_in(transaction)
            store.register(
                ProcessRow(self._client, os.getpid(), machine_id(), address, cursor, held=0, channels=0),
                transaction.now,
            )
            for group, channel, expires_at in memberships:
                joined_id = store.join(
                    group, self._client, channel, joined_id=cursor, expires_at=expires_at, now=transaction.now
                )
                self._inbox.joined(group, channel, joined_id, expires_at)
            for channel in listening:
                store.listen(channel, self._client)
            self._inbox.start(cursor)

        self._outbox.run_patiently(apply)
        self._inbox.forget_published()
        self._inbox.pull()

    # The lock file and the socket

    def _move_to(self, place: MeetingPlace) -> None:
        if self._place is not None and self._place.folder != place.folder:
            self.leave_place()
        self._place = place

    def _hold_lock_file(self) -> None:
        if self._place is not None:
            if self._lock_file is None:
                self._lock_file = LockFile(self._place.path(f"{self._client}.lock"))
            self._lock_file.acquire()

    def _take_place(self) -> None:
        """Hold the lock file and bind the wake-up socket; anew where something removed them."""
        if self._place is None:
            return
        self._hold_lock_file()
        if self.wake_socket is not None and self.wake_socket.missing():
            self._drop_wake_socket()
        if self.wake_socket is None and have_unix_datagrams():
            try:
                self.wake_socket = WakeSocket(self._place, self._client)
            except OSError as error:
                logger.warning("no wake-up socket (%s); messages are found by polling alone", error)

    def _drop_wake_socket(self) -> None:
        """Close the socket once no loop watches it: a loop must not keep the number of a closed descriptor."""
        if self.wake_socket is not None:
            dropped, self.wake_socket = self.wake_socket, None
            self._let_go()
            dropped.close()

    def leave_place(self) -> None:
        """Remove the lock file and the socket."""
        self._drop_wake_socket()
        if self._lock_file is not None:
            self._lock_file.release()
            self._lock_file = None

    # What senders know

    def publish_soon(self) -> None:
        """Tell senders how far this process has read."""
        if not self._publishing and self.done:
            self._publishing = True
            self._outbox.post(self._publish, self._published)

    def _publish(self, transaction: Transaction) -> bool:
        cursor, held, channels = self._inbox.note_published()
        return transaction.store.publish(self._client, cursor=cursor, held=held, channels=channels)

    def _published(self, write: Write[bool]) -> None:
        self._publishing = False
        if write.error is not None:
            self._inbox.forget_published()
        elif not write.result and self.done:
            logger.warning("the registration of client %s was gone; registering again", self._client)
            self._submit(self._again)

    def _again(self) -> None:
        if self.done and self._place is not None:
            try:
                self.enter_again(self._place, same_file=True, since=time.time())
            except ChannelDatabaseError as error:
                self._reports.failed("registering again", error)

    def keep_up(self) -> None:
        """Do what is due every second."""
        self._take_place()
        if self._inbox.unpublished():
            self.publish_soon()
        for channel in self._inbox.claims.idle_channels(IDLE_LISTENER_S):
            self._unlisten(channel)

    def _unlisten(self, channel: str) -> None:
        def apply(transaction: Transaction) -> None:
            if not self._inbox.claims.listens(channel):  # a receiver may have come since
                transaction.store.unlisten(channel, self._client)

        self._outbox.run_patiently(apply)

    # The end

    def leave(self) -> None:
        """Leave the database as if this process had never been there; others do it when that fails."""
        if self.done:
            self.done = False
            cursor = self._inbox.unread().cursor
            try:
                self._outbox.run_patiently(
                    lambda transaction: transaction.store.forget(self._client, cursor), LEAVE_PATIENCE_S
                )
            except Exception as error:  # noqa: BLE001  # the sweep of the others does it then
                logger.info("left to the other processes to clean up after client %s: %s", self._client, error)
                self._drop_wake_socket()
                if self._lock_file is not None:
                    self._lock_file.unlock()
                    self._lock_file = None

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without touching it."""
        if self.wake_socket is not None:
            self.wake_socket.abandon()
        self.done = False
