"""Making layers in tests, and closing every one of them."""

import asyncio
from typing import Any

from channels_sqlite.layers import SqliteChannelLayer

CLOSE_DEADLINE_S = 10.0


class LayerFactory:
    """Makes layers on demand and closes them all in the end: `make_layer("channels", capacity=5)`."""

    def __init__(self) -> None:
        self._layers: list[SqliteChannelLayer] = []

    # CONFIG comes from settings, whose values are of any type; that wrong ones are refused is part of what is tested.
    def __call__(self, alias: str = "channels", /, **config: Any) -> SqliteChannelLayer:
        """A layer over the database `alias`; `config` is what a user would write in CONFIG."""
        layer = SqliteChannelLayer(database=alias, **config)
        self._layers.append(layer)
        return layer

    async def close(self) -> None:
        """Close every layer, latest first. Raises what the closing raised, after all have been tried."""
        failures: list[BaseException] = []
        while self._layers:
            try:
                await asyncio.wait_for(self._layers.pop().close(), CLOSE_DEADLINE_S)
            except Exception as failure:  # noqa: BLE001 - the others still need closing
                failures.append(failure)
        if failures:
            raise failures[0]
