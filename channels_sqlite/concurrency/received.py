"""Receiving in a task of its own, for who waits for something else as well."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from channels_sqlite.concurrency.loops import call_soon_in, resolve

__all__ = ["Received"]

T = TypeVar("T")


class Received(Generic[T]):
    """A source of messages, the client or a layer: a task receives one, and the next when that is asked for."""

    def __init__(self, receive: Callable[[], Awaitable[T]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._message: T | None = None
        self._asked: asyncio.Future[None] | None = None  # the task waits for this one
        self._arrived: asyncio.Future[None] | None = None  # and whoever takes for that one
        self.task = self._loop.create_task(self._run())
        self.task.add_done_callback(self._tell)

    def take(self) -> T | None:
        """Return a message, or None and ask for one. Raises what receiving has raised."""
        message, self._message = self._message, None
        if message is None:
            asked, self._asked = self._asked, None
            if asked is not None:
                asked.set_result(None)
            elif self.task.done():
                self.task.result()
        return message

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done once there is something to take."""
        arrived = self._loop.create_future()
        self.announce_to(arrived)
        return arrived

    def announce_to(self, arrived: asyncio.Future[None]) -> None:
        """Have `arrived` be done once there is something to take."""
        self._arrived = arrived
        if self._message is not None or self.task.done():
            self._tell()

    def leave(self, *, soon: bool = False) -> None:
        """End the task. `soon`: not in this call, in which the garbage collector may have come by."""
        if soon:
            call_soon_in(self._loop, self.task.cancel)
        else:
            self.task.cancel()

    async def _run(self) -> None:
        while True:
            self._message = await self._receive()
            self._asked = self._loop.create_future()
            self._tell()
            await self._asked

    def _tell(self, _: object = None) -> None:
        if self._arrived is not None:
            resolve(self._arrived, None)
