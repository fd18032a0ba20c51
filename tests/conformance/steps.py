"""What the tests of this folder do over and over, with a deadline each."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import pytest

from tests.conformance.backends import Layer

__all__ = ["Clock", "Receivers", "assert_nothing_comes", "collect", "soon"]

T = TypeVar("T")

DEADLINE_S = 5.0
SILENCE_S = 0.1


async def soon(awaitable: Awaitable[T]) -> T:
    """The result, or asyncio.TimeoutError where it does not come."""
    return await asyncio.wait_for(awaitable, DEADLINE_S)


async def collect(layer: Layer, channel: str, count: int) -> list[dict[str, Any]]:
    """The next `count` messages on `channel`."""
    return [await soon(layer.receive(channel)) for _ in range(count)]


async def assert_nothing_comes(layer: Layer, channel: str) -> None:
    """Nothing waits on `channel`. That nothing comes takes a time to see: SILENCE_S is twice the polling interval."""
    try:
        message = await asyncio.wait_for(layer.receive(channel), SILENCE_S)
    except asyncio.TimeoutError:
        return
    pytest.fail(f"received {message}")


class Receivers:
    """Tasks that wait in receive()."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[dict[str, Any]]] = []

    async def start(self, layer: Layer, channel: str) -> "asyncio.Task[dict[str, Any]]":
        """A task that waits in `layer.receive(channel)`; it has come to where it waits."""
        task = asyncio.create_task(layer.receive(channel))
        self.tasks.append(task)
        # A receive() that finds nothing has no other sign of having begun to wait, so give it time to do so.
        await asyncio.wait([task], timeout=0.05)
        return task


class Clock:
    """`time.time()` plus what the test has added to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ahead_s = 0.0
        real_time = time.time
        monkeypatch.setattr(time, "time", lambda: real_time() + self._ahead_s)

    def advance(self, seconds: float) -> None:
        """Put the clock forward."""
        self._ahead_s += seconds
