"""Who waits for messages: coroutines on event loops, and threads.

Waking is a hint and hands over nothing: whoever is woken looks for a message, and finds one, or waits again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from channels_sqlite.loops import call_in

if TYPE_CHECKING:
    from channels_sqlite.mailboxes import Mailbox

__all__ = ["Gate", "LoopWaiter", "ThreadWaiter", "Waiter"]


class Waiter:
    """One waiting `receive()`, standing in line on one channel."""

    __slots__ = ("box", "channel", "late", "woken")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.box: Mailbox | None = None  # in which it stands in line
        self.woken = False
        self.late = False  # was woken before the last sweep and has not come since

    @property
    def gone(self) -> bool:
        """Whether nobody can come any more."""
        raise NotImplementedError

    def notify(self, here: asyncio.AbstractEventLoop | None) -> bool:
        """Wake it, from any thread, in which the loop `here` runs; return False when it is gone."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """End its waiting with an error, from any thread."""
        raise NotImplementedError


class LoopWaiter(Waiter):
    """A coroutine that waits on an event loop."""

    __slots__ = ("future", "loop")

    def __init__(self, channel: str, loop: asyncio.AbstractEventLoop) -> None:
        self.channel = channel  # no call of super() for every message that is waited for
        self.box = None
        self.woken = False
        self.late = False
        self.loop = loop
        self.future: asyncio.Future[None] = loop.create_future()

    @property
    def gone(self) -> bool:
        """Whether its loop is closed."""
        return self.loop.is_closed()

    def notify(self, here: asyncio.AbstractEventLoop | None) -> bool:
        """Wake it, from any thread, in which the loop `here` runs; return False when its own loop is closed."""
        if here is self.loop:
            future = self.future
            if not future.done():
                future.set_result(None)
            return True
        return call_in(self.loop, _set_result, self.future)

    def fail(self, error: Exception) -> None:
        """End its waiting with an error, from any thread."""
        call_in(self.loop, _set_exception, self.future, error)


def _set_result(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _set_exception(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class Gate:
    """What a thread waits at. Opening it takes no lock, so that a signal handler may do it at any moment."""

    __slots__ = ("_lock", "error", "opened", "poke")

    def __init__(self, poke: Callable[[], object] | None = None) -> None:
        """`poke` is called when the gate is opened while its thread waits elsewhere; see `watching`."""
        self._lock = threading.Lock()
        self._lock.acquire()
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


class ThreadWaiter(Waiter):
    """A thread that waits; it may stand in several lines, with one gate for all."""

    __slots__ = ("gate",)

    def __init__(self, channel: str, gate: Gate) -> None:
        super().__init__(channel)
        self.gate = gate

    @property
    def gone(self) -> bool:
        """A thread leaves its lines before it ends."""
        return False

    def notify(self, here: asyncio.AbstractEventLoop | None) -> bool:  # noqa: ARG002  # a thread has no loop
        """Wake it, from any thread."""
        self.gate.open()
        return True

    def fail(self, error: Exception) -> None:
        """End its waiting with an error, from any thread."""
        self.gate.fail(error)
