"""The kernel's word that somebody writes to a file: inotify, for which Python has no call of its own (Linux alone)."""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from functools import lru_cache

__all__ = ["WriteAlarm"]

# https://man7.org/linux/man-pages/man7/inotify.7.html
IN_MODIFY = 0x00000002
IN_ONESHOT = 0x80000000


@lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


class WriteAlarm:
    """Rings once at the next write to a file, by any process: its descriptor gets readable.

    Setting it does not open the file, which would drop SQLite's locks. For one thread at a time.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._close: weakref.finalize[..., WriteAlarm] | None = None

    def set(self, path: str) -> bool:
        """Have it ring at the next write to the file at `path`; return False where it cannot."""
        if not sys.platform.startswith("linux"):
            return False
        libc = _libc()
        if self._fd < 0:
            self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._fd < 0:  # each user may have some hundred
                return False
            self._close = weakref.finalize(self, os.close, self._fd)
            self._close.atexit = False
        self._drain()
        watch: int = libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(IN_MODIFY | IN_ONESHOT))
        return watch >= 0

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 4096):
                pass
        except BlockingIOError:  # empty
            pass

    def fileno(self) -> int:
        """Return the descriptor, or -1 as long as it was never set."""
        return self._fd

    def close(self) -> None:
        """Close what was opened; in a forked child this leaves the parent's alone. It may be set again."""
        self._fd = -1
        if self._close is not None:
            self._close()
