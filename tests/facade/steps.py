"""What the tests of this folder do over and over."""

from typing import Any

import pytest

from channels_sqlite import SyncChannelLayer
from tests.facade.threads import DEADLINE_S

__all__ = ["assert_nothing_comes", "collect", "let_go"]


def collect(facade: SyncChannelLayer, channel: str, count: int) -> list[dict[str, Any]]:
    """The next `count` messages on `channel`."""
    return [facade.receive(channel, timeout=DEADLINE_S) for _ in range(count)]


def assert_nothing_comes(facade: SyncChannelLayer, channel: str) -> None:
    """Nothing waits on `channel`."""
    with pytest.raises(TimeoutError):
        pytest.fail(f"received {facade.receive(channel, timeout=0)}")


async def let_go(facade: SyncChannelLayer) -> None:
    """Close what channels_redis has opened for the running loop; it waits for the loop's end with that."""
    close: Any = getattr(facade.layer, "close_pools", None)
    if close is not None:
        await close()
