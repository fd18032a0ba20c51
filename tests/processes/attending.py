"""What processes do that are present, or watch: a channel for each slot, which keeps the list that it has been told."""

import asyncio
import contextlib
from typing import Any

from channels_sqlite.layers import SqliteChannelLayer
from tests.support.child import Parent

__all__ = ["Lists", "Slot", "attend"]

Lists = dict[str, dict[str, Any]]
"""Group to key to info."""


class Slot:
    """A channel, as a consumer has one: it receives, or does something else, one after the other."""

    def __init__(self, layer: SqliteChannelLayer, channel: str) -> None:
        self.layer = layer
        self.channel = channel
        self.lists: Lists = {}
        self._markers: set[int] = set()
        self._marked = asyncio.Event()
        self._receiving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Receive from now on."""
        self._receiving = asyncio.create_task(self._receive())

    async def stop(self) -> None:
        """Receive no more, as when a consumer does something else."""
        if self._receiving is not None:
            self._receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._receiving
            self._receiving = None

    async def _receive(self) -> None:
        while True:
            message = await self.layer.receive(self.channel)
            if message["type"] == "marker":
                self._markers.add(message["number"])
                self._marked.set()
            elif message["type"] == "presence.diff":
                self.apply(message)

    def apply(self, diff: dict[str, Any]) -> None:
        """Do what a page does, and see that the diff belongs to this list."""
        shown = self.lists[diff["group"]]  # a KeyError: it hears of what it does not watch
        for key in diff["leaves"]:
            del shown[key]
        for key, info in diff["joins"].items():
            if key in shown:
                raise AssertionError(f"{key} has joined twice: {diff}, {shown}")
            shown[key] = info
        for key, info in diff["updates"].items():
            if shown[key] == info:
                raise AssertionError(f"{key} has not changed: {diff}, {shown}")
            shown[key] = info

    async def do(self, what: str, group: str, *arguments: Any) -> None:
        """Join, update, watch, leave, or be discarded."""
        await self.stop()
        if what == "leave":
            await self.layer.presence_leave(group, self.channel)
        elif what == "discard":
            await self.layer.group_discard(group, self.channel)
        elif what == "update":
            await self.layer.presence_update(group, self.channel, *arguments)
        elif what == "join":
            listed = await self.layer.presence_join(group, self.channel, *arguments)
            self.lists[group] = {one.key: one.info for one in listed}
        else:
            listed = await self.layer.presence_watch(group, self.channel)
            self.lists[group] = {one.key: one.info for one in listed}
        if what in ("leave", "discard"):
            self.lists.pop(group, None)
        self.start()

    async def until_marked(self, number: int) -> Lists:
        """Wait for a marker, before which all that was told has come."""
        while number not in self._markers:
            if self._receiving is not None and self._receiving.done():
                self._receiving.result()
            self._marked.clear()
            waiting = asyncio.create_task(self._marked.wait())
            receiving = [] if self._receiving is None else [self._receiving]
            await asyncio.wait([waiting, *receiving], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        return self.lists


async def attend(parent: Parent, *, slots: int) -> None:
    """Do as told: each command is a list of a slot and what it is to do, or a marker to wait for."""
    layer = parent.make_layer()
    made = [Slot(layer, await layer.new_channel()) for _ in range(slots)]
    for slot in made:
        slot.start()
    parent.say([slot.channel for slot in made])
    while True:
        command = await parent.ahear()
        if command[0] == "marker":
            parent.say([await slot.until_marked(command[1]) for slot in made])
        elif command[0] == "end":
            break
        else:
            number, *what = command
            await made[number].do(*what)
            parent.say("done")
    for slot in made:
        await slot.stop()
