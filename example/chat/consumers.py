"""The chat's WebSocket consumers: one object per open page."""

from __future__ import annotations

import json
import logging
import os
import time

from channels.generic.websocket import AsyncWebsocketConsumer
from django.urls import reverse
from typing_extensions import override

from activity.messages import activity, happened
from channels_sqlite.consumers import DirectDispatch
from channels_sqlite.exceptions import ChannelDatabaseError
from chat.messages import (
    Announced,
    BadFrameError,
    CaughtUp,
    Changed,
    Here,
    Join,
    People,
    Said,
    ToPage,
    Welcome,
    group_of,
    people_of,
    read_frame,
)
from chat.models import Room

__all__ = ["RoomConsumer", "RoomsConsumer"]

logger = logging.getLogger(__name__)

# What the page is told when its connection is closed; 4000 to 4999 are free for applications.
BAD_FRAME = 4400
SERVER_TROUBLE = 4500

SHOWN_TO_NEWCOMERS = 50


class RoomConsumer(DirectDispatch, AsyncWebsocketConsumer):
    """Carries a page's words into its room, and the room's words to the page.

    `DirectDispatch` spares the server a hop to a thread and a new task for each word and each page that hears it.
    """

    @override
    async def connect(self) -> None:
        """Accept the page and tell it which server process it got. It is in the room once it has said its name."""
        self.room: str = self.scope["url_route"]["kwargs"]["room"]
        self.group = group_of(self.room)
        self.people = people_of(self.room)
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
            # A membership ends after "group_expiry"; this renews it, and the presence with it.
            await self.group.aadd(self.channel_name)

    async def _join(self, person: Join) -> None:
        came = self.person is None
        self.person = person
        await Room.aentered(self.room)
        if came:
            await self._catch_up(person["since"])
        # In the room from now on. Another name is a join as well: what the last tab to join says is shown.
        present = await self.people.ajoin(self.channel_name, key=person["person"], info={"name": person["name"]})
        here: Here = {"type": "here", "people": {one.key: one.info for one in present}}
        await self._show(here)
        if came:
            await self._tell(f"{person['name']} came into {self.room}")

    async def _catch_up(self, since: str | None) -> None:
        """Enter the group, and show what was said before this moment; what comes after it arrives by itself."""
        if since is None:
            history = await self.group.asubscribe(self.channel_name, last=SHOWN_TO_NEWCOMERS)
        else:
            history = await self.group.asubscribe(self.channel_name, since=since)
        caught_up: CaughtUp = {
            "type": "caught-up",
            "messages": [entry.message for entry in history.entries],
            "position": history.position,
            "recovered": history.recovered,
        }
        await self._show(caught_up)

    async def _say(self, person: Join, text: str) -> None:
        now_ms = time.time_ns() // 1_000_000
        said: Said = {
            "type": "chat.said",
            "person": person["person"],
            "name": person["name"],
            "text": text,
            "sent_at_ms": now_ms,
        }
        await self.group.asend(said)
        await self._tell(f"{person['name']} spoke in {self.room}")

    @override
    async def disconnect(self, code: int) -> None:
        """Leave the room. Not called when the server process is killed; the layer notices that by itself."""
        try:
            await self.people.aleave(self.channel_name)
            if self.person is not None:
                await self._tell(f"{self.person['name']} left {self.room}")
        except ChannelDatabaseError:
            logger.exception("Room %r: could not say that somebody left", self.room)

    async def presence_diff(self, message: Changed) -> None:
        """Show who came, left, or has another name."""
        await self._show(message)

    async def chat_said(self, message: Said) -> None:
        """Show what somebody said."""
        await self._show(message)

    async def chat_announced(self, message: Announced) -> None:
        """Show what the site itself has to say."""
        await self._show(message)

    async def _tell(self, text: str) -> None:
        """Tell the feed of the site."""
        await activity.asend(happened(text, reverse("chat:room", args=[self.room])))

    async def _show(self, frame: ToPage) -> None:
        await self.send(text_data=json.dumps(frame))


class RoomsConsumer(DirectDispatch, AsyncWebsocketConsumer):
    """Tells the list of rooms how many people are in each. It watches them and is in none."""

    @override
    async def connect(self) -> None:
        """Watch the rooms that the list shows."""
        self.people: dict[str, set[str]] = {}
        self.rooms: dict[str, str] = {}
        await self.accept()
        try:
            async for room in Room.latest():
                people = people_of(room.name)
                self.rooms[people.name] = room.name
                self.people[people.name] = {one.key for one in await people.awatch(self.channel_name)}
                await self._show(people.name)
        except ChannelDatabaseError:
            logger.exception("The list of rooms: the channel layer's database failed")
            await self.close(SERVER_TROUBLE)

    async def presence_diff(self, message: Changed) -> None:
        """Count who came and who left."""
        group = message["group"]
        before = len(self.people[group])
        self.people[group] = (self.people[group] | message["joins"].keys()) - message["leaves"].keys()
        if len(self.people[group]) != before:
            await self._show(group)

    @override
    async def disconnect(self, code: int) -> None:
        """Watch no more."""
        try:
            for room in self.rooms.values():
                await people_of(room).aleave(self.channel_name)
        except ChannelDatabaseError:
            logger.exception("The list of rooms: could not stop watching")

    async def _show(self, group: str) -> None:
        frame: People = {"type": "people", "room": self.rooms[group], "count": len(self.people[group])}
        await self.send(text_data=json.dumps(frame))
