"""Messages that are sent later: what is written when they are scheduled, cancelled, and due.

Due, a message leaves the schedule and enters the log in one transaction: it is sent exactly once, whoever looks, and
whoever is killed. One whose channel is full is held up, and others for that channel behind it, until there is room or
the time that it may wait is over.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from channels.exceptions import ChannelFull

from channels_sqlite.delivery.operations import Operations
from channels_sqlite.kinds import Kind
from channels_sqlite.reports import Reports
from channels_sqlite.sending import NOBODY
from channels_sqlite.storage.scheduled import ScheduledRow
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Schedule"]

BATCH_ROWS = 100  # in one transaction, so that it holds the write lock for a few milliseconds
COUNTS_AFTER_S = 0.9  # a second, for timers that are early by a little
TOKEN_BYTES = 8
_TICKET = re.compile(r"([0-9]{1,18})\.([0-9a-f]{16})")


class Schedule:
    """The scheduled messages of one layer, as one process writes them; each method as a function of a transaction."""

    def __init__(self, operations: Operations, reports: Reports) -> None:
        self._operations = operations
        self._reports = reports

    def send_later(
        self, channel: str, payload: bytes, due_at: float, expiry: float | None = None
    ) -> Callable[[Transaction], str]:
        """Schedule a message for one channel; gives its ticket."""
        kind = Kind.SPECIFIC if "!" in channel else Kind.NORMAL
        return self._add(kind, channel, payload, due_at, expiry=expiry)

    def group_send_later(
        self,
        group: str,
        payload: bytes,
        due_at: float,
        expiry: float | None = None,
        excluded: frozenset[str] = NOBODY,
        *,
        history: bool = True,
    ) -> Callable[[Transaction], str]:
        """Schedule a message for the members that a group will have, and its history; gives its ticket."""
        return self._add(Kind.GROUP, group, payload, due_at, expiry=expiry, excluded=excluded, history=history)

    def _add(
        self,
        kind: Kind,
        name: str,
        payload: bytes,
        moment: float,
        *,
        expiry: float | None,
        excluded: frozenset[str] = NOBODY,
        history: bool = True,
    ) -> Callable[[Transaction], str]:
        # Ids begin anew when all tables are emptied: a ticket must not cancel what came after that.
        token = secrets.token_hex(TOKEN_BYTES)

        def apply(transaction: Transaction) -> str:
            store = transaction.store
            due_at = max(transaction.now, moment)
            earliest = store.next_due()
            row_id = store.schedule(
                kind,
                name,
                payload,
                excluded=" ".join(sorted(excluded)),
                token=token,
                created_at=transaction.now,
                due_at=due_at,
                expiry_s=self._operations.expiry_s(expiry),
                history=history,
            )
            if earliest is None or due_at < earliest:
                # Where nobody receives, this process looks at its ticks, and otherwise whoever comes next.
                eldest = store.eldest_reader()
                transaction.wake.update(() if eldest is None else (eldest,))
            transaction.after_commit.append(self._count_scheduled)
            return f"{row_id}.{token}"

        return apply

    def cancel(self, ticket: object) -> Callable[[Transaction], bool]:
        """Take a message out of the schedule; gives whether it was there. Anything may be given for a ticket."""
        parts = _TICKET.fullmatch(ticket) if isinstance(ticket, str) else None

        def apply(transaction: Transaction) -> bool:
            cancelled = parts is not None and transaction.store.cancel(int(parts[1]), parts[2])
            if cancelled:
                transaction.after_commit.append(self._count_cancelled)
            return cancelled

        return apply

    def _count_scheduled(self) -> None:
        self._reports.counters.scheduled += 1

    def _count_cancelled(self) -> None:
        self._reports.counters.cancelled += 1

    # Due

    def send_due(self, transaction: Transaction) -> bool:
        """Send the first messages that are due; return whether there may be more."""
        store = transaction.store
        rows = store.due(transaction.now, BATCH_ROWS)
        held_up: dict[str, bool] = {}
        for row in rows:
            if row.kind == Kind.GROUP:
                self._broadcast(transaction, row)
                continue
            if row.name not in held_up:
                held_up[row.name] = store.is_held_up(row.name)
            if held_up[row.name] or not self._send(transaction, row):
                held_up[row.name] = True
                store.tried(row, transaction.now)
        return len(rows) == BATCH_ROWS

    def try_again(self, transaction: Transaction, after: str) -> str | None:
        """Send what is held up for the first channel past the name `after`, as far as there is room; drop what is over.

        Returns the name to go on after, or None when there is no such channel.
        """
        store = transaction.store
        name = store.next_held_up(after)
        if name is None:
            return None
        rows = store.held_up(name, BATCH_ROWS)
        full = False
        for row in rows:
            if row.tries > 1 and row.due_at + row.expiry_s <= transaction.now:
                store.take_scheduled(row)
                transaction.after_commit.append(lambda: self._reports.given_up(name))
            elif full or not self._send(transaction, row):
                full = True
                # A try right after the first, by whoever else looks, is none that counts.
                if row.tries == 1 and not 0 <= transaction.now - row.tried_at < COUNTS_AFTER_S:
                    store.tried(row, transaction.now)
        return after if len(rows) == BATCH_ROWS and not full else name

    def _send(self, transaction: Transaction, row: ScheduledRow) -> bool:
        """Move a message into the log; return whether its channel had room."""
        try:
            self._operations.admit(transaction, row.name)
        except ChannelFull:
            return False
        payload = transaction.store.take_scheduled(row)
        self._operations.append(transaction, row.name, (payload,), transaction.now + row.expiry_s)
        transaction.sent += 1
        return True

    def _broadcast(self, transaction: Transaction, row: ScheduledRow) -> None:
        payload = transaction.store.take_scheduled(row)
        excluded = frozenset(row.excluded.split())
        self._operations.group_send(row.name, (payload,), row.expiry_s, excluded, history=row.history)(transaction)
