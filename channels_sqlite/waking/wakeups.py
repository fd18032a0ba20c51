"""Whom to wake after a commit: the readers of other processes by their sockets, those of this one by reading."""

from __future__ import annotations

from collections.abc import Callable

from channels_sqlite.counters import Counters
from channels_sqlite.storage.connections import OpenDatabase
from channels_sqlite.storage.store import Store
from channels_sqlite.waking.sender import Sender
from channels_sqlite.waking.wake_socket import have_unix_datagrams

__all__ = ["Wakeups"]


class Wakeups:
    """The wake-ups that one layer sends in one process. May be called by any thread."""

    def __init__(self, client: str, database: OpenDatabase, counters: Counters) -> None:
        self._client = client
        self._database = database
        self._counters = counters
        self._sender = Sender() if have_unix_datagrams() else None
        self.read_here: Callable[[], object] = _nothing
        """What wakes this very process."""

    def locate(self, clients: set[str], store: Store) -> None:
        """Look up in the database where those clients are of whom that is not known yet."""
        place = self._database.place
        if self._sender is not None and place is not None:
            self._sender.locate(clients - {self._client}, store, place)

    def wake(self, clients: set[str]) -> None:
        """Wake the readers of what was just committed."""
        if self._sender is not None:
            self._counters.wakeups_sent += self._sender.wake(clients)
        if self._client in clients:
            self.read_here()

    def strays(self, store: Store) -> set[str]:
        """Return the readers that are alive and, for the moment, not registered: any group may be theirs."""
        place = self._database.place
        return set() if self._sender is None or place is None else self._sender.strays(store, place)

    def wake_everybody(self) -> None:
        """Wake all readers, registered or not: rows have gone, maybe theirs as well."""
        place = self._database.place
        if self._sender is not None and place is not None:
            self._sender.wake_everybody(place)

    def forget(self) -> None:
        """Look all clients up again: the database is another one."""
        if self._sender is not None:
            self._sender.forget()

    def forget_gone(self) -> None:
        """Close what is connected to readers that are no more."""
        if self._sender is not None:
            self._sender.forget_gone()

    def close(self) -> None:
        """Close the sockets."""
        if self._sender is not None:
            self._sender.close()

    def abandon(self) -> None:
        """In a forked child: close these copies."""
        if self._sender is not None:
            self._sender.abandon()


def _nothing() -> None:
    pass
