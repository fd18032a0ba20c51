"""`flock` on files, which the kernel releases when the last process that has the file open goes.

A forked child shares its parent's open files, and so would keep its parent's locks. Every locked descriptor is noted
here, and a child closes its copies first of all; that leaves the parent's locks alone.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from types import ModuleType

from channels_sqlite.concurrency import forks
from channels_sqlite.processes.sharing import Rights, draft_of, make_file, share_file

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["give", "have_flock", "take", "take_new"]

# Others may write to the folder: what is no plain file must neither lead elsewhere nor hold anybody up.
FLAGS = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

_locked: set[int] = set()
# Held from opening a file until it is noted, and by a fork, which a signal handler may do in the middle of either.
_opening = threading.RLock()


def have_flock() -> bool:
    """Whether this platform has flock."""
    return fcntl is not None


def take(path: str, *, create: bool, rights: Rights | None = None) -> int | None:
    """Open `path` and lock it; return the descriptor, or None when somebody else holds the lock.

    `create` makes the file where it is missing; `rights` are what a file of this user's gets then. Where others' may
    only be read, that is enough for a lock.

    Raises OSError where the file cannot be opened, FileNotFoundError when it is missing and `create` is False.
    """
    if fcntl is None:
        raise NotImplementedError("this platform has no flock")
    with _opening:
        fd = _open_or_make(path, rights) if create else os.open(path, os.O_RDONLY | FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if create and rights is not None:  # an earlier version may have left it as it was made
                share_file(fd, rights)
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        _locked.add(fd)
    return fd


def take_new(path: str, rights: Rights | None = None) -> int | None:
    """Make a file at `path`, locked from the moment in which it is there, and return its descriptor.

    None asks for another try: a sweep has looked at the file, or removed it, before it was in its place. `rights` as in
    `take`. Raises OSError where the file cannot be made, FileNotFoundError where its folder is missing.
    """
    if fcntl is None:
        raise NotImplementedError("this platform has no flock")
    draft = draft_of(path)
    with _opening:
        try:
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | FLAGS, 0o666)
        except FileExistsError:  # left by an attempt that did not come to its end
            Path(draft).unlink()
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if rights is not None:
                share_file(fd, rights)
            Path(draft).rename(path)
        except (BlockingIOError, FileNotFoundError):
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        _locked.add(fd)
    return fd


def _open_or_make(path: str, rights: Rights | None) -> int:
    while True:
        try:
            return os.open(path, os.O_RDWR | FLAGS)
        except FileNotFoundError:
            try:
                return make_file(path, os.O_RDWR | FLAGS, rights)
            except FileExistsError:  # somebody was quicker
                continue
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return os.open(path, os.O_RDONLY | FLAGS)


def give(fd: int) -> None:
    """Close a descriptor that `take` returned, and so release its lock."""
    with _opening:
        _locked.discard(fd)
        os.close(fd)


def _after_fork_in_child() -> None:
    for fd in _locked:
        os.close(fd)
    _locked.clear()


forks.register_innermost(_opening, _after_fork_in_child)
