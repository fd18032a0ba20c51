"""Calling into event loops that may belong to other threads, or be closed already."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["Answers", "call_in", "call_soon_in", "fail", "resolve", "running_loop"]

T = TypeVar("T")

ANSWERED_AT_ONCE = 100  # futures: their tasks take 10 to 25 us each, in one iteration of the loop


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> bool:
    """Call `function` in `loop`: at once when it runs in this thread, else soon; return False when it is closed.

    `args` are Any because they go to `function` as they are.
    """
    if running_loop() is loop:
        function(*args)
        return True
    return call_soon_in(loop, function, *args)


def call_soon_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: Any) -> bool:
    """Call `function` in `loop` soon, and take no lock here; return False when it is closed."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # closed, as async_to_sync's loops are after each call
        return False
    return True


def resolve(future: asyncio.Future[T], result: T) -> None:
    """Give a future its result, in its loop; nothing where it is done: whoever waited was cancelled."""
    if not future.done():
        future.set_result(result)


def fail(future: asyncio.Future[T], error: BaseException) -> None:
    """Give a future its error, likewise."""
    if not future.done():
        future.set_exception(error)


class Answers:
    """Futures of one loop that are done: their tasks go on in this order, some in each iteration of the loop.

    `add` is called in any thread, `give` in the loop.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._giving = False  # `_give` is to run in the loop's next iteration

    def add(self, futures: Iterable[asyncio.Future[None]]) -> None:
        """Put these behind the others; `give` is to follow."""
        self._waiting.extend(futures)

    def give(self) -> None:
        """Begin to let the tasks go on; nothing where that is under way."""
        if not self._giving:
            self._give()

    def _give(self) -> None:
        for _ in range(min(ANSWERED_AT_ONCE, len(self._waiting))):
            resolve(self._waiting.popleft(), None)
        self._giving = bool(self._waiting)
        if self._giving:
            asyncio.get_running_loop().call_soon(self._give)
