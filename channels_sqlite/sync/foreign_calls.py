"""The calls of our layer on one of another package: what can be had there, and a clear no to the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from channels.layers import BaseChannelLayer, InMemoryChannelLayer

from channels_sqlite import names
from channels_sqlite.codec import Codec, Message
from channels_sqlite.histories import History, require_flag, require_question
from channels_sqlite.options import Options
from channels_sqlite.sending import require_due, require_excluded, require_expiry, require_messages

__all__ = ["ForeignCalls", "plain", "require"]


class ForeignCalls:
    """Methods with the names and parameters of `SqliteChannelLayer`; messages are checked as ours are."""

    def __init__(self, layer: BaseChannelLayer) -> None:
        # Any: what a layer has beyond the base class is a matter of the specification, not of its type.
        self._layer: Any = layer

    async def send(self, channel: str, message: Mapping[str, object], *, expiry: float | None = None) -> None:
        """Call the layer's `send`."""
        require_expiry(expiry)
        require(self._layer, "send", expiry=expiry)
        await self._layer.send(channel, plain(message))

    async def send_many(
        self, channel: str, messages: Sequence[Mapping[str, object]], *, expiry: float | None = None
    ) -> None:
        """Call the layer's `send` for one after the other: what comes before an error is sent."""
        require_expiry(expiry)
        require(self._layer, "send_many", expiry=expiry)
        for message in _all_plain(messages):
            await self._layer.send(channel, message)

    async def send_later(
        self,
        channel: str,
        message: Mapping[str, object],
        *,
        delay: float | None = None,
        at: datetime | None = None,
        expiry: float | None = None,
    ) -> str:
        """Raise NotImplementedError."""
        names.require_channel_name(channel)
        plain(message)
        require_expiry(expiry)
        require_due(delay, at)
        _refuse(self._layer, "send_later")

    async def group_send(
        self,
        group: str,
        message: Mapping[str, object],
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> None:
        """Call the layer's `group_send`."""
        require_expiry(expiry)
        require_flag(history)
        require_excluded(exclude)
        require(self._layer, "group_send", expiry=expiry, exclude=exclude)
        await self._layer.group_send(group, plain(message))

    async def group_send_many(
        self,
        group: str,
        messages: Sequence[Mapping[str, object]],
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> None:
        """Call the layer's `group_send` for one after the other: what comes before an error is sent."""
        require_expiry(expiry)
        require_flag(history)
        require_excluded(exclude)
        require(self._layer, "group_send_many", expiry=expiry, exclude=exclude)
        for message in _all_plain(messages):
            await self._layer.group_send(group, message)

    async def group_send_later(
        self,
        group: str,
        message: Mapping[str, object],
        *,
        delay: float | None = None,
        at: datetime | None = None,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> str:
        """Raise NotImplementedError."""
        names.require_group_name(group)
        plain(message)
        require_expiry(expiry)
        require_flag(history)
        require_excluded(exclude)
        require_due(delay, at)
        _refuse(self._layer, "group_send_later")

    async def cancel(self, ticket: str) -> bool:  # noqa: ARG002  # it is nobody's
        """Raise NotImplementedError."""
        _refuse(self._layer, "cancel")

    async def group_add(self, group: str, channel: str) -> None:
        """Call the layer's `group_add`."""
        await self._layer.group_add(group, channel)

    async def group_discard(self, group: str, channel: str) -> None:
        """Call the layer's `group_discard`."""
        await self._layer.group_discard(group, channel)

    async def group_subscribe(
        self, group: str, channel: str, *, since: object = None, last: int | None = None
    ) -> History[Message]:
        """Raise NotImplementedError."""
        names.require_group_name(group)
        names.require_channel_name(channel)
        require_question(since, last)
        _refuse(self._layer, "group_subscribe")

    async def group_history(self, group: str, *, since: object = None, last: int | None = None) -> History[Message]:
        """Raise NotImplementedError."""
        names.require_group_name(group)
        require_question(since, last)
        _refuse(self._layer, "group_history")

    async def group_channels(self, group: str) -> list[str]:
        """Return the members of a group, sorted; raise NotImplementedError where the layer cannot tell."""
        if isinstance(self._layer, InMemoryChannelLayer):
            return sorted(self._layer.groups.get(group, ()))
        ask = getattr(self._layer, "group_channels", None)
        if ask is None:
            _refuse(self._layer, "group_channels")
        return sorted(await ask(group))


EVERYWHERE = frozenset({"send", "send_many", "send_on_commit", "group_send", "group_send_many", "group_send_on_commit"})
"""Methods that every layer has, or can have by means of others."""


def require(layer: object, method: str, *, expiry: object = None, exclude: object = None) -> None:
    """Raise NotImplementedError where another package's `layer` has no such `method`, or not with what is not None."""
    if method not in EVERYWHERE:
        _refuse(layer, method)
    for name, value in (("expiry", expiry), ("exclude", exclude)):
        if value is not None:
            _refuse(layer, method, name)


def _refuse(layer: object, method: str, parameter: str = "") -> NoReturn:
    """Raise NotImplementedError, which names the method and the backend."""
    backend = f"{type(layer).__module__}.{type(layer).__qualname__}"
    given = f"{parameter}=..." if parameter else ""
    raise NotImplementedError(
        f"{method}({given}) cannot be had over {backend}; it can over channels_sqlite.layers.SqliteChannelLayer"
    )


def plain(message: Mapping[str, object], path: str = "message") -> Message:
    """Check `message` as our own layer does, and return a copy of plain values, which every other layer can send."""
    return _codec.decode(_codec.encode(message, path))


def _all_plain(messages: Sequence[Mapping[str, object]]) -> list[Message]:
    require_messages(messages)
    return [plain(message, f"messages[{index}]") for index, message in enumerate(messages)]


_codec = Codec(max_message_size=Options().max_message_size)
