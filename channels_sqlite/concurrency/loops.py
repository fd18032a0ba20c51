"""Calling into event loops that may belong to other threads, or be closed already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["call_in", "call_soon_in", "fail", "resolve", "running_loop"]

T = TypeVar("T")


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
