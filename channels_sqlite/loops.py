"""Calling into event loops that may belong to other threads, or be closed already."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["call_in", "run_in", "running_loop"]


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
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # closed, as async_to_sync's loops are after each call
        return False
    return True


def run_in(loop: asyncio.AbstractEventLoop, function: Callable[[], object], timeout_s: float) -> None:
    """Call `function` in `loop` from another thread and wait until that is done, at most `timeout_s` seconds.

    A loop that does not run at the moment has nobody else to disturb, and a closed one needs no call.
    """
    if loop.is_closed():
        return
    if not loop.is_running():
        function()
        return
    done = threading.Event()

    def run() -> None:
        function()
        done.set()

    if call_in(loop, run):
        done.wait(timeout_s)
