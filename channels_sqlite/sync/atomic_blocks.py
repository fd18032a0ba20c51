"""Writing inside the transaction that the calling thread has open on the layer's own database.

A second connection would wait for that transaction, which waits for the thread: a deadlock until the time-out. So what
is sent there goes through Django's own connection, and commits or rolls back with everything else in the transaction.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from channels.exceptions import ChannelFull
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper

from channels_sqlite.engine.engine import Engine
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.storage import isolation
from channels_sqlite.storage.errors import explain, is_busy
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction

__all__ = ["join", "open_transaction"]

T = TypeVar("T")

SAVEPOINT = "channels_sqlite_join"


def open_transaction(alias: str) -> DatabaseWrapper | None:
    """Return this thread's connection that has a transaction open on the database of `alias`, or None."""
    if isolation.is_active():  # no connection of Django's is on a database of one test's layers
        return None
    name = ""
    for connection in connections.all(initialized_only=True):
        if not isinstance(connection, DatabaseWrapper) or connection.connection is None:
            continue
        if connection.connection.in_transaction:
            name = name or str(connections.settings[alias]["NAME"])
            if connection.alias == alias or str(connection.settings_dict["NAME"]) == name:
                return connection
    return None


def join(
    connection: DatabaseWrapper,
    engine: Engine,
    prefix: str,
    apply: Callable[[Transaction], T],
    *,
    writes: bool = True,
) -> T:
    """Run `apply` in the open transaction of `connection` and return its result. Readers are woken when it commits.

    Raises ChannelDatabaseError where the transaction cannot be written in, and what `apply` raises; nothing of it is
    written then. One that only reads says so with `writes`, and takes no lock.
    """
    connection.validate_no_broken_transaction()
    raw: sqlite3.Connection = connection.connection
    try:
        raw.execute(f"SAVEPOINT {SAVEPOINT}")
        try:
            store = Store(raw, prefix)
            if writes:
                store.lock()  # before anything is read: a transaction that has read does not wait for the lock
            transaction = Transaction(store, time.time(), in_users_block=True)
            result = apply(transaction)
        except BaseException as error:
            if raw.in_transaction:  # some errors end the whole of it: https://www.sqlite.org/lang_transaction.html
                raw.execute(f"ROLLBACK TO {SAVEPOINT}")
                raw.execute(f"RELEASE {SAVEPOINT}")
            if isinstance(error, ChannelFull):
                _once_committed(connection, partial(_count_refused, engine))
            raise
        raw.execute(f"RELEASE {SAVEPOINT}")
    except sqlite3.Error as error:
        if is_busy(error) and getattr(connection, "transaction_mode", None) not in ("IMMEDIATE", "EXCLUSIVE"):
            raise ChannelDatabaseError(
                f"the transaction open on the channel layer's own database (DATABASES[{connection.alias!r}]) cannot "
                f"write: it has read before and others have written since, or they hold the lock for too long; set "
                f'OPTIONS["transaction_mode"] = "IMMEDIATE", so that transactions wait for the lock when they begin. '
                f"SQLite says: {error}"
            ) from error
        raise explain(error, str(connection.settings_dict["NAME"]), connection.alias) from error
    _once_committed(connection, partial(engine.announce, transaction))
    return result


def _once_committed(connection: DatabaseWrapper, work: Callable[[], object]) -> None:
    """Do `work` once the transaction has committed, where somebody tells of that: else polling finds what is new."""
    if connection.in_atomic_block:
        connection.on_commit(work, robust=True)


def _count_refused(engine: Engine) -> None:
    engine.reports.counters.refused += 1
