"""Names that are refused in what the facade and the handles have beyond the specification, over any layer."""

from typing import Any

import pytest

from channels_sqlite import Channel, Group, SyncChannelLayer
from tests.facade.steps import assert_nothing_comes

# Wrong arguments of every type go in: that is what is tested, and Any lets them.
MESSAGE = {"type": "a.message"}
BAD_ANYWHERE = ["", "a room", "a/b", "größe", "room\n", "a\0b", "a" * 100, "room٣", None, 7, b"room", ["room"]]
BAD_CHANNELS = [*BAD_ANYWHERE, "a!b!c", "!local", "!", "a.client!b c"]
BAD_GROUPS = [*BAD_ANYWHERE, "group!", "group!local"]


def _any(value: object) -> Any:
    return value


def test_bad_channel_names_raise_type_error(facade: SyncChannelLayer) -> None:
    for name in map(_any, BAD_CHANNELS):
        for call in (
            lambda name: facade.send_on_commit(name, MESSAGE),
            lambda name: facade.listen("channel", name),
            Channel,
        ):
            with pytest.raises(TypeError, match="name must be a string"):
                call(name)
    assert_nothing_comes(facade, "channel")


def test_bad_group_names_raise_type_error(facade: SyncChannelLayer) -> None:
    for name in map(_any, BAD_GROUPS):
        for call in (
            lambda name: facade.group_send_on_commit(name, MESSAGE),
            facade.group_channels,
            facade.group_count,
            Group,
        ):
            with pytest.raises(TypeError, match="name must be a string"):
                call(name)
    assert_nothing_comes(facade, "channel")
