"""The largest id of which anybody was told, noted in a file beside the database.

Processes that die take nothing with them: what they have committed is in the system's memory, like this file. So a
database whose newest id is smaller than what is noted here has lost commits, be it that its WAL was cut off or that an
older copy took its place. Another boot is another matter: then the file says nothing, and who reads it looks at that.
"""

from __future__ import annotations

import logging
import os
import threading

from channels_sqlite.processes.lock_files import is_open_as
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.processes.sharing import Rights, make_file, tell_unusable

__all__ = ["NAME", "GivenIds"]

logger = logging.getLogger(__name__)

NAME = "history"
DIGITS = 19  # of an id of SQLite's
FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW if hasattr(os, "O_NOFOLLOW") else 0


class GivenIds:
    """The note of one database, as one process has it open.

    Threads: any may call. `_lock` is held for system calls that do not wait, and nothing is locked inside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._database_path = ""
        self._path = ""
        self._fd = -1
        self._known = 0  # what the file holds, at least
        self._refused = False  # the file is there, and is of no use to this user for now

    def open(self, database_path: str, *, make: bool) -> bool:
        """Open the note of a database; return whether there was one, or none can be had (as in memory, with "").

        `make`: make it where it is missing.
        """
        with self._lock:
            if database_path != self._database_path:
                self._close()
                self._database_path = database_path
            if not database_path or not hasattr(os, "pread"):
                return True
            if self._fd >= 0 and is_open_as(self._fd, self._path):
                return True
            try:
                return self._open(database_path, make=make)
            except OSError as error:
                self._refused = True
                tell_unusable(
                    self._path, error, "a loss of the last messages may go unnoticed by those who read a history"
                )
                return True

    def _open(self, database_path: str, *, make: bool) -> bool:
        place = MeetingPlace(database_path, make=make)
        path = place.path(NAME)
        known = self._read()  # by a file that something has removed
        self._close()
        self._path = path
        existed = True
        try:
            self._fd = os.open(path, os.O_RDWR | FLAGS)
        except FileNotFoundError:
            existed = False
            if make:
                self._fd = _make(path, place.rights)
        if known:
            self._note(known)
        return existed or bool(known)

    @property
    def is_open(self) -> bool:
        """Whether there is a file to note in. Takes no lock."""
        return self._fd >= 0

    def largest(self) -> int:
        """Return what is noted; 0 where nothing is."""
        with self._lock:
            return self._read()

    def _read(self) -> int:
        if self._fd < 0:
            return 0
        try:
            digits = os.pread(self._fd, DIGITS, 0)
            self._known = max(self._known, int(digits or 0))
        except (OSError, ValueError) as error:  # somebody else has written there
            logger.debug("the note of ids cannot be read: %s", error)
        return self._known

    def note(self, row_id: int) -> None:
        """Have the file hold this id, or a larger one. Never raises."""
        if row_id > self._known:
            with self._lock:
                self._note(row_id)

    def _note(self, row_id: int) -> None:
        if self._fd < 0 or row_id <= self._read():
            return
        try:
            os.pwrite(self._fd, b"%0*d" % (DIGITS, row_id), 0)
        except OSError as error:  # a full disk: what is noted is too small, and nothing else is lost
            logger.debug("the note of ids cannot be written: %s", error)
        else:
            self._known = row_id

    def keep(self) -> None:
        """Make the file anew where something removed it, or try again to open it, as long as it is in use."""
        if self._fd >= 0 or self._refused:
            self.open(self._database_path, make=True)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()
            self._database_path = ""

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        self._known = 0
        self._refused = False

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()


def _make(path: str, rights: Rights | None) -> int:
    try:
        return make_file(path, os.O_RDWR | FLAGS, rights)
    except FileExistsError:  # somebody was quicker
        return os.open(path, os.O_RDWR | FLAGS)
