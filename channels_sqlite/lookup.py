"""The layer of an alias: one object per process, also where two threads ask for it first at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from channels.layers import channel_layers
from django.core.exceptions import ImproperlyConfigured

from channels_sqlite import forks

if TYPE_CHECKING:
    from channels.layers import BaseChannelLayer

__all__ = ["layer_of"]


class _Making:
    """The lock under which layers are made. A child gets a new one, for nobody would release the parent's there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        forks.register(self)

    def fork_locks(self) -> Iterable[threading.Lock]:
        return (self.lock,)

    def after_fork_in_child(self) -> None:
        self.lock = threading.Lock()


_making = _Making()


def layer_of(alias: str) -> BaseChannelLayer:
    """Return the layer that CHANNEL_LAYERS configures under `alias`, whatever its BACKEND.

    Raises:
        ImproperlyConfigured: CHANNEL_LAYERS has no such alias, or its CONFIG has faults.
    """
    made: BaseChannelLayer | None = channel_layers.backends.get(alias)
    if made is not None:
        return made
    if alias not in channel_layers:
        known = ", ".join(map(repr, channel_layers.configs)) or "none"
        raise ImproperlyConfigured(f"CHANNEL_LAYERS has no alias {alias!r}; it has: {known}.")
    with _making.lock:  # Channels would make two layers for two threads
        return channel_layers[alias]
