"""Groups over any layer."""

import pytest

from channels_sqlite import SyncChannelLayer
from tests.conformance.backends import REDIS
from tests.conformance.differences import Difference, differs


@pytest.fixture
def members(facade: SyncChannelLayer) -> list[str]:
    """The members of the group `room`."""
    names = ["normal", facade.new_channel(), facade.new_channel()]
    for name in names:
        facade.group_add("room", name)
    return names


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


@pytest.mark.parametrize("backend", [REDIS], indirect=True)
def test_layer_that_cannot_list_members_is_named(facade: SyncChannelLayer, members: list[str]) -> None:
    for call in (facade.group_channels, facade.group_count):
        with pytest.raises(NotImplementedError, match=r"channels_redis\.core\.RedisChannelLayer"):
            call("room")
