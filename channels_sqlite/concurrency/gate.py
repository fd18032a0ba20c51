"""What a thread waits at, and what ends its waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Gate", "Stop"]


class Gate:
    """What a thread waits at. Opening it takes no lock, so that a signal handler may do it at any moment."""

    __slots__ = ("_lock", "error", "opened", "poke")

    def __init__(self, poke: Callable[[], object] | None = None) -> None:
        """`poke` is called when the gate is opened while its thread waits elsewhere; see `thread_watch`."""
        self._lock = threading.Lock()  # a bell: its thread waits for another one to release it, and holds no other lock
        self._lock.acquire(blocking=False)
        self.opened = False
        self.error: Exception | None = None
        self.poke = poke

    def open(self) -> None:
        """Let the thread pass: now, or when it comes."""
        self.opened = True
        self.nudge()
        if self.poke is not None:
            self.poke()

    def nudge(self) -> None:
        """Have the thread look around, without opening the gate."""
        try:
            self._lock.release()
        except RuntimeError:  # nudged already
            pass

    def fail(self, error: Exception) -> None:
        """Let the thread pass, to raise `error`."""
        self.error = error
        self.open()

    def shut(self) -> None:
        """Shut it, before looking for what it will be opened for."""
        self.opened = False

    def sleep(self, until: float | None) -> bool:
        """Sleep until opened, nudged, or the monotonic time `until`; return False when that has come."""
        if until is None:
            return self._lock.acquire()
        # https://docs.python.org/3/library/threading.html#threading.TIMEOUT_MAX
        timeout_s = min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
        return self._lock.acquire(timeout=timeout_s)

    def wait(self) -> None:
        """Sleep until opened."""
        while not self.opened:
            self.sleep(None)


class Stop:
    """Ends a `listen()`, from another thread or from a signal handler. `gate` is where its thread waits."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.requested = False

    def __call__(self) -> None:
        """Request the end."""
        self.requested = True
        self.gate.open()
