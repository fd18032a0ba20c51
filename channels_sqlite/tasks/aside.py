"""Looking into the database of a TASKS entry beside the layer: for the parent of workers, which has none open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from channels_sqlite.channel_layers import our_entries
from channels_sqlite.options import Options
from channels_sqlite.storage.database import Database
from channels_sqlite.storage.store import Store
from channels_sqlite.tasks.backend import SqliteTaskBackend

__all__ = ["opened_store"]


@contextmanager
def opened_store(backend: SqliteTaskBackend) -> Iterator[tuple[Store, sqlite3.Connection]]:
    """Open a connection of one's own until the block ends.

    Raises:
        ImproperlyConfigured: the settings of the layer or of its database have faults.
        ChannelDatabaseError: the database cannot be opened; the text says why.
    """
    [entry] = [entry for entry in our_entries() if entry.alias == backend.task_options.layer]
    options = Options.from_config(entry.config)
    with closing(Database(options.database).connect()) as connection:
        yield Store(connection, options.prefix), connection
