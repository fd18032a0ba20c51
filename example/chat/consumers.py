"""The chat's WebSocket consumer: one object per open page."""

from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress

from channels.exceptions import ChannelFull
from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import reverse
from typing_extensions import override

from activity.messages import activity, happened
from channels_sqlite.consumers import DirectDispatch
from channels_sqlite.exceptions import ChannelDatabaseError
from chat.messages import (
    Announced,
    BadFrameError,
    Join,
    Joined,
    Left,
    Present,
    Said,
    ToPage,
    Welcome,
    group_of,
    newcomer,
    read_frame,
)
from chat.models import Room

__all__ = ["RoomConsumer"]

logger = logging.getLogger(__name__)

# What the page is told when its connection is closed; 4000 to 4999 are free for applications.
BAD_FRAME = 4400
SERVER_TROUBLE = 4500


class RoomConsumer(DirectDispatch, AsyncWebsocketConsumer):
    """Carries a page's words into its room, and the room's words to the page.

    `DirectDispatch` spares the server a hop to a thread and a new task for each word and each page that hears it.
    """

    @override
    async def connect(self) -> None:
        """Accept the page and tell it which server process it got. It is in the room once it has said its name."""
        self.room: str = self.scope["url_route"]["kwargs"]["room"]
        self.group = group_of(self.room)
        self.person: Join | None = None
        await self.accept()
        welcome: Welcome = {"type": "welcome", "pid": os.getpid()}
        await self._show(welcome)

    @override
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Do what the page asks."""
        try:
            await self._do(text_data or "")
        except BadFrameError as error:
            await self.close(BAD_FRAME, str(error))
        except ChannelDatabaseError:
            # The page tries again by itself, with growing pauses, until the database is well.
            logger.exception("Room %r: the channel layer's database failed", self.room)
            await self.close(SERVER_TROUBLE)

    async def _do(self, text: str) -> None:
        frame = read_frame(text)
        if frame["type"] == "join":
            await self._join(frame)
        elif self.person is None:
            raise BadFrameError("say a name first")
        elif frame["type"] == "say":
            await self._say(self.person, frame["text"])
        else:
            await self._stay(self.person)

    async def _join(self, person: Join) -> None:
        came, self.person = self.person is None, person
        await Room.aentered(self.room)
        await self.group.aadd(self.channel_name)
        joined: Joined = {
            "type": "chat.joined",
            "page": person["page"],
            "name": person["name"],
            "answer_to": self.channel_name,
        }
        await self.group.asend(joined)
        if came:
            await self._tell(f"{person['name']} came into {self.room}")

    async def _say(self, person: Join, text: str) -> None:
        now_ms = time.time_ns() // 1_000_000
        said: Said = {
            "type": "chat.said",
            "page": person["page"],
            "name": person["name"],
            "text": text,
            "sent_at_ms": now_ms,
        }
        await self.group.asend(said)
        await self._tell(f"{person['name']} spoke in {self.room}")

    async def _stay(self, person: Join) -> None:
        # A membership ends after "group_expiry"; a page may stay open for longer.
        await self.group.aadd(self.channel_name)
        await self.group.asend(self._presence_of(person))

    @override
    async def disconnect(self, code: int) -> None:
        """Leave the room. Not called when the server process is killed; the pages then miss this one's "here"."""
        if self.person is None:
            return
        left: Left = {"type": "chat.left", "page": self.person["page"], "name": self.person["name"]}
        try:
            await self.group.adiscard(self.channel_name)
            await self.group.asend(left)
            await self._tell(f"{self.person['name']} left {self.room}")
        except ChannelDatabaseError:
            logger.exception("Room %r: could not say that somebody left", self.room)

    async def chat_said(self, message: Said) -> None:
        """Show what somebody said."""
        await self._show(message)

    async def chat_joined(self, message: Joined) -> None:
        """Show who came in, and let the newcomer know of this page."""
        await self._show(message)
        if self.person is not None and message["answer_to"] != self.channel_name:
            # A newcomer whose channel is full learns of this page with its next "here".
            with suppress(ChannelFull):
                await newcomer(message["answer_to"]).asend(self._presence_of(self.person))

    async def chat_present(self, message: Present) -> None:
        """Show who is in the room."""
        await self._show(message)

    async def chat_left(self, message: Left) -> None:
        """Show who left."""
        await self._show(message)

    async def chat_announced(self, message: Announced) -> None:
        """Show what the site itself has to say."""
        await self._show(message)

    async def _tell(self, text: str) -> None:
        """Tell the feed of the site."""
        await activity.asend(happened(text, reverse("chat:room", args=[self.room])))

    async def _show(self, frame: ToPage) -> None:
        await self.send(text_data=json.dumps(frame))

    @staticmethod
    def _presence_of(person: Join) -> Present:
        return {"type": "chat.present", "page": person["page"], "name": person["name"]}
