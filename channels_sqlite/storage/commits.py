"""Running writes in one transaction, and what follows its commit.

Rows may go behind the layer's back (`manage.py flush`, a test case that empties all tables). So each transaction of a
reader looks for the reader's registration, and makes it anew where it is gone, before anything is written that relies
on it.

Whoever calls this holds `OpenDatabase.writing`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable
from typing import Protocol

from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections, OpenConnection, OpenDatabase
from channels_sqlite.storage.errors import is_busy, is_harmless
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import AnyWrite, ElsewhereError, Registered, Transaction

__all__ = ["Commits", "Wakeups", "fail"]

logger = logging.getLogger(__name__)

COMMIT_BYTES = 16 * 1024  # four pages
SLOW_COMMIT_S = 0.01
SLOW_REST_S = 0.25


class Wakeups(Protocol):
    """Whom to wake after a commit."""

    def locate(self, clients: set[str], store: Store) -> None:
        """Look up, within the transaction, where these are."""

    def wake(self, clients: set[str]) -> None:
        """Wake them."""


class Commits:
    """Runs transactions, one at a time."""

    def __init__(self, database: OpenDatabase, wakeups: Wakeups, reports: Reports) -> None:
        self._database = database
        self._wakeups = wakeups
        self._reports = reports
        self.registration: Registered | None = None  # this process's own, while there is to be one
        self.rest_until = 0.0  # monotonic time until which a slow disk keeps writes off the loops
        self.count = 0
        self.written_bytes = 0  # about what was added to the WAL

    def attempt(
        self, connection: OpenConnection, connections: Connections, batch: list[AnyWrite], wake: set[str]
    ) -> list[AnyWrite]:
        """Run `batch` in one transaction; return what could not be done because the database is locked.

        An error of the database fails the one write that it belongs to: a batch that fails is tried write by write.
        Those to wake are added to `wake`.
        """
        store = connection.store
        transaction: Transaction | None = None
        try:
            store.begin()
            registration = self.registration
            transaction = Transaction(
                store,
                time.time(),
                reader="" if registration is None else registration.client,
                file=connections.identity,
            )
            if registration is not None and not transaction.registered:
                if connection is connections.inline and running_loop() is not None:
                    raise ElsewhereError
                registration.enter_in(transaction)
            for write in batch:
                if not write.withdrawn:
                    _apply(write, transaction)
            if transaction.wake:
                self._wakeups.locate(transaction.wake, store)
            started = time.monotonic()
            store.commit()
        except ElsewhereError:
            if transaction is not None:
                transaction.take_back()
            _roll_back(store)
            return batch
        except sqlite3.Error as error:
            if transaction is not None:
                transaction.take_back()
            _roll_back(store)
            if is_busy(error):
                self._reports.counters.retried += 1
                return batch
            if len(batch) > 1:
                return [left for write in batch for left in self.attempt(connection, connections, [write], wake)]
            explained = connections.explain(error)
            explained.__cause__ = error
            fail(batch, explained)
            if not is_harmless(error):
                self._database.failed(error)
            return []
        except BaseException:  # Ctrl-C
            self._end(store, transaction)
            raise
        if connection is connections.inline:
            self._watch_commit_time(time.monotonic() - started)
        self.count += 1
        self.written_bytes += COMMIT_BYTES + sum(write.size_bytes for write in batch)
        wake |= transaction.wake
        transaction.hand_over(self._reports.counters)
        return []

    def _end(self, store: Store, transaction: Transaction | None) -> None:
        """Bring what was interrupted to an end, be it before or after the commit."""
        if store.in_transaction:
            if transaction is not None:
                transaction.take_back()
            _roll_back(store)
        elif transaction is not None:
            transaction.hand_over(self._reports.counters)

    def _watch_commit_time(self, commit_s: float) -> None:
        if commit_s > SLOW_COMMIT_S:
            self.rest_until = time.monotonic() + SLOW_REST_S
            self._reports.slow_commit(commit_s)


def _apply(write: AnyWrite, transaction: Transaction) -> None:
    write.error = None
    try:
        write.result = write.apply(transaction)
    except (sqlite3.Error, ElsewhereError):
        raise
    except Exception as error:  # noqa: BLE001  # ChannelFull, say: it is this write's alone, which wrote nothing
        write.error = error


def fail(writes: Iterable[AnyWrite], error: Exception) -> None:
    """Have all of `writes` end with `error`."""
    for write in writes:
        write.error = error


def _roll_back(store: Store) -> None:
    try:
        store.rollback()
    except sqlite3.Error as error:
        logger.warning("could not roll back: %s", error)
