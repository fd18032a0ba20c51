"""Both faces of a layer behind one type, so that each rule is tested once."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from channels.layers import BaseChannelLayer

from channels_sqlite import Present, SyncChannelLayer
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.support import inside
from tests.support.waiting import aeventually

__all__ = ["AsFacade", "AsLayer", "Caller", "CallerMaker"]

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE_S = 5.0
SILENCE_S = 0.1
"""Twice the polling interval: that nothing comes takes a time to see."""

THREADS = 32

Waiting = asyncio.Future[dict[str, Any]]


class Caller(Protocol):
    """What the Channel Layer Specification asks of a layer, with a deadline for what waits."""

    async def send(self, channel: str, message: Mapping[str, Any], **further: Any) -> None: ...

    async def send_many(self, channel: str, messages: Any, **further: Any) -> None: ...

    async def send_later(self, channel: str, message: Mapping[str, Any], **further: Any) -> str: ...

    async def cancel(self, ticket: Any) -> bool: ...

    async def receive(self, channel: str, within_s: float = ...) -> dict[str, Any]:
        """The next message; TimeoutError where none comes in time."""

    async def find(self, channel: str) -> dict[str, Any] | None:
        """The message that waits on `channel`, if any."""

    async def wait_on(self, channel: str) -> Waiting:
        """Begin to wait on `channel`; cancelled by `end`, or by whoever wants to see that."""

    async def new_channel(self, prefix: str = ...) -> str: ...

    async def group_add(self, group: str, channel: str) -> None: ...

    async def group_discard(self, group: str, channel: str) -> None: ...

    async def group_send(self, group: str, message: Mapping[str, Any], **further: Any) -> None: ...

    async def group_send_many(self, group: str, messages: Any, **further: Any) -> None: ...

    async def group_send_later(self, group: str, message: Mapping[str, Any], **further: Any) -> str: ...

    async def presence_join(self, group: str, channel: str, key: Any, info: Any = ...) -> list[Present[Any]]: ...

    async def presence_update(self, group: str, channel: str, info: Any) -> None: ...

    async def presence_leave(self, group: str, channel: str) -> None: ...

    async def presence_watch(self, group: str, channel: str) -> list[Present[Any]]: ...

    async def presence_list(self, group: str) -> list[Present[Any]]: ...

    async def presence_count(self, group: str) -> int: ...

    async def presence_groups(self, key: Any) -> list[str]: ...

    async def group_count(self, group: str) -> int: ...

    async def flush(self) -> None: ...

    async def close(self) -> None: ...

    async def end(self) -> None:
        """Let go of all that the test has begun."""


class CallerMaker(Protocol):
    """Makes a layer from its CONFIG, and who calls it."""

    # CONFIG comes from settings, whose values are of any type.
    def __call__(self, **config: Any) -> Caller: ...


async def _lacking(*_: Any, **__: Any) -> Any:
    raise NotImplementedError


class AsLayer:
    """Awaits the methods of the layer itself."""

    # Any: the base class of Channels declares none of the methods that the specification asks for.
    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._waiting: list[Waiting] = []
        self.send = layer.send
        self.new_channel = layer.new_channel
        self.group_add = layer.group_add
        self.group_discard = layer.group_discard
        self.group_send = layer.group_send
        self.send_many = getattr(layer, "send_many", _lacking)
        self.send_later = getattr(layer, "send_later", _lacking)
        self.cancel = getattr(layer, "cancel", _lacking)
        self.group_send_many = getattr(layer, "group_send_many", _lacking)
        self.group_send_later = getattr(layer, "group_send_later", _lacking)
        self.presence_join = getattr(layer, "presence_join", _lacking)
        self.presence_update = getattr(layer, "presence_update", _lacking)
        self.presence_leave = getattr(layer, "presence_leave", _lacking)
        self.presence_watch = getattr(layer, "presence_watch", _lacking)
        self.presence_list = getattr(layer, "presence_list", _lacking)
        self.presence_count = getattr(layer, "presence_count", _lacking)
        self.presence_groups = getattr(layer, "presence_groups", _lacking)
        self.group_count = getattr(layer, "group_count", _lacking)
        self.flush = layer.flush
        self.close = layer.close

    async def receive(self, channel: str, within_s: float = DEADLINE_S) -> dict[str, Any]:
        try:
            message: dict[str, Any] = await asyncio.wait_for(self.layer.receive(channel), within_s)
        except asyncio.TimeoutError:  # another one than the builtin's before Python 3.11
            raise TimeoutError from None
        return message

    async def find(self, channel: str) -> dict[str, Any] | None:
        try:
            return await self.receive(channel, SILENCE_S)
        except TimeoutError:
            return None

    async def wait_on(self, channel: str) -> Waiting:
        task = asyncio.create_task(self.layer.receive(channel))
        self._waiting.append(task)
        # A receive() that finds nothing has no other sign of having begun to wait, so give it time to do so.
        await asyncio.wait([task], timeout=0.05)
        return task

    async def end(self) -> None:
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        await self.layer.close()


class AsFacade:
    """Calls the sync facade in threads: one makes all calls one after the other, others wait for messages.

    Over other layers than ours a single thread does all of it; see `backends.AT_ONCE`.
    """

    def __init__(self, layer: BaseChannelLayer) -> None:
        self._facade = SyncChannelLayer(layer)
        self._calls = ThreadPoolExecutor(1, "calls")
        self._receives = (
            ThreadPoolExecutor(THREADS, "receives") if isinstance(layer, SqliteChannelLayer) else self._calls
        )
        self._waiting: list[Waiting] = []

    async def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.wrap_future(self._calls.submit(function, *args, **kwargs))

    async def send(self, channel: str, message: Mapping[str, Any], **further: Any) -> None:
        await self._call(self._facade.send, channel, message, **further)

    async def send_many(self, channel: str, messages: Any, **further: Any) -> None:
        await self._call(self._facade.send_many, channel, messages, **further)

    async def send_later(self, channel: str, message: Mapping[str, Any], **further: Any) -> str:
        return await self._call(self._facade.send_later, channel, message, **further)

    async def cancel(self, ticket: Any) -> bool:
        return await self._call(self._facade.cancel, ticket)

    async def receive(self, channel: str, within_s: float = DEADLINE_S) -> dict[str, Any]:
        return await asyncio.wrap_future(self._receives.submit(self._facade.receive, channel, timeout=within_s))

    async def find(self, channel: str) -> dict[str, Any] | None:
        try:
            return await self.receive(channel, 0)
        except TimeoutError:
            return None

    async def wait_on(self, channel: str) -> Waiting:
        layer = self._facade.layer
        assert isinstance(layer, SqliteChannelLayer), "mark the test: only(AT_ONCE)"
        watch = engine_of(layer).watches.threads
        before = inside.sleepers(watch)
        waiting = asyncio.wrap_future(self._receives.submit(self._facade.receive, channel))
        self._waiting.append(waiting)
        await aeventually(lambda: waiting.done() or inside.sleepers(watch) > before, DEADLINE_S)
        return waiting

    async def new_channel(self, prefix: str = "specific") -> str:
        return await self._call(self._facade.new_channel, prefix)

    async def group_add(self, group: str, channel: str) -> None:
        await self._call(self._facade.group_add, group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        await self._call(self._facade.group_discard, group, channel)

    async def group_send(self, group: str, message: Mapping[str, Any], **further: Any) -> None:
        await self._call(self._facade.group_send, group, message, **further)

    async def group_send_many(self, group: str, messages: Any, **further: Any) -> None:
        await self._call(self._facade.group_send_many, group, messages, **further)

    async def group_send_later(self, group: str, message: Mapping[str, Any], **further: Any) -> str:
        return await self._call(self._facade.group_send_later, group, message, **further)

    async def presence_join(self, group: str, channel: str, key: Any, info: Any = None) -> list[Present[Any]]:
        return await self._call(self._facade.presence_join, group, channel, key, info)

    async def presence_update(self, group: str, channel: str, info: Any) -> None:
        await self._call(self._facade.presence_update, group, channel, info)

    async def presence_leave(self, group: str, channel: str) -> None:
        await self._call(self._facade.presence_leave, group, channel)

    async def presence_watch(self, group: str, channel: str) -> list[Present[Any]]:
        return await self._call(self._facade.presence_watch, group, channel)

    async def presence_list(self, group: str) -> list[Present[Any]]:
        return await self._call(self._facade.presence_list, group)

    async def presence_count(self, group: str) -> int:
        return await self._call(self._facade.presence_count, group)

    async def presence_groups(self, key: Any) -> list[str]:
        return await self._call(self._facade.presence_groups, key)

    async def group_count(self, group: str) -> int:
        return await self._call(self._facade.group_count, group)

    async def flush(self) -> None:
        await self._call(self._facade.flush)

    async def close(self) -> None:
        await self._call(self._facade.close)

    async def end(self) -> None:
        await self.close()
        await asyncio.gather(*self._waiting, return_exceptions=True)
        for threads in (self._receives, self._calls):
            threads.shutdown()
