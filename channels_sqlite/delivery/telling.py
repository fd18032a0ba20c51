"""Telling of presences: what a change makes of the list, to those who are present or watch.

A process gets one row for all its channels, and a normal channel one of its own, in the transaction that makes the
change. What waits on a normal channel does not expire and takes no capacity; where it would be more than the capacity,
it is put together.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager

from channels_sqlite.codec import UndecodableError
from channels_sqlite.delivery import diffs
from channels_sqlite.delivery.notices import Notices
from channels_sqlite.kinds import Kind
from channels_sqlite.options import Options
from channels_sqlite.storage.messages import NEVER, LogRow
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.waking.wakeups import Wakeups

__all__ = ["Telling"]


class Telling:
    """What one process tells; within its transactions, one at a time."""

    def __init__(self, client: str, options: Options, notices: Notices, wakeups: Wakeups) -> None:
        self._client = client
        self._options = options
        self._notices = notices
        self._wakeups = wakeups

    @contextmanager
    def changing(
        self, transaction: Transaction, store: Store, group: str, keys: Collection[str]
    ) -> Generator[None, None, None]:
        """Tell of what the block changes in the presence of `keys`; `store` has the prefix of the group's layer."""
        before = {key: store.info_of(group, key) for key in keys}
        yield
        after = {key: store.info_of(group, key) for key in keys}
        diff = {key: (before[key], after[key]) for key in keys if before[key] != after[key]}
        if diff:
            self._tell(transaction, store, group, diff)

    def _tell(self, transaction: Transaction, store: Store, group: str, diff: diffs.Diff) -> None:
        payloads = diffs.packed(group, diff, self._options.max_message_size)
        clients = set(store.clients_that_hear(group)) or self._wakeups.strays(store)
        own = self._client in clients
        transaction.wake.update(clients - {self._client})
        expires_at = transaction.now + self._options.expiry
        for payload in payloads if clients else ():
            transaction.newest = store.insert(
                Kind.PRESENCE, group, payload, created_at=transaction.now, expires_at=expires_at
            )
            if own:
                row = LogRow(transaction.newest, Kind.PRESENCE, group, None, expires_at, payload)
                self._notices.note_own(transaction, row)
        for channel in store.normal_that_hear(group):
            self.tell_normal(transaction, store, group, channel, payloads)

    def tell_normal(
        self, transaction: Transaction, store: Store, group: str, channel: str, payloads: Iterable[bytes]
    ) -> None:
        """Append diffs to what waits on a normal channel."""
        transaction.wake.update(store.listeners_of_empty(channel, transaction.now))
        for payload in payloads:
            self._append(transaction, store, group, channel, payload)
        if store.count_told(channel) > self._options.capacity_of(channel):
            self._put_together(transaction, store, channel)

    def _append(self, transaction: Transaction, store: Store, group: str, channel: str, payload: bytes) -> None:
        transaction.newest = store.insert(
            Kind.NORMAL, channel, payload, local=group, created_at=transaction.now, expires_at=NEVER
        )

    def _put_together(self, transaction: Transaction, store: Store, channel: str) -> None:
        by_group: dict[str, list[tuple[int, bytes]]] = {}
        for row_id, group, payload in store.told(channel):
            by_group.setdefault(group, []).append((row_id, payload))
        for group, rows in by_group.items():
            if len(rows) < 2:
                continue
            try:
                payloads = diffs.merged([payload for _, payload in rows], self._options.max_message_size)
            except UndecodableError:  # told by whoever receives it
                continue
            store.withdraw_some([row_id for row_id, _ in rows])
            for payload in payloads:
                self._append(transaction, store, group, channel, payload)
