"""Waiting for a condition with a deadline, instead of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast, overload

T = TypeVar("T")

POLL_INTERVAL_S = 0.01


def eventually(condition: Callable[[], T], deadline_s: float = 5.0, *, what: str = "") -> T:
    """Call `condition` until its result is true, and return that result.

    Raises AssertionError, naming `what` and the last result, when `deadline_s` seconds passed.
    """
    end = time.monotonic() + deadline_s
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise AssertionError(_too_late(condition, result, deadline_s, what))
        time.sleep(POLL_INTERVAL_S)


@overload
async def aeventually(condition: Callable[[], Awaitable[T]], deadline_s: float = 5.0, *, what: str = "") -> T: ...
@overload
async def aeventually(condition: Callable[[], T], deadline_s: float = 5.0, *, what: str = "") -> T: ...
async def aeventually(
    condition: Callable[[], Awaitable[T]] | Callable[[], T], deadline_s: float = 5.0, *, what: str = ""
) -> T:
    """The same on an event loop, which keeps running meanwhile. `condition` may be a coroutine function."""
    end = time.monotonic() + deadline_s
    while True:
        outcome = condition()
        result = cast(T, await outcome if inspect.isawaitable(outcome) else outcome)
        if result:
            return result
        if time.monotonic() >= end:
            raise AssertionError(_too_late(condition, result, deadline_s, what))
        await asyncio.sleep(POLL_INTERVAL_S)


def _too_late(condition: object, result: object, deadline_s: float, what: str) -> str:
    name = what or getattr(condition, "__qualname__", repr(condition))
    return f"not within {deadline_s:g} s: {name} (last result: {result!r})"
