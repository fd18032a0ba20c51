"""A Django Channels layer that keeps everything in one SQLite file.

Importing this package needs neither settings nor a database; both are looked at when a layer is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from channels_sqlite.layers import SqliteChannelLayer

__all__ = ["__version__", "get_channel_layer"]

__version__ = "0.1.0"


def get_channel_layer(alias: str = "default") -> SqliteChannelLayer:
    """Return the layer that CHANNEL_LAYERS configures under `alias`; one object per alias and process.

    Unlike `channels.layers.get_channel_layer` it is typed, and never returns None or another backend's layer.

    Raises:
        ImproperlyConfigured: CHANNEL_LAYERS has no such alias, it names another backend, or its CONFIG has faults.
    """
    from channels.layers import channel_layers
    from django.core.exceptions import ImproperlyConfigured

    from channels_sqlite.layers import SqliteChannelLayer

    if alias not in channel_layers:
        known = ", ".join(map(repr, channel_layers.configs)) or "none"
        raise ImproperlyConfigured(f"CHANNEL_LAYERS has no alias {alias!r}; it has: {known}.")
    layer = channel_layers[alias]
    if not isinstance(layer, SqliteChannelLayer):
        raise ImproperlyConfigured(
            f"CHANNEL_LAYERS[{alias!r}] is a {type(layer).__module__}.{type(layer).__qualname__}; set its BACKEND to "
            f'"channels_sqlite.layers.SqliteChannelLayer", or use channels.layers.get_channel_layer() for other layers.'
        )
    return layer
