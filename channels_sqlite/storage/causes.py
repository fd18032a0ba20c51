"""Why a file or a socket cannot be had: the operating system's errors, each with its own remedy.

SQLite tells few of them: whatever it met, it says "unable to open database file" or "disk I/O error". What it hides is
looked for here.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from channels_sqlite.processes.sharing import describe, user_name

__all__ = ["hidden_errno", "remedy_for_errno"]

DESCRIPTORS = 8  # a connection takes up to five, and what lies around it some more

_RIGHTS = "give its user write permission on the file, its -wal and -shm files and the folder that holds them"

_REMEDIES = {
    errno.EMFILE: (
        "this process has no file descriptor left{limit}; close what it keeps open, or raise the limit (ulimit -n, "
        "LimitNOFILE= in a systemd unit)"
    ),
    errno.ENFILE: "this machine has no file descriptor left; find who keeps so many open, or raise fs.file-max",
    errno.ENOSPC: "the disk is full, of data or of files; free some space",
    errno.EDQUOT: "the disk quota of this process's user is used up; free some space, or raise it",
    errno.EROFS: "the file system is mounted read-only; mount it for writing, or set NAME to a path on another one",
    errno.EACCES: "this process's user {user} may not write {where}; " + _RIGHTS,
    errno.EPERM: "this process's user {user} may not write {where}; " + _RIGHTS,
    errno.EIO: "the disk failed to read or write; look at the kernel's log, check the disk, and that it is a local one",
    errno.ENOMEM: "there is no memory left; stop something, or give this process more",
    errno.ENOBUFS: "there is no memory left for sockets; stop something, or give this machine more",
}


def remedy_for_errno(number: int | None, where: str = "it") -> str:
    """Return what the user can do about an error of the operating system at `where`."""
    remedy = _REMEDIES.get(number or 0, "see what the system says")
    return remedy.format(limit=_limit(), user=user_name(), where=where)


def _limit() -> str:
    try:
        import resource
    except ImportError:  # Windows, or no descriptor left to import it
        return ""
    return f" (it may have {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"


def hidden_errno(path: str) -> tuple[int | None, str]:
    """Return the error that SQLite met at a database file and does not tell, and where; None where nothing is found."""
    number = _without_descriptors()
    if number is not None or not path:
        return number, "it"
    folder = str(Path(path).parent)
    if _is_read_only(folder):
        return errno.EROFS, folder
    refused = _refused(path, folder)
    if refused:
        return errno.EACCES, refused
    return (errno.ENOSPC if _is_full(folder) else None), folder


def _without_descriptors() -> int | None:
    opened: list[int] = []
    try:
        while len(opened) < DESCRIPTORS:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno if error.errno in (errno.EMFILE, errno.ENFILE) else None
    finally:
        for fd in opened:
            os.close(fd)
    return None


def _is_read_only(folder: str) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):  # Windows; or no such folder
        return False


def _is_full(folder: str) -> bool:
    try:
        space = os.statvfs(folder)
    except (AttributeError, OSError):
        return False
    return space.f_bavail == 0 or (space.f_files > 0 and space.f_favail == 0)


def _refused(path: str, folder: str) -> str:
    """Return which of the database's files, or its folder, this process may not write, described; or ""."""
    effective = os.access in os.supports_effective_ids
    for file in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK, effective_ids=effective):
            return f"the file {describe(file)}"
    if Path(folder).is_dir() and not os.access(folder, os.W_OK | os.X_OK, effective_ids=effective):
        return f"the folder {describe(folder)}"
    return ""
