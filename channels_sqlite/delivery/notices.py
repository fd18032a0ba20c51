"""What a transaction tells in the log: this process for itself, and others of memberships and presences."""

from __future__ import annotations

from channels_sqlite.delivery.log import Log, OwnRows
from channels_sqlite.kinds import PRESENCE_TOO, Kind
from channels_sqlite.options import Options
from channels_sqlite.storage.messages import LogRow
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Notices"]


class Notices:
    """The notices of one layer in one process; within its transactions, one at a time."""

    def __init__(self, client: str, options: Options, log: Log) -> None:
        self._client = client
        self._options = options
        self._log = log

    def note_own(self, transaction: Transaction, row: LogRow) -> None:
        """Note a row that this very process will receive, so that it need not be read back after the commit."""
        if not transaction.own:
            transaction.after_commit.append(
                lambda: self._log.take_in(OwnRows(transaction.first, transaction.newest, transaction.own))
            )
        transaction.own.append(row)

    def is_here(self, transaction: Transaction, client: str) -> bool:
        """Whether a change for a client is noted in this process's memory, and not told in the log.

        A transaction of the user's changes nothing here, for nobody tells when that fails.
        """
        return bool(client) and client == self._client and not transaction.in_users_block

    def tell_of(
        self, transaction: Transaction, group: str, client: str, channel: str, withdrawn_from: int | None = None
    ) -> None:
        """Say in the log that the membership of a channel has changed: of another process, or in the user's block.

        `withdrawn_from`: the id from which on the group's history was read for it.
        """
        self._tell(transaction, group, client, channel, None if withdrawn_from is None else str(withdrawn_from))

    def tell_of_presence(self, transaction: Transaction, group: str, client: str, channel: str) -> None:
        """Likewise, of a channel that may hear of a group from now on, or no more.

        A change of the membership alone must not look the same: what waits for a channel that hears no more is dropped
        there, and after a flush that is the last word, which somebody who adds the channel again leaves alone.
        """
        self._tell(transaction, group, client, channel, PRESENCE_TOO)

    def _tell(self, transaction: Transaction, group: str, client: str, channel: str, local: str | None) -> None:
        name = channel.encode()
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
            self.note_own(transaction, LogRow(transaction.newest, Kind.MEMBERSHIP, group, local, expires_at, name))
        else:
            transaction.wake.add(client)
