"""A Django Channels layer that keeps everything in one SQLite file.

Public are the names that `channels_sqlite` itself exports, and those of its modules `apps`, `consumers`, `db_routers`,
`exceptions`, `layers`, `lifespan`, `sse`, `sync`, `tasks` and `testing`; all others may move. Importing them needs
neither settings nor a database: both are looked at when a layer is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channels_sqlite.handles import Channel, Group, Presence
    from channels_sqlite.histories import History, HistoryEntry
    from channels_sqlite.layers import SqliteChannelLayer
    from channels_sqlite.present import Present
    from channels_sqlite.sync import SyncChannelLayer, get_sync_channel_layer

__all__ = [
    "Channel",
    "Group",
    "History",
    "HistoryEntry",
    "Presence",
    "Present",
    "SyncChannelLayer",
    "__version__",
    "get_channel_layer",
    "get_sync_channel_layer",
]

__version__ = "0.1.0"

# Imported when first asked for: Django imports this package before its settings and apps are ready.
_HOMES = {
    "Channel": "channels_sqlite.handles",
    "Group": "channels_sqlite.handles",
    "Presence": "channels_sqlite.handles",
    "Present": "channels_sqlite.present",
    "History": "channels_sqlite.histories",
    "HistoryEntry": "channels_sqlite.histories",
    "SyncChannelLayer": "channels_sqlite.sync",
    "get_sync_channel_layer": "channels_sqlite.sync",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def get_channel_layer(alias: str = "default") -> SqliteChannelLayer:
    """Return the layer that CHANNEL_LAYERS configures under `alias`; one object per alias and process.

    Unlike `channels.layers.get_channel_layer` it is typed, and never returns None or another backend's layer.

    Raises:
        ImproperlyConfigured: CHANNEL_LAYERS has no such alias, it names another backend, or its CONFIG has faults.
    """
    from django.core.exceptions import ImproperlyConfigured

    from channels_sqlite.channel_layers import layer_of
    from channels_sqlite.layers import SqliteChannelLayer

    layer = layer_of(alias)
    if not isinstance(layer, SqliteChannelLayer):
        raise ImproperlyConfigured(
            f"CHANNEL_LAYERS[{alias!r}] is a {type(layer).__module__}.{type(layer).__qualname__}; set its BACKEND to "
            f'"channels_sqlite.layers.SqliteChannelLayer", or use channels.layers.get_channel_layer() for other layers.'
        )
    return layer
