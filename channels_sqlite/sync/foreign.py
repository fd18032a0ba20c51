"""The sync facade over any other channel layer, through `async_to_sync`: what works with ours works with theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import BaseChannelLayer, InMemoryChannelLayer

from channels_sqlite.codec import Message
from channels_sqlite.concurrency.gate import Stop
from channels_sqlite.histories import History
from channels_sqlite.sync.foreign_calls import ForeignCalls, plain, require
from channels_sqlite.sync.foreign_listening import ForeignListening

__all__ = ["ForeignBlocking"]

ASK_ONCE_S = 0.25  # the least time for the layer to come up with a message that is there already
LOOK_S = 0.02  # between two looks at the clock and the stop while waiting; also what a put from another thread takes
CLEAN_S = 5.0  # for what channels_redis does after a receive()


class ForeignBlocking:
    """A layer of another package, or Channels' own InMemoryChannelLayer."""

    def __init__(self, layer: BaseChannelLayer) -> None:
        # Any: what a layer has beyond the base class is a matter of the specification, not of its type.
        self._layer: Any = layer
        self._left: dict[str, list[Message]] = {}  # came together with one that was returned
        self._listening: dict[Stop, ForeignListening] = {}

    def require(self, method: str, *, expiry: object = None, exclude: object = None) -> None:
        """Other layers know nothing of most of it."""
        require(self._layer, method, expiry=expiry, exclude=exclude)

    def encode(self, message: Mapping[str, object], path: str = "message") -> Message:
        """Check and copy."""
        return plain(message, path)

    def send(self, channel: str, encoded: Sequence[Message], expiry: float | None) -> None:  # noqa: ARG002  # is None
        """Call the layer's `send`."""
        async_to_sync(self._each)(self._layer.send, channel, encoded)

    def group_send(
        self,
        group: str,
        encoded: Sequence[Message],
        expiry: float | None,  # noqa: ARG002  # is None
        excluded: frozenset[str],  # noqa: ARG002  # is empty
        *,
        history: bool,  # noqa: ARG002  # there is none to be kept in
    ) -> None:
        """Call the layer's `group_send`."""
        async_to_sync(self._each)(self._layer.group_send, group, encoded)

    async def _each(
        self, send: Callable[[str, Message], Awaitable[object]], name: str, messages: Sequence[Message]
    ) -> None:
        for message in messages:
            await send(name, message)

    def send_later(self, channel: str, encoded: Message, due_at: float, expiry: float | None) -> str:
        """Is refused by `require`."""
        raise NotImplementedError

    def group_send_later(
        self,
        group: str,
        encoded: Message,
        due_at: float,
        expiry: float | None,
        excluded: frozenset[str],
        *,
        history: bool,
    ) -> str:
        """Is refused by `require`."""
        raise NotImplementedError

    def cancel(self, ticket: str) -> bool:
        """Is refused by `require`."""
        raise NotImplementedError

    def group_add(self, group: str, channel: str) -> None:
        """Call the layer's `group_add`."""
        async_to_sync(self._layer.group_add)(group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """Call the layer's `group_discard`."""
        async_to_sync(self._layer.group_discard)(group, channel)

    def group_channels(self, group: str) -> list[str]:
        """Ask the layer, where it can tell."""
        return async_to_sync(ForeignCalls(self._layer).group_channels)(group)

    def group_subscribe(self, group: str, channel: str, since: object, last: int | None) -> History[Message]:
        """Is refused by `require`."""
        raise NotImplementedError

    def group_history(self, group: str, since: object, last: int | None) -> History[Message]:
        """Is refused by `require`."""
        raise NotImplementedError

    def new_channel(self, prefix: str) -> str:
        """Call the layer's `new_channel`."""
        name: str = async_to_sync(self._layer.new_channel)(prefix)
        return name

    def require_own(self, channel: str) -> None:
        """Leave that to the layer's `receive`."""

    def receive(
        self,
        channels: Sequence[str],
        until: float | None,
        stop: Stop,
        *,
        patient: bool,  # noqa: ARG002
    ) -> tuple[str, Message] | None:
        """Call the layer's `receive` for all of `channels` at once."""
        for channel in channels:
            if self._left.get(channel):
                return channel, self._left[channel].pop(0)
        # That one's receive() may be cancelled as one likes.
        if len(channels) > 1 and type(self._layer) is not InMemoryChannelLayer:
            listening = self._listening.get(stop)
            if listening is None:
                listening = self._listening[stop] = ForeignListening(self._layer, LOOK_S, self._leave)
            return listening.receive(channels, stop)
        return async_to_sync(self._receive)(channels, until, stop)

    async def _receive(self, channels: Sequence[str], until: float | None, stop: Stop) -> tuple[str, Message] | None:
        tasks = {channel: asyncio.ensure_future(self._layer.receive(channel)) for channel in channels}
        try:
            await asyncio.wait(tasks.values(), timeout=ASK_ONCE_S, return_when=asyncio.FIRST_COMPLETED)
            while not any(task.done() for task in tasks.values()):
                if stop.requested or (until is not None and time.monotonic() >= until):
                    break
                await asyncio.wait(tasks.values(), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks.values():
                task.cancel()  # a task that is done stays done, with its message
            for task in tasks.values():
                with suppress(asyncio.CancelledError, Exception):
                    await task
            await self._leave(channels)
        taken: tuple[str, Message] | None = None
        for channel, task in tasks.items():
            if task.cancelled():
                continue
            message = task.result()
            if taken is None:
                taken = channel, message
            else:
                self._left.setdefault(channel, []).append(message)
        return taken

    async def _leave(self, channels: Sequence[str]) -> None:
        """Have channels_redis keep nothing of this event loop, which may end now. Other layers have nothing of it."""
        loop = asyncio.get_running_loop()
        # They take what was received off its backup; one that is cancelled with the loop has it delivered again.
        cleaners = [task for task in getattr(self._layer, "receive_cleaners", ()) if task.get_loop() is loop]
        if cleaners:
            await asyncio.wait(cleaners, timeout=CLEAN_S)
        # A cancelled receive() leaves its queue there, which would refuse the next event loop.
        buffer: dict[str, asyncio.Queue[Message]] = getattr(self._layer, "receive_buffer", {})
        for channel in channels:
            if channel in buffer and buffer[channel].empty():
                del buffer[channel]

    def end(self, stop: Stop) -> None:
        """End what a `listen()` to several channels has begun."""
        listening = self._listening.pop(stop, None)
        if listening is not None:
            listening.close()

    def session(self) -> object:
        """Return the layer."""
        return self._layer

    def flush(self) -> None:
        """Call the layer's `flush`."""
        self._left.clear()
        async_to_sync(self._layer.flush)()

    def close(self) -> None:
        """Call the layer's `close`, if it has one."""
        close = getattr(self._layer, "close", None)
        if close is not None:
            async_to_sync(close)()
