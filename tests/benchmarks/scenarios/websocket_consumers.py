"""The consumers that the WebSocket scenarios compare. Importing this needs Django's settings."""

import asyncio
import time
from typing import Any, ClassVar

from channels.generic.websocket import AsyncWebsocketConsumer

from channels_sqlite.consumers import DirectDispatch
from tests.benchmarks.visitors import TEXT

__all__ = ["Room", "consumer_class"]

_ROOM = "room"


class Room(AsyncWebsocketConsumer):
    """Broadcasts on demand, and echoes to the pair of sockets that its path names."""

    here: ClassVar[int] = 0
    """Sockets of this server."""
    left_ns: ClassVar[int] = 0
    """When the last one left, by time.perf_counter_ns()."""
    all_left: ClassVar[asyncio.Event]

    async def connect(self) -> None:
        """Join the room and the pair."""
        type(self).here += 1
        self.pair = f"pair{self.scope['path'].replace('/', '.')}"
        await self.channel_layer.group_add(_ROOM, self.channel_name)
        await self.channel_layer.group_add(self.pair, self.channel_name)
        await self.accept()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what the visitor asks."""
        what, _, count = (text_data or "").partition(" ")
        if what == "broadcast":
            for _ in range(int(count)):
                await self.channel_layer.group_send(_ROOM, {"type": "room.say", "text": TEXT})
        else:
            await self.channel_layer.group_send(self.pair, {"type": "room.say", "text": TEXT})

    async def room_say(self, event: dict[str, Any]) -> None:
        """Pass it on."""
        await self.send(text_data=event["text"])

    async def disconnect(self, code: int) -> None:
        """Leave both."""
        await self.channel_layer.group_discard(self.pair, self.channel_name)
        await self.channel_layer.group_discard(_ROOM, self.channel_name)
        type(self).here -= 1
        type(self).left_ns = time.perf_counter_ns()
        if not self.here:
            self.all_left.set()


class _DirectRoom(DirectDispatch, Room):
    """The same with the mixin."""


def consumer_class(*, direct: bool) -> type[Room]:
    """Return a class for one server, which counts its own sockets."""
    return type("ServersRoom", (_DirectRoom if direct else Room,), {"all_left": asyncio.Event()})
