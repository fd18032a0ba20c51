"""Layers that keep what they are sent."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from tests.support.layers import LayerFactory

HISTORY = {"room*": {"size": 100, "ttl": 300}}


class KeepingFactory(Protocol):
    def __call__(self, **config: Any) -> SqliteChannelLayer: ...


@pytest.fixture
async def make_keeping(make_layer: LayerFactory) -> AsyncIterator[KeepingFactory]:
    """Makes layers that keep what groups are sent whose names begin with `room`; CONFIG as given beyond that."""

    def make(**config: Any) -> SqliteChannelLayer:
        return make_layer(**{"history": HISTORY, **config})

    yield make


@pytest.fixture
async def keeping(make_keeping: KeepingFactory) -> SqliteChannelLayer:
    return make_keeping()
