"""Typed handles: a channel or a group together with the type of its messages.

    room: Group[ChatMessage] = Group("room")
    room.send({"type": "chat.message", "text": "hi"})

They hold names only, so that they can be made at import time. The layer is looked up at each call, whatever BACKEND it
has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, cast

from channels.layers import BaseChannelLayer
from django.db import DEFAULT_DB_ALIAS

from channels_sqlite import names
from channels_sqlite.codec import Message
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.histories import History
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sync import SyncChannelLayer, get_sync_channel_layer
from channels_sqlite.sync.foreign_calls import ForeignCalls

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

    def send(self, message: M, *, expiry: float | None = None) -> None:
        """Send `message`; see `SyncChannelLayer.send`."""
        _sync(self.layer).send(self.name, message, expiry=expiry)

    async def asend(self, message: M, *, expiry: float | None = None) -> None:
        """Send `message`; see `SqliteChannelLayer.send`."""
        await _async(self.layer).send(self.name, message, expiry=expiry)

    def send_on_commit(self, message: M, *, expiry: float | None = None, using: str = DEFAULT_DB_ALIAS) -> None:
        """Send `message` once the transaction on `using` commits; see `SyncChannelLayer.send_on_commit`."""
        _sync(self.layer).send_on_commit(self.name, message, expiry=expiry, using=using)

    def send_many(self, messages: Sequence[M], *, expiry: float | None = None) -> None:
        """Send `messages`, all or none (one by one over other layers); see `SyncChannelLayer.send_many`."""
        _sync(self.layer).send_many(self.name, messages, expiry=expiry)

    async def asend_many(self, messages: Sequence[M], *, expiry: float | None = None) -> None:
        """Send `messages`, all or none (one by one over other layers); see `SqliteChannelLayer.send_many`."""
        await _async(self.layer).send_many(self.name, messages, expiry=expiry)

    def send_later(
        self, message: M, *, delay: float | None = None, at: datetime | None = None, expiry: float | None = None
    ) -> str:
        """Send `message` after `delay` seconds or at `at`; return its ticket; see `SyncChannelLayer.send_later`."""
        return _sync(self.layer).send_later(self.name, message, delay=delay, at=at, expiry=expiry)

    async def asend_later(
        self, message: M, *, delay: float | None = None, at: datetime | None = None, expiry: float | None = None
    ) -> str:
        """Send `message` after `delay` seconds or at `at`; return its ticket; see `SqliteChannelLayer.send_later`."""
        return await _async(self.layer).send_later(self.name, message, delay=delay, at=at, expiry=expiry)

    def cancel(self, ticket: str) -> bool:
        """Take a message out of the schedule; return whether that came in time; see `SyncChannelLayer.cancel`."""
        return _sync(self.layer).cancel(ticket)

    async def acancel(self, ticket: str) -> bool:
        """Take a message out of the schedule; return whether that came in time; see `SqliteChannelLayer.cancel`."""
        return await _async(self.layer).cancel(ticket)

    def receive(self, timeout: float | None = None) -> M:
        """Wait up to `timeout` seconds for the next message, or raise TimeoutError; see `SyncChannelLayer.receive`."""
        return cast("M", _sync(self.layer).receive(self.name, timeout))

    async def areceive(self, timeout: float | None = None) -> M:
        """Wait up to `timeout` seconds (None: for ever) for the next message, or raise TimeoutError."""
        receive = _layer(self.layer).receive(self.name)
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
        layer = _layer(self.layer)
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

    def send(
        self,
        message: M,
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> None:
        """Send `message` to all members but those excluded; see `SyncChannelLayer.group_send`."""
        _sync(self.layer).group_send(self.name, message, exclude=exclude, expiry=expiry, history=history)

    async def asend(
        self,
        message: M,
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> None:
        """Send `message` to all members but those excluded; see `SqliteChannelLayer.group_send`."""
        await _async(self.layer).group_send(self.name, message, exclude=exclude, expiry=expiry, history=history)

    def send_on_commit(
        self,
        message: M,
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        using: str = DEFAULT_DB_ALIAS,
    ) -> None:
        """Send `message` once the transaction on `using` commits; see `SyncChannelLayer.send_on_commit`."""
        _sync(self.layer).group_send_on_commit(self.name, message, exclude=exclude, expiry=expiry, using=using)

    def send_many(
        self, messages: Sequence[M], *, exclude: str | Collection[str] | None = None, expiry: float | None = None
    ) -> None:
        """Send `messages` in one transaction (one by one over other layers); see `SyncChannelLayer.group_send_many`."""
        _sync(self.layer).group_send_many(self.name, messages, exclude=exclude, expiry=expiry)

    async def asend_many(
        self, messages: Sequence[M], *, exclude: str | Collection[str] | None = None, expiry: float | None = None
    ) -> None:
        """Send `messages` in one transaction (one by one over others); see `SqliteChannelLayer.group_send_many`."""
        await _async(self.layer).group_send_many(self.name, messages, exclude=exclude, expiry=expiry)

    def send_later(
        self,
        message: M,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> str:
        """Send `message` to the members that there will be; see `SyncChannelLayer.group_send_later`."""
        return _sync(self.layer).group_send_later(
            self.name, message, delay=delay, at=at, exclude=exclude, expiry=expiry, history=history
        )

    async def asend_later(
        self,
        message: M,
        *,
        delay: float | None = None,
        at: datetime | None = None,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> str:
        """Send `message` to the members that there will be; see `SqliteChannelLayer.group_send_later`."""
        return await _async(self.layer).group_send_later(
            self.name, message, delay=delay, at=at, exclude=exclude, expiry=expiry, history=history
        )

    def cancel(self, ticket: str) -> bool:
        """Take a message out of the schedule; return whether that came in time; see `SyncChannelLayer.cancel`."""
        return _sync(self.layer).cancel(ticket)

    async def acancel(self, ticket: str) -> bool:
        """Take a message out of the schedule; return whether that came in time; see `SqliteChannelLayer.cancel`."""
        return await _async(self.layer).cancel(ticket)

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

    def subscribe(self, channel: str, *, since: object = None, last: int | None = None) -> History[M]:
        """Make `channel` a member and return what the group was sent; see `SyncChannelLayer.group_subscribe`."""
        return _typed(_sync(self.layer).group_subscribe(self.name, channel, since=since, last=last))

    async def asubscribe(self, channel: str, *, since: object = None, last: int | None = None) -> History[M]:
        """Make `channel` a member and return what the group was sent; see `SqliteChannelLayer.group_subscribe`."""
        return _typed(await _async(self.layer).group_subscribe(self.name, channel, since=since, last=last))

    def history(self, *, since: object = None, last: int | None = None) -> History[M]:
        """Return what the group was sent; see `SyncChannelLayer.group_history`."""
        return _typed(_sync(self.layer).group_history(self.name, since=since, last=last))

    async def ahistory(self, *, since: object = None, last: int | None = None) -> History[M]:
        """Return what the group was sent; see `SqliteChannelLayer.group_history`."""
        return _typed(await _async(self.layer).group_history(self.name, since=since, last=last))

    def channels(self) -> list[str]:
        """Return the names of the members, sorted; NotImplementedError over layers that cannot tell."""
        return _sync(self.layer).group_channels(self.name)

    async def achannels(self) -> list[str]:
        """Return the names of the members, sorted; NotImplementedError over layers that cannot tell."""
        return await _async(self.layer).group_channels(self.name)

    def count(self) -> int:
        """Return how many members there are; NotImplementedError over layers that cannot tell."""
        return _sync(self.layer).group_count(self.name)

    async def acount(self) -> int:
        """Return how many members there are; NotImplementedError over layers that cannot tell."""
        return len(await self.achannels())


def _sync(alias: str) -> SyncChannelLayer:
    return get_sync_channel_layer(alias)


def _layer(alias: str) -> BaseChannelLayer:
    return get_sync_channel_layer(alias).layer


def _async(alias: str) -> SqliteChannelLayer | ForeignCalls:
    layer = _layer(alias)
    return layer if isinstance(layer, SqliteChannelLayer) else ForeignCalls(layer)


def _typed(history: History[Message]) -> History[M]:
    return cast("History[M]", history)
