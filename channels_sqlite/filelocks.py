"""`flock` on files, which the kernel releases when the last process that has the file open goes.

A forked child shares its parent's open files, and so would keep its parent's locks. Every locked descriptor is noted
here, and a child closes its copies first of all; that leaves the parent's locks alone.
"""

from __future__ import annotations

import os
import threading
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["give", "have_flock", "take"]

_locked: set[int] = set()
_opening = threading.Lock()  # held from opening a file until it is noted, and by a fork


def have_flock() -> bool:
    """Whether this platform has flock."""
    return fcntl is not None


def take(path: str, *, create: bool) -> int | None:
    """Open `path` and lock it; return the descriptor, or None when somebody else holds the lock.

    Raises OSError where the file cannot be opened, FileNotFoundError when it is missing and `create` is False.
    """
    if fcntl is None:
        raise NotImplementedError("this platform has no flock")
    flags = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    with _opening:
        fd = os.open(path, flags | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return None
        _locked.add(fd)
    return fd


def give(fd: int) -> None:
    """Close a descriptor that `take` returned, and so release its lock."""
    with _opening:
        _locked.discard(fd)
        os.close(fd)


def _after_fork_in_child() -> None:
    for fd in _locked:
        os.close(fd)
    _locked.clear()
    _opening.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_after_fork_in_child)
