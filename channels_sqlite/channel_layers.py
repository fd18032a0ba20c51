"""The entries of CHANNEL_LAYERS, which of them are this package's, and the layer that an alias means."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from channels.layers import channel_layers
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from channels_sqlite.concurrency import forks
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.options import Options

if TYPE_CHECKING:
    from channels.layers import BaseChannelLayer

__all__ = ["LayerEntry", "entries", "layer_aliases", "layer_of", "our_entries"]


@dataclass(frozen=True, kw_only=True)
class LayerEntry:
    """One entry of CHANNEL_LAYERS. What is missing or of a wrong type there is empty here."""

    alias: str
    backend: str  # dotted path
    config: Mapping[str, object] = field(repr=False)
    backend_error: str  # why the backend cannot be imported, or ""
    is_ours: bool

    @property
    def database(self) -> str:
        """The alias in DATABASES that CONFIG names, or the default one where it names none."""
        value = self.config.get("database", Options.database)
        return value if isinstance(value, str) else Options.database

    @property
    def setting(self) -> str:
        """The entry as written in the settings module, for messages."""
        return f"CHANNEL_LAYERS[{self.alias!r}]"


def entries() -> list[LayerEntry]:
    """Return all entries of CHANNEL_LAYERS, in their order."""
    return [_entry(alias, entry) for alias, entry in (getattr(settings, "CHANNEL_LAYERS", None) or {}).items()]


def our_entries() -> list[LayerEntry]:
    """Return the entries whose backend is this package's layer, or a subclass of it."""
    return [entry for entry in entries() if entry.is_ours]


def layer_aliases() -> list[str]:
    """Return the DATABASES aliases that this package's layers use, in their order."""
    return list(dict.fromkeys(entry.database for entry in our_entries()))


def _entry(alias: str, written: object) -> LayerEntry:
    values = written if isinstance(written, Mapping) else {}
    backend = values.get("BACKEND")
    config = values.get("CONFIG")
    error = ""
    imported: object = None
    if isinstance(backend, str):
        try:
            imported = import_string(backend)
        except ImportError as fault:
            error = str(fault)
    return LayerEntry(
        alias=alias,
        backend=backend if isinstance(backend, str) else "",
        config=config if isinstance(config, Mapping) else {},
        backend_error=error,
        is_ours=isinstance(imported, type) and issubclass(imported, SqliteChannelLayer),
    )


class _Making:
    """The lock under which layers are made. A child gets a new one, for nobody would release the parent's there."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # nothing is waited for inside
        forks.register(self._after_fork_in_child)

    def _after_fork_in_child(self) -> None:
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
