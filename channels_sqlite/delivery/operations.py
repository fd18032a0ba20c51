"""What each operation writes in its transaction. Everything here checks first and writes then; see `Transaction`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from channels.exceptions import ChannelFull

from channels_sqlite import names
from channels_sqlite.delivery.capacity import Capacity
from channels_sqlite.delivery.epochs import copy_of
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.delivery.log import OwnRows
from channels_sqlite.kinds import Kind
from channels_sqlite.options import Options
from channels_sqlite.reports import Reports
from channels_sqlite.sending import NOBODY
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
        self._epochs = inbox.epochs
        self._members = inbox.members
        self._wakeups = wakeups
        self._reports = reports
        self._capacity = Capacity(client, options, inbox.boxes)

    # Sending

    def send(
        self, channel: str, payloads: Sequence[bytes], expiry: float | None = None
    ) -> Callable[[Transaction], None]:
        """Append messages for one channel, or raise ChannelFull where not all of them fit."""

        def apply(transaction: Transaction) -> None:
            try:
                self.admit(transaction, channel, len(payloads))
            except ChannelFull:
                transaction.refused += 1
                raise
            self.append(transaction, channel, payloads, transaction.now + self.expiry_s(expiry))
            transaction.sent += len(payloads)

        return apply

    def group_send(
        self,
        group: str,
        payloads: Sequence[bytes],
        expiry: float | None = None,
        excluded: frozenset[str] = NOBODY,
        *,
        history: bool = True,
    ) -> Callable[[Transaction], None]:
        """Append, for each message, one row for all process-specific members, and one for each normal one with room.

        In a group with history, and unless `history` says otherwise, that one row is there in any case, and kept.
        """
        without = " ".join(sorted(excluded)) if excluded else None
        keeps = history and self._options.keeping_of(group) is not None
        kind = Kind.KEPT if keeps else Kind.GROUP

        def apply(transaction: Transaction) -> None:
            store = transaction.store
            now = transaction.now
            expires_at = now + self.expiry_s(expiry)
            if keeps:
                self._epochs.make_sure(transaction)
                transaction.after_commit.append(lambda: self._epochs.given.note(transaction.newest))
            clients = store.clients_of_group(group) or self._wakeups.strays(store)
            own = self._client in clients
            transaction.wake.update([client for client in clients if client != self._client])
            normal = [channel for channel, _, _ in store.members(group, "", now) if channel not in excluded]
            with_room = normal.copy()
            for payload in payloads:
                if clients or keeps:
                    transaction.newest = store.insert(
                        kind, group, payload, local=without, created_at=now, expires_at=expires_at
                    )
                    if own:
                        row = LogRow(transaction.newest, kind, group, without, expires_at, payload)
                        self._note_own(transaction, row)
                if normal:
                    self._append_to_normal(
                        transaction,
                        group,
                        payload,
                        expires_at=expires_at,
                        with_room=with_room,
                        members=len(normal),
                        local=copy_of(transaction.newest) if keeps else None,
                    )
            transaction.sent += len(payloads)

        return apply

    def _append_to_normal(
        self,
        transaction: Transaction,
        group: str,
        payload: bytes,
        *,
        expires_at: float,
        with_room: list[str],
        members: int,
        local: str | None,
    ) -> None:
        """Append a broadcast for those normal members that are not known to be full, and note who turns out to be."""
        for channel in list(with_room):
            try:
                self._capacity.admit_normal(transaction, channel)
            except ChannelFull:
                with_room.remove(channel)  # for the rest of the batch: nothing is read before it is committed
            else:
                self.append(transaction, channel, (payload,), expires_at, local)
        full = members - len(with_room)
        if full:
            transaction.after_commit.append(lambda: self._reports.skipped(group, full, members))

    def expiry_s(self, own: float | None) -> float:
        """Return how long a message stays deliverable: its own time, or that of the layer."""
        return self._options.expiry if own is None else own

    def admit(self, transaction: Transaction, channel: str, count: int = 1) -> None:
        """Raise ChannelFull where a channel has no room for so many messages."""
        if "!" in channel:
            self._capacity.admit_specific(transaction, channel, count)
        else:
            self._capacity.admit_normal(transaction, channel, count)

    def append(
        self,
        transaction: Transaction,
        channel: str,
        payloads: Sequence[bytes],
        expires_at: float,
        copy: str | None = None,
    ) -> None:
        """Append messages for one channel that has room for them. `copy`: of what, for a normal one; see `epochs`."""
        store = transaction.store
        now = transaction.now
        queue, local = names.split(channel)
        if local is None:
            transaction.wake.update(store.listeners_of_empty(channel, now))
            for payload in payloads:
                transaction.newest = store.insert(
                    Kind.NORMAL, queue, payload, local=copy, created_at=now, expires_at=expires_at
                )
            return
        client = names.client_of(channel)
        own = client == self._client
        if not own:
            transaction.wake.add(client)
        for payload in payloads:
            transaction.newest = store.insert(
                Kind.SPECIFIC, queue, payload, local=local, client=client, created_at=now, expires_at=expires_at
            )
            if own:
                self._note_own(
                    transaction, LogRow(transaction.newest, Kind.SPECIFIC, queue, local, expires_at, payload)
                )

    def _note_own(self, transaction: Transaction, row: LogRow) -> None:
        """Note a row that this very process will receive, so that it need not be read back after the commit."""
        if not transaction.own:
            transaction.after_commit.append(
                lambda: self._log.take_in(OwnRows(transaction.first, transaction.newest, transaction.own))
            )
        transaction.own.append(row)

    # Groups

    def group_add(self, group: str, channel: str, withdrawn_from: int | None = None) -> Callable[[Transaction], None]:
        """Make `channel` a member, for what is sent from now on.

        `withdrawn_from`: the id from which on its history was read, which must not reach the channel any more.
        """

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
                self._tell(transaction, group, client, channel, withdrawn_from)

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

    def _tell(
        self, transaction: Transaction, group: str, client: str, channel: str, withdrawn_from: int | None = None
    ) -> None:
        """Say in the log that a membership has changed: of another process's channel, or in the user's transaction."""
        name = channel.encode()
        local = None if withdrawn_from is None else str(withdrawn_from)
        expires_at = transaction.now + self._options.expiry
        transaction.newest = transaction.store.insert(
            Kind.MEMBERSHIP,
            group,
            name,
            local=local,
            client=client,
            created_at=transaction.now,
            expires_at=expires_at,
        )
        if client == self._client:
            self._note_own(transaction, LogRow(transaction.newest, Kind.MEMBERSHIP, group, local, expires_at, name))
        else:
            transaction.wake.add(client)

    def flush(self, transaction: Transaction) -> None:
        """Delete all messages, scheduled and kept ones included, and memberships; every process forgets what it holds.

        Positions from before say from now on that they are.
        """
        store = transaction.store
        epoch = store.epoch()
        store.flush()
        self._capacity.forget()
        expires_at = transaction.now + self._options.expiry
        transaction.newest = store.insert(Kind.FLUSH, "", b"", created_at=transaction.now, expires_at=expires_at)
        if epoch is not None:
            self._epochs.begin(transaction, epoch.place)
        transaction.wake.update(process.client for process in store.processes())
        transaction.wake.discard(self._client)
        self._note_own(transaction, LogRow(transaction.newest, Kind.FLUSH, "", None, expires_at, b""))
