"""Whether a channel has room: counted in the transaction of the send, or known from the last count."""

from __future__ import annotations

import time
from typing import NamedTuple

from channels.exceptions import ChannelFull

from channels_sqlite import names
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.options import Options
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Capacity"]

KNOWN_CHANNELS = 10_000
LIMIT_AGE_S = 1.0


class Counted(NamedTuple):
    """A count of unread messages, and what it was true of."""

    unread: int
    newest_id: int
    channels: int  # receivers that the limit was multiplied by; 1 for a normal channel
    counted_at: float  # monotonic seconds


class Capacity:
    """The limits of one layer, as one process counts them; within its transactions, one at a time."""

    def __init__(self, client: str, options: Options, boxes: Mailboxes) -> None:
        self._client = client
        self._options = options
        self._boxes = boxes
        self._counted: dict[str, Counted] = {}
        self._newest_id = 0  # that a count was true of
        self._file: object = None  # likewise

    def forget(self) -> None:
        """Count anew: rows have gone, or are about to."""
        self._counted.clear()

    def admit_normal(self, transaction: Transaction, channel: str, count: int = 1) -> None:
        """Raise ChannelFull where a normal channel has no room for so many messages."""
        capacity = self._options.capacity_of(channel)
        known = self._known(transaction, channel)
        if known is not None and known.unread + transaction.newest - known.newest_id + count <= capacity:
            return  # even if every row since were for this channel
        unread = transaction.store.count_waiting(channel, now=transaction.now, limit=capacity)
        self._judge(transaction, channel, unread, count, capacity=capacity, channels=1)

    def admit_specific(self, transaction: Transaction, channel: str, count: int = 1) -> None:
        """Raise ChannelFull where a process-specific channel has no room for so many messages."""
        queue = names.queue_of(channel)
        capacity = self._options.capacity_of(channel)
        if count > capacity:  # its process would drop the rest
            raise ChannelFull(
                f"channel {channel!r} holds at most {capacity} messages, and {count} are too many at once; raise "
                f'"capacity" or send fewer'
            )
        known = self._known(transaction, queue)
        if (
            known is not None
            and known.unread + transaction.newest - known.newest_id + count
            <= capacity * self._multiplier(known, channel)
            and time.monotonic() - known.counted_at < LIMIT_AGE_S
        ):
            return
        unread, channels = self._count_specific(transaction, channel, capacity)
        if unread + count > capacity * channels and names.client_of(channel) == self._client:
            # Some of what is held here may have expired since the last sweep.
            unread, channels = self._count_specific(transaction, channel, capacity, anew=True)
        self._judge(transaction, channel, unread, count, capacity=capacity, channels=channels)

    def _multiplier(self, known: Counted, channel: str) -> int:
        """Return by how many receivers the limit is multiplied; how many there are here is known, not remembered."""
        if names.client_of(channel) == self._client:
            return min(known.channels, max(1, self._boxes.waiting_channels))
        return known.channels

    def _count_specific(
        self, transaction: Transaction, channel: str, capacity: int, *, anew: bool = False
    ) -> tuple[int, int]:
        """Return the unread messages of a queue, or the limit where there are more, and the limit's multiplier."""
        queue = names.queue_of(channel)
        client = names.client_of(channel)
        cursor = held = waiting = 0
        if client == self._client:
            cursor, held, waiting = self._boxes.unread_of(queue, anew=anew)
        elif (process := transaction.store.process(client)) is not None:
            cursor, held, waiting = process.cursor, process.held_in(queue), process.channels
        channels = max(1, waiting)
        limit = capacity * channels
        if held < limit:
            held += transaction.store.count_addressed(queue, after=cursor, now=transaction.now, limit=limit - held)
        return held, channels

    def _known(self, transaction: Transaction, key: str) -> Counted | None:
        """Return the last count of a channel or queue, unless it was of other rows."""
        another_file = transaction.file is not self._file and transaction.file is not None
        # Ids that went back, and a registration that was gone: the tables were flushed meanwhile.
        if another_file or transaction.newest < self._newest_id or transaction.entered:
            self.forget()
            self._file = transaction.file
        self._newest_id = transaction.newest
        return self._counted.get(key)

    def _judge(
        self, transaction: Transaction, channel: str, unread: int, count: int, *, capacity: int, channels: int
    ) -> None:
        key = names.queue_of(channel)
        limit = capacity * channels
        if unread + count > limit:
            self._counted.pop(key, None)
            more = f", and {count} more do not fit" if count > 1 else ""
            raise ChannelFull(
                f'channel {channel!r} holds {unread} of {limit} unread messages{more}; raise "capacity" or add readers'
            )
        if transaction.in_users_block:
            return
        if len(self._counted) >= KNOWN_CHANNELS:
            self._counted.clear()
        self._counted[key] = Counted(unread, transaction.newest, channels, time.monotonic())
        # A count that includes rows of this very transaction is worth nothing if that fails.
        transaction.undo.append(lambda: self._counted.pop(key, None))
