"""The consumers that the WebSocket scenarios compare. Importing this needs Django's settings."""

import asyncio
import time
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

from channels_sqlite.consumers import DirectDispatch
from tests.benchmarks.visitors import TEXT

__all__ = ["Room", "Rooms"]

_ROOM = "room"


class Room(AsyncWebsocketConsumer):
    """Broadcasts on demand, and echoes to the pair of sockets that its path names."""

    async def connect(self) -> None:
        """Join the room and the pair."""
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


class _DirectRoom(DirectDispatch, Room):
    """The same with the mixin."""


class Rooms:
    """The application of one server, which knows how many sockets it has.

    A consumer may end without a `disconnect`: what it sends to a socket that has just been closed raises.
    """

    def __init__(self, *, direct: bool) -> None:
        self._application = (_DirectRoom if direct else Room).as_asgi()
        self._here = 0
        self.left_ns = 0
        """When the last socket left, by time.perf_counter_ns()."""
        self.all_left = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one socket."""
        self._here += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._here -= 1
            self.left_ns = time.perf_counter_ns()
            if not self._here:
                self.all_left.set()
