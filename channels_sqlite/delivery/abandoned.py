"""Taking channels out of their groups whose consumers are gone without a goodbye; see `consumers`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from channels_sqlite.delivery.attendance import Attendance, Here
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.reports import Reports
from channels_sqlite.storage.outbox import Outbox
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Abandoned"]


class Abandoned:
    """The abandoned channels of one process. On the background thread."""

    def __init__(
        self, outbox: Outbox, here: Here, attendance: Attendance, reports: Reports, *, batch_size: int
    ) -> None:
        self._outbox = outbox
        self._boxes = here.boxes
        self._members = here.members
        self._audience = here.audience
        self._attendance = attendance
        self._reports = reports
        self._batch_size = batch_size

    def end_memberships(self) -> None:
        """Take abandoned channels, in which a message has expired, out of their groups.

        What fails is tried again at the next sweep.
        """
        channels = {name for name in self._boxes.lapsed_and_abandoned() if self._is_anywhere(name)}
        gone: set[str] = set()
        try:
            for batch in _batches(self._places_of(channels) if channels else (), self._batch_size):
                gone |= self._outbox.run_patiently(self._leave(batch))
        except ChannelDatabaseError as error:
            self._reports.failed("taking abandoned channels out of their groups", error)
        if gone:
            self._reports.abandoned(sorted(gone))

    def _is_anywhere(self, channel: str) -> bool:
        return self._members.is_member(channel) or self._audience.attends(channel)

    def _places_of(self, channels: Collection[str]) -> Iterator[tuple[str, str]]:
        """Yield (group, channel) of all memberships of these, and of where they watch."""
        yield from self._members.memberships_of(channels)
        yield from self._audience.attended_by(channels)

    def _leave(self, batch: Sequence[tuple[str, str]]) -> Callable[[Transaction], set[str]]:
        """End the memberships of those channels in `batch` that nobody has received on meanwhile; return these."""

        def leave(transaction: Transaction) -> set[str]:
            gone = self._boxes.still_abandoned({name for _, name in batch})
            for group, channel in batch:
                if channel in gone:
                    self._attendance.discard(group, channel)(transaction)
            transaction.after_commit.append(lambda: self._have_left(gone))
            return gone

        return leave

    def _have_left(self, channels: Iterable[str]) -> None:
        for channel in channels:
            if not self._is_anywhere(channel):
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
