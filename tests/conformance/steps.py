"""What the tests of this folder do over and over."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from tests.conformance.faces import DEADLINE_S, Caller

__all__ = ["Clock", "assert_nothing_comes", "collect", "soon"]

T = TypeVar("T")


async def soon(awaitable: Awaitable[T]) -> T:
    """The result, or asyncio.TimeoutError where it does not come."""
    return await asyncio.wait_for(awaitable, DEADLINE_S)


async def collect(layer: Caller, channel: str, count: int) -> list[dict[str, Any]]:
    """The next `count` messages on `channel`."""
    return [await layer.receive(channel) for _ in range(count)]


async def assert_nothing_comes(layer: Caller, channel: str) -> None:
    """Nothing waits on `channel`."""
    assert await layer.find(channel) is None


class Clock:
    """`time.time()` plus what the test has added to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        real_time = time.time
        monkeypatch.setattr(time, "time", lambda: real_time() + self._ahead_s)

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead_s += seconds
