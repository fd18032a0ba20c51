"""Taking channels out of their groups whose consumers are gone without a goodbye; see `consumers`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.members import Members
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.reports import Reports
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Abandoned"]


class Abandoned:
    """The abandoned channels of one process. On the background thread."""

    def __init__(
        self, client: str, outbox: Outbox, boxes: Mailboxes, members: Members, reports: Reports, *, batch_size: int
    ) -> None:
        self._client = client
        self._outbox = outbox
        self._boxes = boxes
        self._members = members
        self._reports = reports
        self._batch_size = batch_size

    def end_memberships(self) -> None:
        """Take abandoned channels, in which a message has expired, out of their groups.

        What fails is tried again at the next sweep.
        """
        channels = {name for name in self._boxes.lapsed_and_abandoned() if self._members.is_member(name)}
        gone: set[str] = set()
        try:
            for batch in _batches(self._members.memberships_of(channels) if channels else (), self._batch_size):
                gone |= self._outbox.run_patiently(self._leave(batch))
        except ChannelDatabaseError as error:
            self._reports.failed("taking abandoned channels out of their groups", error)
        if gone:
            self._reports.abandoned(sorted(gone))

    def _leave(self, batch: Sequence[tuple[str, str]]) -> Callable[[Transaction], set[str]]:
        """End the memberships of those channels in `batch` that nobody has received on meanwhile; return these."""

        def leave(transaction: Transaction) -> set[str]:
            gone = self._boxes.still_abandoned({name for _, name in batch})
            for group, channel in batch:
                if channel in gone:
                    transaction.store.leave(group, self._client, channel)
            transaction.after_commit.append(lambda: self._have_left([pair for pair in batch if pair[1] in gone]))
            return gone

        return leave

    def _have_left(self, pairs: Sequence[tuple[str, str]]) -> None:
        for group, channel in pairs:
            self._members.set(group, channel, None)
            if not self._members.is_member(channel):
                self._boxes.drop_broadcasts(channel)


def _batches(pairs: Iterable[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    batch: list[tuple[str, str]] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch
