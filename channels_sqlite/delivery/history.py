"""Reading what a group was sent, and joining it at the same moment.

Joining and reading are one transaction. Its newest id is the boundary: what the group was sent up to it is read, if it
is kept, and what comes after it arrives live. A channel that is a member already may have some of what is read still
waiting, which is withdrawn in that transaction.

Threads: everything may be called from any thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from channels_sqlite import names
from channels_sqlite.codec import Codec, Message, UndecodableError
from channels_sqlite.delivery.epochs import Epochs
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.delivery.operations import Operations
from channels_sqlite.histories import History, HistoryEntry, Position, parse
from channels_sqlite.options import Keeping, Options
from channels_sqlite.reports import Reports
from channels_sqlite.storage.history import EpochRow, KeptRow
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Histories", "Question", "Reading"]

INLINE_ROWS = 200  # that an event loop reads and decodes in 1 ms
STEP_ROWS, STEP_BYTES = (50, 64 * 1024)  # that are decoded in one iteration of an event loop


class Question(NamedTuple):
    """What is asked of a group: what came after a position, as a client has it, or the newest messages, or nothing."""

    group: str
    since: object
    last: int | None
    keeping: Keeping

    @property
    def is_large(self) -> bool:
        """Whether the answer would hold up an event loop."""
        if self.since is None and self.last is None:
            return False
        return min(self.keeping.size, self.keeping.size if self.last is None else self.last) > INLINE_ROWS


class Reading(NamedTuple):
    """What was read, still encoded."""

    epoch: str
    newest: int  # the id of the position after it
    rows: list[KeptRow]  # oldest first
    recovered: bool


class Histories:
    """The histories of one layer, as one process reads them."""

    def __init__(
        self,
        client: str,
        options: Options,
        codec: Codec,
        *,
        inbox: Inbox,
        operations: Operations,
        reports: Reports,
    ) -> None:
        self._client = client
        self._options = options
        self._codec = codec
        self._log = inbox.log
        self._epochs: Epochs = inbox.epochs
        self._operations = operations
        self._reports = reports

    def ask(self, group: str, since: object, last: int | None) -> Question:
        """Return a question to a group; raise ValueError where nothing is kept of it."""
        keeping = self._options.keeping_of(group)
        if keeping is None:
            raise ValueError(
                f'nothing is kept of group {group!r}, as no pattern of the layer\'s option "history" matches it '
                f"(it has {', '.join(repr(pattern.pattern) for pattern, _ in self._options.history) or 'none'})"
            )
        return Question(group, since, last, keeping)

    # Reading

    def subscribe(self, question: Question, channel: str) -> Callable[[Transaction], Reading]:
        """Make `channel` a member and read, in one transaction."""
        group = question.group
        own = names.client_of(channel) == self._client

        def apply(transaction: Transaction) -> Reading:
            reading = self._read_in(transaction, question)
            first = reading.rows[0].id if reading.rows else None
            self._operations.group_add(group, channel, first)(transaction)
            if own and first is not None and not transaction.in_users_block:
                self._log.withdraw(transaction, group, channel, first - 1, reading.newest)
            return reading

        return apply

    def read_in(self, question: Question) -> Callable[[Transaction], Reading]:
        """Read in a transaction, which makes sure of the epoch."""
        return lambda transaction: self._read_in(transaction, question)

    def _read_in(self, transaction: Transaction, question: Question) -> Reading:
        epoch = self._epochs.make_sure(transaction) or transaction.store.epoch()
        if epoch is None:  # somebody has emptied its table alone
            epoch = self._epochs.begin(transaction, "")
        reading = self._answer(transaction.store, question, epoch, transaction.newest, transaction.now)
        transaction.after_commit.append(lambda: self._epochs.given.note(reading.newest))
        return reading

    def read(self, store: Store, question: Question, now: float) -> Reading | None:
        """Read without the write lock; None where `read_in` must make sure of the epoch first."""
        with self._epochs.snapshot(store) as epoch:
            if epoch is None:
                return None
            reading = self._answer(store, question, epoch, store.newest_id(), now)
        self._epochs.given.note(reading.newest)
        return reading

    def _answer(self, store: Store, question: Question, epoch: EpochRow, newest: int, now: float) -> Reading:
        group, since, last, keeping = question
        recovered = True
        rows: list[KeptRow] = []
        if last is not None:
            rows = store.newest_kept(group, after=-1, limit=min(last, keeping.size))
        elif since is not None:
            position = parse(since)
            recovered = (
                position is not None
                and position.epoch == epoch.epoch
                and epoch.first <= position.id <= newest
                and position.id >= store.floor(group)
            )
            after = position.id if recovered and position is not None else -1
            rows = store.newest_kept(group, after=after, limit=keeping.size + 1)
            if len(rows) > keeping.size:
                recovered = False
                rows.pop()
        fresh = [row for row in reversed(rows) if row.sent_at > now - keeping.ttl]
        if since is not None and len(fresh) < len(rows):
            recovered = False
        return Reading(epoch.epoch, newest, fresh, recovered)

    # Decoding

    def decode(self, reading: Reading) -> History[Message]:
        """Return what was read, decoded; what cannot be is left out, and told."""
        entries = [entry for row in reading.rows if (entry := self._decode(reading.epoch, row)) is not None]
        return self._history(reading, entries)

    async def adecode(self, reading: Reading) -> History[Message]:
        """Likewise, letting the event loop do something else now and then."""
        entries = []
        rows = size = 0
        for row in reading.rows:
            entry = self._decode(reading.epoch, row)
            if entry is not None:
                entries.append(entry)
            rows, size = rows + 1, size + len(row.payload)
            if rows >= STEP_ROWS or size >= STEP_BYTES:
                rows = size = 0
                await asyncio.sleep(0)  # cancelled here, the channel is a member, and reads again when it comes back
        return self._history(reading, entries)

    def _decode(self, epoch: str, row: KeptRow) -> HistoryEntry[Message] | None:
        try:
            message = self._codec.decode(row.payload)
        except UndecodableError as error:
            self._reports.undecodable(row.id, str(error))
            return None
        return HistoryEntry(str(Position(epoch, row.id)), row.sent_at, message)

    @staticmethod
    def _history(reading: Reading, entries: list[HistoryEntry[Message]]) -> History[Message]:
        return History(
            entries,
            str(Position(reading.epoch, reading.newest)),
            reading.recovered and len(entries) == len(reading.rows),
        )
