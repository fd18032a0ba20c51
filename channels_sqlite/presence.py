"""Being alive, and proving that another process is dead.

Each reader holds a `flock` on a file of its own in the folder `<database>.wake`. The kernel releases it when the
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
from types import ModuleType

from channels_sqlite.store import ProcessRow

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows: nobody can be proven dead there, memberships end by group_expiry
    fcntl = None

__all__ = ["HousekeepingLock", "LockFile", "MeetingPlace", "is_dead", "machine_id", "remove_orphans", "remove_traces"]

logger = logging.getLogger(__name__)

ORPHAN_AGE_S = 60.0


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
        folder = Path(f"{database_path}.wake")
        try:
            mode = Path(database_path).stat().st_mode & 0o666
            folder.mkdir(exist_ok=True)
            if _is_mine(folder):
                folder.chmod(mode | (mode & 0o444) >> 2)  # whoever may read the database may enter
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
        except OSError as error:
            logger.debug("no folder for wake-ups next to the database: %s", error)
    return _fallback_folder(database_path)


def _fallback_folder(database_path: str) -> Path:
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
    own = Path(tempfile.gettempdir()) / f"channels_sqlite-{user}"
    own.mkdir(mode=0o700, exist_ok=True)
    if not _is_mine(own):
        raise PermissionError(errno.EACCES, "the folder for wake-ups belongs to another user", str(own))
    folder = own / hashlib.sha256(os.path.realpath(database_path).encode()).hexdigest()[:16]
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _is_mine(folder: Path) -> bool:
    return not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()


class LockFile:
    """A file that exists and is locked for as long as its maker lives."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self.acquire()

    def acquire(self) -> None:
        """Make the file and lock it, anew if something (a cleaner of temporary files) removed it."""
        if fcntl is None or self._still_there():
            return
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_open_as(fd, self.path):  # else a sweep removed it between the two calls
                break
            os.close(fd)
        self.abandon()
        self._fd = fd

    def _still_there(self) -> bool:
        return self._fd >= 0 and _is_open_as(self._fd, self.path)

    def abandon(self) -> None:
        """Close the file and leave it alone: in a forked child its lock is the parent's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def release(self) -> None:
        """Remove the file and its lock."""
        if self._fd >= 0:
            _unlink(self.path)
            self.abandon()


class HousekeepingLock:
    """Elects one process for housekeeping, for the length of one `with`: checkpoints must never run side by side.

    Entering gives whether this process is elected. Without flock every process is.
    """

    def __init__(self, place: MeetingPlace) -> None:
        self._path = place.path("housekeeping.lock")
        self._fd = -1

    def __enter__(self) -> bool:
        if fcntl is None:
            return True
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            logger.debug("housekeeping is left to others: %s", error)
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def __exit__(self, *exception: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_dead(process: ProcessRow, place: MeetingPlace) -> bool:
    """Whether the kernel shows that a registered process is no more. Its lock file stays, to show it again."""
    if fcntl is None:
        return False
    lock_path = place.path(f"{process.client}.lock")
    try:
        fd = os.open(lock_path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return _is_gone(process)
    except OSError:  # another user's, say
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


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
    if fcntl is None:
        return
    for path in place.folder.glob("*.lock"):
        if path.stem in known or path.stem == "housekeeping":
            continue
        try:
            if time.time() - path.stat().st_mtime < ORPHAN_AGE_S:
                continue
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _unlink(str(path))
            _unlink(str(path.with_suffix(".sock")))
        except OSError:
            pass  # held: its owner is about to register
        finally:
            os.close(fd)


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
