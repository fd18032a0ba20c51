"""A process's place among those that share the file: its lock file, and its wake-up socket.

On the background thread, but for `wake_socket`, which any thread may look at, and `abandon`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable

from channels_sqlite.processes.lock_files import LockFile
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.processes.notes import Note
from channels_sqlite.reports import Reports
from channels_sqlite.waking.wake_socket import WakeSocket, have_unix_datagrams

__all__ = ["Seat"]

logger = logging.getLogger(__name__)

FOLDER_ATTEMPTS = 3


class Seat:
    """Shows that a process lives, and where to wake it."""

    def __init__(self, client: str, prefix: str, reports: Reports) -> None:
        self._client = client
        self._prefix = prefix
        self._reports = reports
        self._place: MeetingPlace | None = None
        self._lock_file: LockFile | None = None
        self.wake_socket: WakeSocket | None = None
        self.on_dropped: list[Callable[[], object]] = []  # have all that watch the wake-up socket leave it
        self._started_at = time.time()
        self._no_socket_because = ""

    @property
    def address(self) -> str:
        """Where others find the wake-up socket; "" while there is none."""
        return "" if self.wake_socket is None else self.wake_socket.address

    def move_to(self, place: MeetingPlace) -> None:
        """Be there from the next call on: another file was opened."""
        self._place = place

    def note(self) -> None:
        """Write down what this process has done so far, for `channels_status`; it shows by that that it lives."""
        note = Note(self._client, os.getpid(), self._prefix, self._started_at, self._reports.counters)
        try:
            self._hold_lock_file()
            if self._lock_file is not None:
                self._lock_file.write(note.encode())
        except OSError as error:
            self._reports.failed("writing down the counters", error)

    def take(self) -> None:
        """Hold the lock file and bind the wake-up socket; anew where something removed them.

        Raises OSError where the lock file cannot be held.
        """
        if self._place is None:
            return
        self._hold_lock_file()
        if self.wake_socket is not None and (self.wake_socket.missing() or not self.wake_socket.is_in(self._place)):
            self._drop_wake_socket()
        if self.wake_socket is None and have_unix_datagrams():
            self._bind_wake_socket(self._place)

    def keep(self) -> None:
        """Like `take`, for one that is registered: what cannot be done is tried again every second."""
        try:
            self.take()
        except OSError as error:
            self._reports.failed("holding the lock file", error)

    def _hold_lock_file(self) -> None:
        """Hold the lock file where the processes meet now; raises OSError where that cannot be done."""
        if self._place is None:
            return
        for attempts_left in reversed(range(FOLDER_ATTEMPTS)):
            try:
                self._place.make_sure()
                self._lock_in(self._place)
            except (FileNotFoundError, NotADirectoryError):  # somebody removes the folder just now
                if not attempts_left:
                    raise
            else:
                return

    def _lock_in(self, place: MeetingPlace) -> None:
        path = place.path(f"{self._client}.lock")
        before = self._lock_file
        if before is not None and before.path == path:
            before.acquire()
            return
        self._lock_file = LockFile(path, place.rights)
        if before is not None:  # not earlier: whoever has no lock file may be taken for dead
            before.release()

    def _bind_wake_socket(self, place: MeetingPlace) -> None:
        try:
            self.wake_socket = WakeSocket(place, self._client)
        except OSError as error:
            if self._no_socket_because != str(error):  # it is tried again every second
                self._no_socket_because = str(error)
                logger.warning("no wake-up socket (%s); messages are found by polling alone", error)
            return
        self._no_socket_because = ""

    def _drop_wake_socket(self) -> None:
        """Remove the socket, and have all who watch it let go of it."""
        if self.wake_socket is not None:
            dropped, self.wake_socket = self.wake_socket, None
            dropped.close()
            for tell in self.on_dropped:
                tell()

    def leave(self) -> None:
        """Remove the lock file and the socket."""
        try:
            self._drop_wake_socket()
        finally:
            lock_file, self._lock_file = self._lock_file, None
            if lock_file is not None:
                lock_file.release()

    def die(self) -> None:
        """Look dead, so that the others clean up after this process."""
        self._drop_wake_socket()
        if self._lock_file is not None:
            self._lock_file.unlock()
            self._lock_file = None

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without touching it."""
        if self.wake_socket is not None:
            self.wake_socket.abandon()
