"""Consumers that get their messages without a thread hop and a new task for each: `DirectDispatch`.

Channels' own consumer closes old database connections in another thread before every message, and makes a task and
waits for two of them after it. For a broadcast to many sockets that costs several times what the layer does.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from channels import db
from channels.consumer import AsyncConsumer, SyncConsumer, get_handler_name
from channels.exceptions import StopConsumer
from channels.layers import get_channel_layer
from typing_extensions import Never

from channels_sqlite.concurrency.received import Received
from channels_sqlite.engine.receive import Line
from channels_sqlite.layers import SqliteChannelLayer, line_of

__all__ = ["DirectDispatch"]

# Servers and layers each put their own keys and values into messages.
Message = Mapping[str, Any]

CLOSE_EVERY_S = 1.0
IN_A_ROW = 10  # messages that are handled before other tasks have their turn, if no handler waits for anything


class DirectDispatch(AsyncConsumer):
    """A mixin for the async consumer classes of Channels, to be named first; over any channel layer.

        class Chat(DirectDispatch, AsyncJsonWebsocketConsumer): ...

    All that a consumer does stays as it is: one message is handled at a time, in the task that the server made for the
    consumer, whether it comes from the client or from the layer; each source keeps its order, and none starves the
    other; StopConsumer ends the consumer, and so does what a handler, the server or the layer raises. Where no handler
    waits for anything, other tasks have their turn after ten messages at the latest. Over this package's own layer
    nothing is taken out of the layer before it is handled: what comes while the last handler runs stays there.

    Old database connections are closed before a message at most once a second in each process, and not before each.
    Django itself does so where a request begins and ends (`close_old_connections` in `django/db/__init__.py`), for
    connections that are past CONN_MAX_AGE, which is in whole seconds, or broken, which are then found a second late at
    most. `database_sync_to_async` does it at each call besides, as before.

    Raises TypeError when a class is made of it that is a sync consumer (whose every message is handled in a thread), or
    that has a class behind it whose own `dispatch` or `__call__` would be passed over.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:  # as in any class
        super().__init_subclass__(**kwargs)
        if issubclass(cls, SyncConsumer):
            raise TypeError(
                f"{cls.__qualname__} is a sync consumer, which handles each message in a thread; DirectDispatch is for "
                f"async consumers: use it with AsyncConsumer, AsyncWebsocketConsumer or AsyncJsonWebsocketConsumer"
            )
        behind = cls.__mro__[cls.__mro__.index(DirectDispatch) + 1 :]
        for name in ("__call__", "dispatch"):
            owner = next(base for base in behind if name in vars(base))
            if owner is not AsyncConsumer:
                raise TypeError(
                    f"{cls.__qualname__} has {owner.__qualname__} behind DirectDispatch, which would pass over its "
                    f"{name}(); name DirectDispatch after it: class {cls.__name__}({owner.__name__}, DirectDispatch)"
                )

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[object]],
    ) -> None:
        """Serve one connection, as an ASGI application."""
        self.scope = scope
        self.base_send = send
        layer = get_channel_layer(self.channel_layer_alias)
        # None, as Channels has it: consumers that need a layer say so where they use it.
        self.channel_layer = layer  # type: ignore[assignment]
        theirs: Received[Message] | Line | None = None
        if layer is not None:
            self.channel_name = name = await layer.new_channel()
            self.channel_receive = functools.partial(layer.receive, name)
            line = line_of(layer, name) if isinstance(layer, SqliteChannelLayer) else None
            theirs = line or Received(self.channel_receive)
        try:
            await _serve(Received(receive), theirs, self.dispatch)
        except StopConsumer:
            pass

    async def dispatch(self, message: Message) -> None:
        """Have the method handle `message` that is named like its type. Raises ValueError when there is none."""
        handler = getattr(self, get_handler_name(message), None)
        if not handler:
            raise ValueError(f"{type(self).__qualname__} has no handler for the message type {message['type']!r}")
        if time.monotonic() >= _Closing.due:
            _Closing.due = time.monotonic() + CLOSE_EVERY_S  # before the other thread is asked: one consumer does
            await db.aclose_old_connections()
        await handler(message)


class _Closing:
    """When old database connections are closed next (monotonic): one for the process, whose consumers share them."""

    due = -math.inf


async def _serve(
    client: Received[Message], layer: Received[Message] | Line | None, dispatch: Callable[[Any], Awaitable[object]]
) -> Never:
    """Hand what comes to `dispatch`, until something raises."""
    sources = [client] if layer is None else [client, layer]
    try:
        await _take_turns(client, sources, dispatch)
    except GeneratorExit:  # destroyed, maybe by the garbage collector
        for source in sources:
            source.leave(soon=True)
        raise
    except BaseException:
        for source in sources:
            source.leave()
        tasks = [source.task for source in sources if isinstance(source, Received)]
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()  # raises what receiving has raised meanwhile, as Channels does
        raise


async def _take_turns(
    client: Received[Message], sources: Sequence[Received[Message] | Line], dispatch: Callable[[Any], Awaitable[object]]
) -> Never:
    in_a_row = 0  # messages since something was waited for
    while True:
        found = False
        for source in sources:
            message = source.take()
            if message is not None:
                found = True
                in_a_row += 1
                await dispatch(message)
        if not found:
            arrived = sources[-1].arrival()
            client.announce_to(arrived)
            await arrived
            in_a_row = 0
        elif in_a_row >= IN_A_ROW:
            await asyncio.sleep(0)  # handlers that never wait for anything do not stop the event loop
            in_a_row = 0
