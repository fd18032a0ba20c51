"""Files that are locked for as long as their maker lives, or is elected."""

from __future__ import annotations

import errno
import logging
import os
import time
from pathlib import Path

from channels_sqlite.processes import flocks
from channels_sqlite.processes.meeting_place import MeetingPlace, remove
from channels_sqlite.processes.sharing import Rights, tell_unusable

__all__ = ["ElectionLock", "LockFile"]

logger = logging.getLogger(__name__)

ELECTIONS = ("housekeeping", "checkpoint")

SWEEP_LOOKS_S = 0.001
SWEEP_PATIENCE_S = 5.0


class LockFile:
    """A file that exists and is locked for as long as its maker lives."""

    def __init__(self, path: str, rights: Rights | None = None) -> None:
        """Make and lock it; errors as `acquire`."""
        self.path = path
        self._rights = rights
        self._fd = -1
        self._written = b""
        self.acquire()

    def acquire(self) -> None:
        """Make the file and lock it, anew if something (a cleaner of temporary files) removed it.

        Raises OSError where that cannot be done; what was held before is held on.
        """
        if not flocks.have_flock() or (self._fd >= 0 and is_open_as(self._fd, self.path)):
            return
        deadline = time.monotonic() + SWEEP_PATIENCE_S
        while True:
            # A file that is there and not locked, be it for a moment, would show that nobody is there any more.
            fd = flocks.take_new(self.path, self._rights)
            if fd is None:
                if time.monotonic() >= deadline:
                    raise BlockingIOError(errno.EAGAIN, "another process keeps this one's file locked", self.path)
                time.sleep(SWEEP_LOOKS_S)
            elif is_open_as(fd, self.path):
                break
            else:  # a sweep has removed it meanwhile
                flocks.give(fd)
        self.unlock()
        self._fd = fd
        self._written = b""

    def write(self, data: bytes) -> None:
        """Have it hold `data`, of always the same length."""
        if self._fd >= 0 and data != self._written:
            os.pwrite(self._fd, data, 0)
            self._written = data

    def unlock(self) -> None:
        """Release the lock and leave the file: it shows that nobody is there any more."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            flocks.give(fd)

    def release(self) -> None:
        """Remove the file and its lock. A file that cannot be removed shows that nobody is there any more."""
        if self._fd >= 0:
            remove(self.path)
            self.unlock()


class ElectionLock:
    """Elects one process for something, for the length of one `with`.

    Entering gives whether this process is elected. Without flock every process is.
    """

    def __init__(self, place: MeetingPlace, what: str) -> None:
        """`what` is one of ELECTIONS."""
        self._place = place
        self._name = f"{what}.lock"
        self._held: list[int] = []

    def __enter__(self) -> bool:
        if not flocks.have_flock():
            return True
        path = self._place.path(self._name)
        try:
            self._place.make_sure()
            path = self._place.path(self._name)
            elected = self._take(path)
        except OSError as error:
            logger.debug("housekeeping is left to others: %s", error)
            tell_unusable(
                path, error, "it does no checkpoints: if no other process does, the WAL grows until the disk is full"
            )
            return False
        # Others may not have moved to this folder yet.
        if elected and not all(self._take_elsewhere(folder) for folder in self._place.folders()[1:]):
            self._give()
            elected = False
        return elected

    def _take(self, path: str) -> bool:
        fd = flocks.take(path, create=True, rights=self._place.rights)
        if fd is None:
            return False
        if not is_open_as(fd, path):  # removed meanwhile, and others may have made a new one
            flocks.give(fd)
            return False
        self._held.append(fd)
        try:
            os.pwrite(fd, b"%-20d" % os.getpid(), 0)
        except OSError as error:  # open for reading alone, or a full disk
            logger.debug("the pid of who is elected is not written down: %s", error)
        return True

    def _take_elsewhere(self, folder: Path) -> bool:
        try:
            return self._take(str(folder / self._name))
        except OSError as error:  # nobody whom this process could meet there
            logger.debug("no election in %s: %s", folder, error)
            return True

    def __exit__(self, *exception: object) -> None:
        self._give()

    def _give(self) -> None:
        while self._held:
            flocks.give(self._held.pop())

    def holder(self) -> int | None:
        """Return the pid of the process that was elected last, in its own namespace of pids; None: not known."""
        try:
            return int(Path(self._place.path(self._name)).read_bytes())
        except (OSError, ValueError):
            return None


def is_open_as(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False
