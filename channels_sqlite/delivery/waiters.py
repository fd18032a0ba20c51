"""Who waits for messages: coroutines on event loops, and threads.

Waking is a hint and hands over nothing: whoever is woken looks for a message, and finds one, or waits again.
"""

from __future__ import annotations

import asyncio

from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.concurrency.loops import call_in, fail, resolve
from channels_sqlite.delivery.mailbox import Waiter

__all__ = ["LoopWaiter", "ThreadWaiter"]


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
        return call_in(self.loop, resolve, self.future, None)

    def fail(self, error: Exception) -> None:
        """End its waiting with an error, from any thread."""
        call_in(self.loop, fail, self.future, error)


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
