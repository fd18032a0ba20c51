"""What each operation writes in its transaction. Everything here checks first and writes then; see `Transaction`."""

from __future__ import annotations

from collections.abc import Callable

from channels.exceptions import ChannelFull

from channels_sqlite import names
from channels_sqlite.delivery.capacity import Capacity
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.delivery.log import OwnRows
from channels_sqlite.kinds import Kind
from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.messages import LogRow
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.waking.wakeups import Wakeups

__all__ = ["Operations"]


class Operations:
    """The operations of one layer in one process, each as a function of a transaction."""

    def __init__(self, client: str, options: Options, inbox: Inbox, wakeups: Wakeups, reports: Reports) -> None:
        self._client = client
        self._options = options
        self._log = inbox.log
        self._members = inbox.members
        self._wakeups = wakeups
        self._reports = reports
        self._capacity = Capacity(client, options, inbox.boxes)

    # Sending

    def send(self, channel: str, payload: bytes) -> Callable[[Transaction], None]:
        """Append a message for one channel, or raise ChannelFull."""

        def apply(transaction: Transaction) -> None:
            try:
                if "!" in channel:
                    self._capacity.admit_specific(transaction, channel)
                else:
                    self._capacity.admit_normal(transaction, channel)
            except ChannelFull:
                transaction.refused += 1
                raise
            self._append(transaction, channel, payload)
            transaction.sent += 1

        return apply

    def group_send(self, group: str, payload: bytes) -> Callable[[Transaction], None]:
        """Append one row for all process-specific members, and one for each normal channel that has room."""

        def apply(transaction: Transaction) -> None:
            store = transaction.store
            clients = store.clients_of_group(group) or self._wakeups.strays(store)
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
                    self._capacity.admit_normal(transaction, channel)
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
                lambda: self._log.take_in(OwnRows(transaction.first, transaction.newest, transaction.own))
            )
        transaction.own.append(row)

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
            if client == self._client and not transaction.in_users_block:
                transaction.undo.append(self._members.joined(group, channel, (joined_id, expires_at)))
            elif client:
                self._tell(transaction, group, client, channel)

        return apply

    def group_discard(self, group: str, channel: str) -> Callable[[Transaction], None]:
        """End a membership, if there is one."""

        def apply(transaction: Transaction) -> None:
            client = names.client_of(channel)
            left = transaction.store.leave(group, client, channel)
            if client == self._client:
                transaction.after_commit.append(lambda: self._members.set(group, channel, None))
            elif client and left:
                self._tell(transaction, group, client, channel)

        return apply

    def _tell(self, transaction: Transaction, group: str, client: str, channel: str) -> None:
        """Say in the log that a membership has changed: of another process's channel, or in the user's transaction."""
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
        self._capacity.forget()
        expires_at = transaction.now + self._options.expiry
        transaction.newest = store.insert(Kind.FLUSH, "", b"", created_at=transaction.now, expires_at=expires_at)
        transaction.wake.update(process.client for process in store.processes())
        transaction.wake.discard(self._client)
        self._note_own(transaction, LogRow(transaction.newest, Kind.FLUSH, "", None, expires_at, b""))
