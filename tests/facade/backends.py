"""The layers over which the sync facade and the handles are tested, as entries of CHANNEL_LAYERS."""

from typing import Any, Protocol

import pytest

from channels_sqlite import SyncChannelLayer

__all__ = ["BACKENDS", "IN_MEMORY", "OURS", "REDIS", "Configure", "only_ours"]

OURS = "channels_sqlite.layers.SqliteChannelLayer"
IN_MEMORY = "channels.layers.InMemoryChannelLayer"
REDIS = "channels_redis.core.RedisChannelLayer"

BACKENDS = {"ours": OURS, "in-memory": IN_MEMORY, "redis": REDIS}
"""The name in a test's id, and BACKEND."""

only_ours = pytest.mark.parametrize("backend", [pytest.param(OURS, id="ours")], indirect=True)
"""Marks what no other layer promises, or what the others cannot tell about."""


class Configure(Protocol):
    """Puts a layer of the backend under test into CHANNEL_LAYERS, and returns its sync facade."""

    # CONFIG comes from settings, whose values are of any type.
    def __call__(self, alias: str = "default", /, **config: Any) -> SyncChannelLayer: ...
