"""Typed handles: a channel or a group together with the type of its messages.

    room: Group[ChatMessage] = Group("room")
    room.send({"type": "chat.message", "text": "hi"})

They hold names only, so that they can be made at import time. The layer is looked up at each call, whatever BACKEND it
has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from channels.layers import BaseChannelLayer
from django.db import DEFAULT_DB_ALIAS

from channels_sqlite import names
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sync import SyncChannelLayer, foreign, get_sync_channel_layer

__all__ = ["Channel", "Group"]

M = TypeVar("M", bound=Mapping[str, object])


@dataclass(frozen=True)
class Channel(Generic[M]):
    """A channel whose messages are of type M, usually a TypedDict.

    `name` is a channel's name (TypeError where it is none), `layer` an alias in CHANNEL_LAYERS. The sync methods are
    those of `SyncChannelLayer`, with its errors; the `a` methods those of the layer itself.
    """

    name: str
    layer: str = "default"

    def __post_init__(self) -> None:
        names.require_channel_name(self.name)

    def send(self, message: M) -> None:
        """Send `message`; see `SyncChannelLayer.send`."""
        _sync(self.layer).send(self.name, message)

    async def asend(self, message: M) -> None:
        """Send `message`; see `SqliteChannelLayer.send`."""
        layer = _async(self.layer)
        await layer.send(self.name, _sendable(layer, message))

    def send_on_commit(self, message: M, *, using: str = DEFAULT_DB_ALIAS) -> None:
        """Send `message` once the transaction on `using` commits; see `SyncChannelLayer.send_on_commit`."""
        _sync(self.layer).send_on_commit(self.name, message, using=using)

    def receive(self, timeout: float | None = None) -> M:
        """Wait up to `timeout` seconds for the next message, or raise TimeoutError; see `SyncChannelLayer.receive`."""
        return cast("M", _sync(self.layer).receive(self.name, timeout))

    async def areceive(self, timeout: float | None = None) -> M:
        """Wait up to `timeout` seconds (None: for ever) for the next message, or raise TimeoutError."""
        receive = _async(self.layer).receive(self.name)
        try:
            # Timed out or cancelled, it loses nothing: that is what the layer guarantees.
            return cast("M", await asyncio.wait_for(receive, timeout))
        except asyncio.TimeoutError:  # another one than the builtin's before Python 3.11
            raise TimeoutError(f"no message on channel {self.name!r} within {timeout} s") from None

    def listen(self) -> Iterator[M]:
        """Iterate over the messages as they come: a worker; see `SyncChannelLayer.listen`."""
        return cast("Iterator[M]", _sync(self.layer).listen(self.name))

    async def alisten(self) -> AsyncIterator[M]:
        """Iterate over the messages as they come, until the layer is closed or the task cancelled."""
        layer = _async(self.layer)
        while True:
            try:
                message = await layer.receive(self.name)
            except LayerClosedError:
                return
            yield cast("M", message)


@dataclass(frozen=True)
class Group(Generic[M]):
    """A group whose members are sent messages of type M, usually a TypedDict.

    `name` is a group's name (TypeError where it is none), `layer` an alias in CHANNEL_LAYERS. The sync methods are
    those of `SyncChannelLayer`, with its errors; the `a` methods those of the layer itself.
    """

    name: str
    layer: str = "default"

    def __post_init__(self) -> None:
        names.require_group_name(self.name)

    def send(self, message: M) -> None:
        """Send `message` to all members; see `SyncChannelLayer.group_send`."""
        _sync(self.layer).group_send(self.name, message)

    async def asend(self, message: M) -> None:
        """Send `message` to all members; see `SqliteChannelLayer.group_send`."""
        layer = _async(self.layer)
        await layer.group_send(self.name, _sendable(layer, message))

    def send_on_commit(self, message: M, *, using: str = DEFAULT_DB_ALIAS) -> None:
        """Send `message` once the transaction on `using` commits; see `SyncChannelLayer.send_on_commit`."""
        _sync(self.layer).group_send_on_commit(self.name, message, using=using)

    def add(self, channel: str) -> None:
        """Make `channel` a member, or renew its membership."""
        _sync(self.layer).group_add(self.name, channel)

    async def aadd(self, channel: str) -> None:
        """Make `channel` a member, or renew its membership."""
        await _async(self.layer).group_add(self.name, channel)

    def discard(self, channel: str) -> None:
        """End the membership of `channel`, if there is one."""
        _sync(self.layer).group_discard(self.name, channel)

    async def adiscard(self, channel: str) -> None:
        """End the membership of `channel`, if there is one."""
        await _async(self.layer).group_discard(self.name, channel)

    def channels(self) -> list[str]:
        """Return the names of the members, sorted; NotImplementedError over layers that cannot tell."""
        return _sync(self.layer).group_channels(self.name)

    async def achannels(self) -> list[str]:
        """Return the names of the members, sorted; NotImplementedError over layers that cannot tell."""
        return await _members(_async(self.layer), self.name)

    def count(self) -> int:
        """Return how many members there are; NotImplementedError over layers that cannot tell."""
        return _sync(self.layer).group_count(self.name)

    async def acount(self) -> int:
        """Return how many members there are; NotImplementedError over layers that cannot tell."""
        return len(await self.achannels())


def _sync(alias: str) -> SyncChannelLayer:
    return get_sync_channel_layer(alias)


def _async(alias: str) -> BaseChannelLayer:
    return get_sync_channel_layer(alias).layer


def _sendable(layer: BaseChannelLayer, message: Mapping[str, object]) -> Mapping[str, object]:
    """Return what `layer` accepts: ours any mapping, others dicts of plain values."""
    return message if isinstance(layer, SqliteChannelLayer) else foreign.plain(message)


async def _members(layer: BaseChannelLayer, group: str) -> list[str]:
    """Ask `layer` for the members of `group`, sorted: what ours has, others need not have."""
    if isinstance(layer, SqliteChannelLayer):
        return await layer.group_channels(group)
    return await foreign.group_channels(layer, group)
