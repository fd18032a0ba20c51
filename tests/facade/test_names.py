"""Names: what is refused, in every method and over any layer, before anything happens."""

from typing import Any

import pytest

from channels_sqlite import Channel, Group, SyncChannelLayer
from tests.facade.steps import assert_nothing_comes, collect

# Wrong arguments of every type go in: that is what is tested, and Any lets them.
MESSAGE = {"type": "a.message"}
BAD_ANYWHERE = ["", "a room", "a/b", "größe", "room\n", "a\0b", "a" * 100, "room٣", None, 7, b"room", ["room"]]
BAD_CHANNELS = [*BAD_ANYWHERE, "a!b!c", "!local", "!", "a.client!b c"]
BAD_GROUPS = [*BAD_ANYWHERE, "group!", "group!local"]
BAD_PREFIXES = [*BAD_ANYWHERE[1:], "a!b"]


def _any(value: object) -> Any:
    return value


def test_bad_channel_names_raise_type_error(facade: SyncChannelLayer) -> None:
    for name in map(_any, BAD_CHANNELS):
        for call in (
            lambda name: facade.send(name, MESSAGE),
            lambda name: facade.send_on_commit(name, MESSAGE),
            lambda name: facade.receive(name, timeout=0),
            lambda name: facade.listen("channel", name),
            lambda name: facade.group_add("group", name),
            lambda name: facade.group_discard("group", name),
            Channel,
        ):
            with pytest.raises(TypeError, match="name must be a string"):
                call(name)
    facade.group_send("group", MESSAGE)
    assert_nothing_comes(facade, "channel")


def test_bad_group_names_raise_type_error(facade: SyncChannelLayer) -> None:
    for name in map(_any, BAD_GROUPS):
        for call in (
            lambda name: facade.group_send(name, MESSAGE),
            lambda name: facade.group_send_on_commit(name, MESSAGE),
            lambda name: facade.group_add(name, "channel"),
            lambda name: facade.group_discard(name, "channel"),
            facade.group_channels,
            facade.group_count,
            Group,
        ):
            with pytest.raises(TypeError, match="name must be a string"):
                call(name)
    assert_nothing_comes(facade, "channel")


def test_bad_prefixes_raise_type_error(facade: SyncChannelLayer) -> None:
    for prefix in map(_any, BAD_PREFIXES):
        with pytest.raises(TypeError):
            facade.new_channel(prefix)


def test_good_names_are_accepted(facade: SyncChannelLayer) -> None:
    for name in ("a", "azAZ09-_.", "a" * 99):
        facade.group_add(name, name)
        facade.group_send(name, MESSAGE)
        facade.send(name, MESSAGE)
        assert collect(facade, name, 2) == [MESSAGE, MESSAGE]
        facade.group_discard(name, name)
