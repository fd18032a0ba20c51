"""Memberships and presences of channels, as one process writes them: who joins, renews, leaves, and watches.

A presence is a membership with a key, in a table of its own beside that of the memberships: it ends in the transaction
that ends the membership, and others are told in that transaction. To watch is a row of that table without a membership.

Each public method that takes no transaction gives a function of one; it checks first and writes then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from channels_sqlite import names
from channels_sqlite.delivery.audience import Audience
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.members import Members
from channels_sqlite.delivery.notices import Notices
from channels_sqlite.delivery.own_changes import OwnChanges
from channels_sqlite.delivery.telling import Telling
from channels_sqlite.options import Options
from channels_sqlite.storage.presences import Attendee, PresenceRow, PresentRow
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Attendance", "Here"]


class Here(NamedTuple):
    """What this process knows of its own channels."""

    boxes: Mailboxes
    members: Members
    audience: Audience
    changes: OwnChanges


class Attendance:
    """Who is in which groups; within the transactions of one process, one at a time."""

    def __init__(self, options: Options, here: Here, notices: Notices, telling: Telling) -> None:
        self._options = options
        self._here = here
        self._notices = notices
        self._telling = telling

    # Memberships

    def add(self, group: str, channel: str, withdrawn_from: int | None = None) -> Callable[[Transaction], None]:
        """Make `channel` a member, for what is sent from now on, or renew its membership, and so its presence.

        `withdrawn_from`: the id from which on its history was read, which must not reach the channel any more.
        """

        def apply(transaction: Transaction) -> None:
            if not self._join(transaction, group, channel):
                self._notices.tell_of(transaction, group, names.client_of(channel), channel, withdrawn_from)

        return apply

    def _join(self, transaction: Transaction, group: str, channel: str) -> bool:
        """Write a membership; return whether nobody need be told, as it is noted here, or of a normal channel."""
        expires_at = self._ends_at(transaction)
        client = names.client_of(channel)
        joined_id = transaction.store.join(
            group, client, channel, joined_id=transaction.newest, expires_at=expires_at, now=transaction.now
        )
        if self._is_here(transaction, group, channel):
            transaction.undo.append(self._here.members.joined(group, channel, (joined_id, expires_at)))
            return True
        return not client

    def _is_here(self, transaction: Transaction, group: str, channel: str) -> bool:
        """Whether what changes is noted in this process's memory, and not told in the log."""
        here = self._notices.is_here(transaction, names.client_of(channel))
        if here:
            self._here.changes.note(transaction, group, channel)
        return here

    def _ends_at(self, transaction: Transaction) -> float | None:
        expiry = self._options.group_expiry
        return None if expiry is None else transaction.now + expiry

    def discard(self, group: str, channel: str) -> Callable[[Transaction], None]:
        """End a membership, if there is one, with what the channel is in that group beside it."""

        def apply(transaction: Transaction) -> None:
            client = names.client_of(channel)
            row = transaction.store.presence(group, client, channel)
            if row is not None:
                self.end(transaction, group, [Attendee(group, client, channel, row.key)], memberships=True)
                return
            left = transaction.store.leave(group, client, channel)
            if self._is_here(transaction, group, channel):
                transaction.after_commit.append(lambda: self._here.members.left(group, channel))
            elif client and left:
                self._notices.tell_of(transaction, group, client, channel)

        return apply

    # Presences

    def join(self, group: str, channel: str, key: str, info: bytes) -> Callable[[Transaction], list[PresentRow]]:
        """Have `channel` be present as the last one of `key`; gives who is present then."""

        def apply(transaction: Transaction) -> list[PresentRow]:
            store = transaction.store
            client = names.client_of(channel)
            newest_before = transaction.newest
            before = store.presence(group, client, channel)
            keys = {key} if before is None or not before.key else {key, before.key}
            with self._telling.changing(transaction, store, group, keys):
                untold = not self._join(transaction, group, channel)
                row = store.attend(
                    group,
                    client,
                    channel,
                    key,
                    info,
                    heard_id=newest_before,
                    expires_at=self._ends_at(transaction),
                    now=transaction.now,
                )
                if untold:  # before the diff: so it is known whom that is for
                    self._notices.tell_of_presence(transaction, group, client, channel)
            self._begin_to_hear(transaction, Attendee(group, client, channel, row.key), row, newest_before)
            return store.who(group)

        return apply

    def _begin_to_hear(
        self, transaction: Transaction, attendee: Attendee, row: PresenceRow, newest_before: int
    ) -> None:
        """Have a channel hear what comes from now on, and nothing that still waits for it."""
        store = transaction.store
        group, client, channel, _ = attendee
        if transaction.newest != row.heard_id:
            row = row._replace(heard_id=transaction.newest)
            store.heard(group, client, channel, transaction.newest)
        if not client:
            store.withdraw(channel, group)
        elif self._is_here(transaction, group, channel):
            undo, settle = self._here.audience.enter(group, channel, row, newest_before)
            transaction.undo.append(undo)
            transaction.after_commit.append(settle)
            transaction.after_commit.append(lambda: self._here.boxes.withdraw(channel, group, row.heard_id))

    def update(self, group: str, channel: str, info: bytes) -> Callable[[Transaction], None]:
        """Change what a channel that is present tells, and renew its membership; ValueError where it is not."""

        def apply(transaction: Transaction) -> None:
            store = transaction.store
            client = names.client_of(channel)
            before = store.presence(group, client, channel)
            if before is None or not before.key:
                raise ValueError(
                    f"channel {channel!r} is not present in group {group!r}, so nothing can be changed; let it join "
                    f"first"
                )
            with self._telling.changing(transaction, store, group, {before.key}):
                untold = not self._join(transaction, group, channel)
                expires_at = self._ends_at(transaction)
                store.update_presence(group, client, channel, info=info, expires_at=expires_at)
                if untold:
                    self._notices.tell_of_presence(transaction, group, client, channel)
            if self._is_here(transaction, group, channel):
                undo = self._here.audience.update(group, channel, info, expires_at)
                transaction.undo.append(undo)

        return apply

    def watch(self, group: str, channel: str) -> Callable[[Transaction], list[PresentRow]]:
        """Have `channel` hear of changes without being present, or go on to be; gives who is present."""

        def apply(transaction: Transaction) -> list[PresentRow]:
            store = transaction.store
            client = names.client_of(channel)
            newest_before = transaction.newest
            row = store.watch(group, client, channel, heard_id=newest_before, expires_at=self._ends_at(transaction))
            here = self._is_here(transaction, group, channel)
            if row.key:
                self._join(transaction, group, channel)
            if client and not here:
                self._notices.tell_of_presence(transaction, group, client, channel)
            self._begin_to_hear(transaction, Attendee(group, client, channel, row.key), row, newest_before)
            return store.who(group)

        return apply

    def leave(self, group: str, channel: str) -> Callable[[Transaction], None]:
        """End a presence with its membership, or the watching alone; a plain member stays."""

        def apply(transaction: Transaction) -> None:
            client = names.client_of(channel)
            row = transaction.store.presence(group, client, channel)
            if row is not None:
                attendee = Attendee(group, client, channel, row.key)
                self.end(transaction, group, [attendee], memberships=bool(row.key))

        return apply

    def end(
        self, transaction: Transaction, group: str, attendees: Collection[Attendee], *, memberships: bool | None = None
    ) -> None:
        """End what channels are in a group, and tell of it.

        `memberships`: whether theirs end as well; None: those of the ones that are present.
        """
        store = transaction.store
        newest_before = transaction.newest
        with self._telling.changing(transaction, store, group, {one.key for one in attendees if one.key}):
            for _, client, channel, key in attendees:
                ends = bool(key) if memberships is None else memberships
                store.depart(group, client, channel)
                if ends:
                    store.leave(group, client, channel)
                if not client:
                    store.withdraw(channel, group)
                elif self._is_here(transaction, group, channel):
                    self._leave_here(transaction, group, channel, newest_before, member=ends)
                else:
                    self._notices.tell_of_presence(transaction, group, client, channel)

    def _leave_here(
        self, transaction: Transaction, group: str, channel: str, newest_before: int, *, member: bool
    ) -> None:
        left = self._here.audience.leave(group, channel, newest_before)
        if left is not None:
            undo, settle = left
            transaction.undo.append(undo)
            transaction.after_commit.append(settle)
        transaction.after_commit.append(lambda: self._here.boxes.withdraw(channel, group))
        if member:
            transaction.after_commit.append(lambda: self._here.members.left(group, channel))
