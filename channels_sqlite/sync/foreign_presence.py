"""Presence over another package's layer: there is none, which is said once the arguments are known to be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from channels_sqlite import names
from channels_sqlite.codec import Codec, Message
from channels_sqlite.options import Options
from channels_sqlite.present import Present, encoded_info, require_key
from channels_sqlite.sync.foreign_calls import refuse

__all__ = ["ForeignPresence", "ForeignPresenceCalls"]


class ForeignPresenceCalls:
    """For coroutines."""

    def __init__(self, layer: object) -> None:
        self._layer = layer

    async def presence_join(
        self, group: str, channel: str, key: str, info: Mapping[str, object] | None = None
    ) -> list[Present[Message]]:
        """Raise NotImplementedError."""
        _check(group, channel)
        require_key(key)
        checked_info(info)
        refuse(self._layer, "presence_join")

    async def presence_update(self, group: str, channel: str, info: Mapping[str, object] | None) -> None:
        """Raise NotImplementedError."""
        _check(group, channel)
        checked_info(info)
        refuse(self._layer, "presence_update")

    async def presence_leave(self, group: str, channel: str) -> None:
        """Raise NotImplementedError."""
        _check(group, channel)
        refuse(self._layer, "presence_leave")

    async def presence_watch(self, group: str, channel: str) -> list[Present[Message]]:
        """Raise NotImplementedError."""
        _check(group, channel)
        refuse(self._layer, "presence_watch")

    async def presence_list(self, group: str) -> list[Present[Message]]:
        """Raise NotImplementedError."""
        _check(group)
        refuse(self._layer, "presence_list")

    async def presence_count(self, group: str) -> int:
        """Raise NotImplementedError."""
        _check(group)
        refuse(self._layer, "presence_count")


class ForeignPresence:
    """For threads; names and keys are valid already."""

    _layer: Any  # whatever layer it is

    def encode_info(self, info: Mapping[str, object] | None) -> Message:
        """Check."""
        return checked_info(info)

    def presence_join(self, group: str, channel: str, key: str, info: Message) -> list[Present[Message]]:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_join")

    def presence_update(self, group: str, channel: str, info: Message) -> None:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_update")

    def presence_leave(self, group: str, channel: str) -> None:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_leave")

    def presence_watch(self, group: str, channel: str) -> list[Present[Message]]:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_watch")

    def presence_list(self, group: str) -> list[Present[Message]]:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_list")

    def presence_count(self, group: str) -> int:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_count")

    def presence_groups(self, key: str) -> list[str]:  # noqa: ARG002
        """Raise NotImplementedError."""
        refuse(self._layer, "presence_groups")


def checked_info(info: Mapping[str, object] | None) -> Message:
    """Check an info as our own layer does, and return a copy."""
    return _codec.decode(encoded_info(_codec, info))


def _check(group: object, channel: object = "channel") -> None:
    names.require_group_name(group)
    names.require_channel_name(channel)


_codec = Codec(max_message_size=Options().max_message_size)
