"""A queue that signal handlers and finalizers may put into, and at which one thread waits until a moment.

That is `queue.SimpleQueue`, but for its own waiting, which may not end on Python 3.10: it computes anew how long
that is once it has taken its lock, and where the thread lost its processor there, the negative time stands for ever.
"""

from __future__ import annotations

import queue
from typing import Generic, TypeVar

from channels_sqlite.concurrency.gate import Gate

__all__ = ["TimedQueue"]

T = TypeVar("T")


class TimedQueue(Generic[T]):
    """Any thread may put, and take without waiting; one waits."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._bell = Gate()

    def put(self, item: T) -> None:
        """Put it, and wake the thread that waits."""
        self._items.put(item)
        self._bell.nudge()

    def get(self, until: float | None) -> T:
        """Take the oldest item; wait for one until the monotonic time `until`, None: for ever.

        Raises queue.Empty.
        """
        while True:
            try:
                return self._items.get_nowait()
            except queue.Empty:
                if not self._bell.sleep(until):
                    raise

    def get_nowait(self) -> T:
        """Take the oldest item. Raises queue.Empty."""
        return self._items.get_nowait()

    def empty(self) -> bool:
        """Whether there is none at this moment."""
        return self._items.empty()
