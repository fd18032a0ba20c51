"""Groups over any layer."""

import pytest

from channels_sqlite import SyncChannelLayer
from tests.facade.backends import REDIS, Configure
from tests.facade.differences import Difference, differs
from tests.facade.steps import assert_nothing_comes, collect


@pytest.fixture
def members(facade: SyncChannelLayer) -> list[str]:
    """The members of the group `room`."""
    names = ["normal", facade.new_channel(), facade.new_channel()]
    for name in names:
        facade.group_add("room", name)
    return names


def test_message_reaches_every_member_once(facade: SyncChannelLayer, members: list[str]) -> None:
    facade.group_add("other", "stranger")
    facade.group_add("room", members[0])  # renewing makes no second membership
    message = {"type": "chat.message", "text": "hi", "raw": b"\x00", "list": [1, None]}
    facade.group_send("room", message)
    for member in members:
        assert collect(facade, member, 1) == [message]
    for channel in (*members, "stranger"):
        assert_nothing_comes(facade, channel)


def test_who_has_left_is_spared(facade: SyncChannelLayer, members: list[str]) -> None:
    for member in members[:2]:
        facade.group_discard("room", member)
    facade.group_discard("room", "stranger")  # which was never there
    facade.group_discard("nowhere", members[2])
    facade.group_send("room", {"n": 1})
    assert collect(facade, members[2], 1) == [{"n": 1}]
    for member in members[:2]:
        assert_nothing_comes(facade, member)


def test_who_joins_later_gets_nothing_older(facade: SyncChannelLayer, members: list[str]) -> None:
    facade.group_send("room", {"n": 1})
    late = facade.new_channel()
    facade.group_add("room", late)
    facade.group_send("room", {"n": 2})
    assert collect(facade, late, 1) == [{"n": 2}]
    assert collect(facade, members[0], 2) == [{"n": 1}, {"n": 2}]


def test_empty_group_takes_messages(facade: SyncChannelLayer) -> None:
    facade.group_send("nobody", {"n": 1})
    facade.group_add("nobody", "channel")
    assert_nothing_comes(facade, "channel")


def test_full_member_is_skipped_and_nobody_told(configure: Configure) -> None:
    facade = configure(capacity=2)
    for member in ("full", "empty"):
        facade.group_add("room", member)
    for number in range(2):
        facade.send("full", {"n": number})
    facade.group_send("room", {"n": "all"})
    assert collect(facade, "empty", 1) == [{"n": "all"}]
    assert collect(facade, "full", 2) == [{"n": 0}, {"n": 1}]
    assert_nothing_comes(facade, "full")


def test_members_get_their_own_copies(facade: SyncChannelLayer, members: list[str]) -> None:
    facade.group_send("room", {"list": [1]})
    first = collect(facade, members[0], 1)[0]
    first["list"].append(2)
    assert collect(facade, members[1], 1) == [{"list": [1]}]
    assert collect(facade, members[2], 1) == [{"list": [1]}]


@differs(Difference.GROUP_MEMBERS_ARE_KNOWN)
def test_members_can_be_listed_and_counted(facade: SyncChannelLayer, members: list[str]) -> None:
    assert facade.group_channels("room") == sorted(members)
    assert facade.group_count("room") == 3
    facade.group_discard("room", members[1])
    facade.group_add("room", members[0])
    assert facade.group_channels("room") == sorted([members[0], members[2]])
    assert facade.group_count("room") == 2
    assert facade.group_channels("nobody") == []
    assert facade.group_count("nobody") == 0


@pytest.mark.parametrize("backend", [REDIS], ids=["redis"], indirect=True)
def test_layer_that_cannot_list_members_is_named(facade: SyncChannelLayer, members: list[str]) -> None:
    for call in (facade.group_channels, facade.group_count):
        with pytest.raises(NotImplementedError, match=r"channels_redis\.core\.RedisChannelLayer"):
            call("room")
