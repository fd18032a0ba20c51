"""Listening to several channels of another package's layer: receives that are begun once and never cancelled.

channels_redis loses a message when a `receive()` is cancelled after the server has handed it out. So the receives of
all channels stay under way, on an event loop of their own, while messages of one are worked on. That takes a thread for
as long as the loop over `listen()` lasts, and at most one message a channel that waits here and not in the layer.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from channels.layers import BaseChannelLayer

from channels_sqlite.codec import Message
from channels_sqlite.concurrency.gate import Stop

__all__ = ["ForeignListening"]

logger = logging.getLogger(__name__)

CLOSE_S = 5.0
FINISH_S = 1.0

T = TypeVar("T")


class ForeignListening:
    """The receives of one `listen()`."""

    def __init__(
        self, layer: BaseChannelLayer, look_s: float, leave: Callable[[Sequence[str]], Coroutine[Any, Any, None]]
    ) -> None:
        """`look_s`: between two looks at the stop. `leave` lets the layer finish what follows a receive."""
        self._layer = layer
        self._look_s = look_s
        self._leave = leave
        self._tasks: dict[str, asyncio.Task[Message]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="channels-sqlite[listen]", daemon=True)
        self._thread.start()

    def receive(self, channels: Sequence[str], stop: Stop) -> tuple[str, Message] | None:
        """Return the next message and its channel, the first of `channels` that has one; None when stopped."""
        return self._run(self._receive(channels, stop))

    def close(self) -> None:
        """End the receives, and send again what came and nobody took."""
        try:
            self._run(self._end(), CLOSE_S)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():  # the interpreter ends, and has stopped it already
                logger.warning("thread %r did not stop within %.1f s", self._thread.name, CLOSE_S)
            else:
                self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    async def _receive(self, channels: Sequence[str], stop: Stop) -> tuple[str, Message] | None:
        for channel in channels:
            if channel not in self._tasks:
                self._tasks[channel] = asyncio.ensure_future(self._layer.receive(channel))
        while not stop.requested:
            for channel in channels:
                if self._tasks[channel].done():
                    return channel, self._tasks.pop(channel).result()
            await asyncio.wait(self._tasks.values(), timeout=self._look_s, return_when=asyncio.FIRST_COMPLETED)
        return None

    async def _end(self) -> None:
        for task in self._tasks.values():
            task.cancel()  # a task that is done stays done, with its message
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=FINISH_S)
        for channel, task in self._tasks.items():
            # One that was cancelled may have failed otherwise instead: redis-py reports a time-out then.
            if task.done() and not task.cancelled() and task.exception() is None:
                await self._put_back(channel, task.result())
        await self._leave(list(self._tasks))
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:  # a connection that is being closed must not be cancelled half-way
            await asyncio.wait(others, timeout=FINISH_S)

    async def _put_back(self, channel: str, message: Message) -> None:
        try:
            await self._layer.send(channel, message)
        except Exception as error:  # noqa: BLE001  # the others still need it
            logger.warning("a message on channel %r could not be put back: %s", channel, error)
