"""Being alive, and proving that another process is dead.

Each process holds a `flock` on a file of its own in the folder `<database>.wake`. The kernel releases it when the
process dies, however it dies, and at no other time: a suspended process keeps it, and no clock is asked.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import tempfile
import time
from pathlib import Path

from channels_sqlite import filelocks
from channels_sqlite.store import ProcessRow

__all__ = [
    "HousekeepingLock",
    "LockFile",
    "MeetingPlace",
    "existing_folders",
    "is_dead",
    "machine_id",
    "remove_orphans",
    "remove_traces",
]

logger = logging.getLogger(__name__)

ORPHAN_AGE_S = 60.0
SWEEP_LOOKS_S = 0.001


class MeetingPlace:
    """The folder where the processes of one database keep their lock files and wake-up sockets.

    It lies next to the database, so that whoever can open the one can open the other, also from a container that
    mounts that folder under another name. Where it cannot be made, a folder of the user's below the system's
    temporary one serves.
    """

    def __init__(self, database_path: str) -> None:
        self.folder = _make_folder(database_path)

    def path(self, address: str) -> str:
        """Return the path for an address: a name in this folder, or an absolute path."""
        return str(self.folder / address)


def _make_folder(database_path: str) -> Path:
    if database_path:
        folder = folder_beside(database_path)
        try:
            mode = Path(database_path).stat().st_mode & 0o666
            folder.mkdir(exist_ok=True)
            if _is_mine(folder):
                folder.chmod(mode | (mode & 0o444) >> 2)  # whoever may read the database may enter
            if why_unusable(folder) is None:
                return folder
        except OSError as error:
            logger.debug("no folder for wake-ups next to the database: %s", error)
    return _fallback_folder(database_path)


def existing_folders(database_path: str) -> list[Path]:
    """Return the folders where processes of a database may keep their files; nothing is made."""
    return [folder for folder in (folder_beside(database_path), _own_place(database_path)) if folder.is_dir()]


def folder_beside(database_path: str) -> Path:
    """Return the folder next to the database, whether it exists or not."""
    return Path(f"{database_path}.wake")


def own_folder() -> Path:
    """Return the folder of this user's that serves where one next to the database cannot; it need not exist."""
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"channels_sqlite-{user}"


def why_unusable(folder: Path) -> str | None:
    """Return why an existing folder cannot hold lock files and sockets of this process, or None when it can."""
    if not folder.is_dir():
        return "it is no folder"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "this process's user may not write to it"
    return None


def _fallback_folder(database_path: str) -> Path:
    own = own_folder()
    own.mkdir(mode=0o700, exist_ok=True)
    if not _is_mine(own):
        raise PermissionError(errno.EACCES, "the folder for wake-ups belongs to another user", str(own))
    folder = _own_place(database_path)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _own_place(database_path: str) -> Path:
    return own_folder() / hashlib.sha256(os.path.realpath(database_path).encode()).hexdigest()[:16]


def _is_mine(folder: Path) -> bool:
    return not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()


class LockFile:
    """A file that exists and is locked for as long as its maker lives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._written = b""
        self.acquire()

    def acquire(self) -> None:
        """Make the file and lock it, anew if something (a cleaner of temporary files) removed it."""
        if not filelocks.have_flock() or (self._fd >= 0 and _is_open_as(self._fd, self.path)):
            return
        self._written = b""
        while True:
            fd = filelocks.take(self.path, create=True)
            if fd is None:  # a sweep looks whether anybody holds it
                time.sleep(SWEEP_LOOKS_S)
            elif _is_open_as(fd, self.path):
                break
            else:  # a sweep has removed it meanwhile
                filelocks.give(fd)
        self.unlock()
        self._fd = fd

    def write(self, data: bytes) -> None:
        """Have it hold `data`, of always the same length."""
        if self._fd >= 0 and data != self._written:
            os.pwrite(self._fd, data, 0)
            self._written = data

    def unlock(self) -> None:
        """Release the lock and leave the file: it shows that nobody is there any more."""
        if self._fd >= 0:
            filelocks.give(self._fd)
            self._fd = -1

    def release(self) -> None:
        """Remove the file and its lock."""
        if self._fd >= 0:
            _unlink(self.path)
            self.unlock()


class HousekeepingLock:
    """Elects one process for housekeeping, for the length of one `with`: checkpoints must never run side by side.

    Entering gives whether this process is elected. Without flock every process is.
    """

    def __init__(self, place: MeetingPlace) -> None:
        self._path = place.path("housekeeping.lock")
        self._fd: int | None = None

    def __enter__(self) -> bool:
        if not filelocks.have_flock():
            return True
        try:
            self._fd = filelocks.take(self._path, create=True)
        except OSError as error:
            logger.debug("housekeeping is left to others: %s", error)
        return self._fd is not None

    def __exit__(self, *exception: object) -> None:
        if self._fd is not None:
            filelocks.give(self._fd)
            self._fd = None


def is_dead(process: ProcessRow, place: MeetingPlace) -> bool:
    """Whether the kernel shows that a registered process is no more. Its lock file stays, to show it again."""
    if not filelocks.have_flock():
        return False
    try:
        fd = filelocks.take(place.path(f"{process.client}.lock"), create=False)
    except FileNotFoundError:
        return _is_gone(process)
    except OSError:  # another user's, say
        return False
    if fd is not None:
        filelocks.give(fd)
    return fd is not None


def remove_traces(process: ProcessRow, place: MeetingPlace) -> None:
    """Remove what a dead process left in the folder, once nothing is left in the database."""
    for path in (place.path(f"{process.client}.lock"), place.path(process.address)):
        try:
            _unlink(path)
        except OSError as error:  # another user's, or no address
            logger.debug("left behind: %s", error)


def _is_gone(process: ProcessRow) -> bool:
    """Whether a process without a lock file is gone: the machine was restarted, or there is no such process."""
    here_boot, _, here_namespace = machine_id().partition("/")
    boot, _, namespace = process.machine.partition("/")
    if boot != here_boot:
        return bool(boot and here_boot)
    if namespace != here_namespace:
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def remove_orphans(place: MeetingPlace, known: set[str]) -> None:
    """Remove lock files and sockets of clients that are not registered and hold no lock, such as a crash left."""
    if not filelocks.have_flock():
        return
    for path in place.folder.glob("*.lock"):
        if path.stem in known or path.stem == "housekeeping":
            continue
        try:
            if time.time() - path.stat().st_mtime < ORPHAN_AGE_S:
                continue
            fd = filelocks.take(str(path), create=False)
        except OSError:
            continue
        if fd is not None:  # else its owner is about to register
            _unlink(str(path))
            _unlink(str(path.with_suffix(".sock")))
            filelocks.give(fd)


def machine_id() -> str:
    """Return what a pid needs to mean something: the boot, and on Linux the namespace of process ids."""
    return f"{_read('/proc/sys/kernel/random/boot_id')}/{_pid_namespace()}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""


def _is_open_as(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)
