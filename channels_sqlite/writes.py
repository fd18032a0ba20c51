"""What each operation writes in its transaction. Everything here checks first and writes then; see `Transaction`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from channels.exceptions import ChannelFull

from channels_sqlite import names
from channels_sqlite.inbox import Inbox, OwnRows
from channels_sqlite.options import Options
from channels_sqlite.outbox import Transaction
from channels_sqlite.reports import Reports
from channels_sqlite.store import Kind, LogRow

__all__ = ["Writes"]

KNOWN_CHANNELS = 10_000
LIMIT_AGE_S = 1.0


class Counted(NamedTuple):
    """A count of unread messages, and what it was true of."""

    unread: int
    newest_id: int
    channels: int  # receivers that the limit was multiplied by; 1 for a normal channel
    counted_at: float  # monotonic seconds


class Writes:
    """The operations of one layer in one process, each as a function of a transaction."""

    def __init__(self, client: str, options: Options, inbox: Inbox, reports: Reports) -> None:
        self._client = client
        self._options = options
        self._inbox = inbox
        self._reports = reports
        self._counted: dict[str, Counted] = {}

    def forget_counts(self) -> None:
        """Count anew: the database is another one."""
        self._counted.clear()

    # Sending

    def send(self, channel: str, payload: bytes) -> Callable[[Transaction], None]:
        """Append a message for one channel, or raise ChannelFull."""

        def apply(transaction: Transaction) -> None:
            try:
                if "!" in channel:
                    self._admit_specific(transaction, channel)
                else:
                    self._admit_normal(transaction, channel)
            except ChannelFull:
                self._reports.counters.refused += 1
                raise
            self._append(transaction, channel, payload)
            transaction.sent += 1

        return apply

    def group_send(self, group: str, payload: bytes) -> Callable[[Transaction], None]:
        """Append one row for all process-specific members, and one for each normal channel that has room."""

        def apply(transaction: Transaction) -> None:
            store = transaction.store
            clients = store.clients_of_group(group)
            if clients:
                expires_at = transaction.now + self._options.expiry
                transaction.newest = store.insert(
                    Kind.GROUP, group, payload, created_at=transaction.now, expires_at=expires_at
                )
                transaction.wake.update(clients)
                if self._client in transaction.wake:
                    transaction.wake.discard(self._client)
                    self._note_own(
                        transaction, LogRow(transaction.newest, Kind.GROUP, group, None, expires_at, payload)
                    )
            normal = [channel for channel, _, _ in store.members(group, "", transaction.now)]
            full = 0
            for channel in normal:
                try:
                    self._admit_normal(transaction, channel)
                except ChannelFull:
                    full += 1
                else:
                    self._append(transaction, channel, payload)
            transaction.sent += 1
            if full:
                transaction.after_commit.append(lambda: self._reports.skipped(group, full, len(normal)))

        return apply

    def _append(self, transaction: Transaction, channel: str, payload: bytes) -> None:
        store = transaction.store
        now = transaction.now
        expires_at = now + self._options.expiry
        queue, local = names.split(channel)
        if local is None:
            transaction.wake.update(store.listeners_of_empty(channel, now))
            transaction.newest = store.insert(Kind.NORMAL, queue, payload, created_at=now, expires_at=expires_at)
        else:
            client = names.client_of(channel)
            transaction.newest = store.insert(
                Kind.SPECIFIC, queue, payload, local=local, client=client, created_at=now, expires_at=expires_at
            )
            if client == self._client:
                self._note_own(
                    transaction, LogRow(transaction.newest, Kind.SPECIFIC, queue, local, expires_at, payload)
                )
            else:
                transaction.wake.add(client)

    def _note_own(self, transaction: Transaction, row: LogRow) -> None:
        """Note a row that this very process will receive, so that it need not be read back after the commit."""
        if not transaction.own:
            transaction.after_commit.append(
                lambda: self._inbox.take_in(OwnRows(transaction.first, transaction.newest, transaction.own))
            )
        transaction.own.append(row)

    # Capacity

    def _admit_normal(self, transaction: Transaction, channel: str) -> None:
        capacity = self._options.capacity_of(channel)
        known = self._counted.get(channel)
        if known is not None and known.unread + transaction.newest - known.newest_id < capacity:
            return  # even if every row since were for this channel
        unread = transaction.store.count_waiting(channel, now=transaction.now, limit=capacity)
        self._judge(transaction, channel, unread, capacity=capacity, channels=1)

    def _admit_specific(self, transaction: Transaction, channel: str) -> None:
        queue = names.queue_of(channel)
        capacity = self._options.capacity_of(channel)
        known = self._counted.get(queue)
        if (
            known is not None
            and known.unread + transaction.newest - known.newest_id < capacity * known.channels
            and time.monotonic() - known.counted_at < LIMIT_AGE_S
        ):
            return
        client = names.client_of(channel)
        cursor = held = waiting = 0
        if client == self._client:
            cursor, held, waiting = self._inbox.unread()
            if held >= capacity:  # some of it may have expired since the last sweep
                self._inbox.drop_expired()
                cursor, held, waiting = self._inbox.unread()
        elif (process := transaction.store.process(client)) is not None:
            cursor, held, waiting = process.cursor, process.held, process.channels
        channels = max(1, waiting)
        limit = capacity * channels
        unread = held
        if held < limit:
            unread += transaction.store.count_addressed(queue, after=cursor, now=transaction.now, limit=limit - held)
        self._judge(transaction, channel, unread, capacity=capacity, channels=channels)

    def _judge(self, transaction: Transaction, channel: str, unread: int, *, capacity: int, channels: int) -> None:
        key = names.queue_of(channel)
        limit = capacity * channels
        if unread >= limit:
            self._counted.pop(key, None)
            raise ChannelFull(
                f'channel {channel!r} holds {unread} of {limit} unread messages; raise "capacity" or add readers'
            )
        if transaction.joined:
            return
        if len(self._counted) >= KNOWN_CHANNELS:
            self._counted.clear()
        self._counted[key] = Counted(unread, transaction.newest, channels, time.monotonic())
        # A count that includes rows of this very transaction is worth nothing if that fails.
        transaction.undo.append(lambda: self._counted.pop(key, None))

    # Groups

    def group_add(self, group: str, channel: str) -> Callable[[Transaction], None]:
        """Make `channel` a member, for what is sent from now on."""

        def apply(transaction: Transaction) -> None:
            expiry = self._options.group_expiry
            expires_at = None if expiry is None else transaction.now + expiry
            client = names.client_of(channel)
            joined_id = transaction.store.join(
                group, client, channel, joined_id=transaction.newest, expires_at=expires_at, now=transaction.now
            )
            if client == self._client and not transaction.joined:
                transaction.undo.append(self._inbox.joined(group, channel, joined_id, expires_at))
            elif client:
                self._tell(transaction, group, client, channel)

        return apply

    def group_discard(self, group: str, channel: str) -> Callable[[Transaction], None]:
        """End a membership, if there is one."""

        def apply(transaction: Transaction) -> None:
            client = names.client_of(channel)
            left = transaction.store.leave(group, client, channel)
            if client == self._client:
                transaction.after_commit.append(lambda: self._inbox.left(group, channel))
            elif client and left:
                self._tell(transaction, group, client, channel)

        return apply

    def _tell(self, transaction: Transaction, group: str, client: str, channel: str) -> None:
        """Say in the log that a membership has changed: of another process's channel, or in a joined transaction."""
        name = channel.encode()
        expires_at = transaction.now + self._options.expiry
        transaction.newest = transaction.store.insert(
            Kind.MEMBERSHIP, group, name, client=client, created_at=transaction.now, expires_at=expires_at
        )
        if client == self._client:
            self._note_own(transaction, LogRow(transaction.newest, Kind.MEMBERSHIP, group, None, expires_at, name))
        else:
            transaction.wake.add(client)

    def flush(self, transaction: Transaction) -> None:
        """Delete all messages and memberships, and have every process forget what it holds."""
        store = transaction.store
        store.flush()
        self.forget_counts()
        expires_at = transaction.now + self._options.expiry
        transaction.newest = store.insert(Kind.FLUSH, "", b"", created_at=transaction.now, expires_at=expires_at)
        transaction.wake.update(process.client for process in store.processes())
        transaction.wake.discard(self._client)
        self._note_own(transaction, LogRow(transaction.newest, Kind.FLUSH, "", None, expires_at, b""))
