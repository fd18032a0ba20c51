"""How many presences end at once, each with its membership: of a process that is no more, of a flush, by expiry.

And how they come back: rows may go behind a process's back, or another file may take the place of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import msgpack

from channels_sqlite.delivery import diffs
from channels_sqlite.delivery.attendance import Attendance, Here
from channels_sqlite.delivery.telling import Telling
from channels_sqlite.options import Options
from channels_sqlite.storage.presences import Attendee, PresenceRow
from channels_sqlite.storage.transactions import Transaction

__all__ = ["Departures"]

GROUPS_AT_ONCE = 100  # whose members a dead process leaves in one transaction


class Departures:
    """The ends of presences; within the transactions of one process, one at a time."""

    def __init__(self, client: str, options: Options, here: Here, attendance: Attendance, telling: Telling) -> None:
        self._client = client
        self._options = options
        self._here = here
        self._attendance = attendance
        self._telling = telling

    # A reader that is no more

    def forget(self, transaction: Transaction, client: str, cursor: int) -> None:
        """Delete a reader that is no more, with all that it leaves, and tell of its presences."""
        self._end_of(transaction, transaction.store.groups_attended(client), client)
        transaction.wake.update(transaction.store.forget(client, cursor))

    def forget_some(self, transaction: Transaction, client: str) -> bool:
        """End presences of a reader that is no more, with its memberships there; return whether there may be more."""
        groups = transaction.store.groups_attended(client, GROUPS_AT_ONCE)
        self._end_of(transaction, groups, client)
        return len(groups) == GROUPS_AT_ONCE

    def _end_of(self, transaction: Transaction, groups: Collection[tuple[str, str]], client: str) -> None:
        # Of whatever prefix: who looks for the dead does it for all layers in the file.
        for prefix, group in groups:
            store = transaction.store.of(prefix)
            attendees = store.attendees_of(group, client)
            with self._telling.changing(transaction, store, group, {one.key for one in attendees if one.key}):
                for one in attendees:
                    store.depart(group, client, one.channel)
                    if one.key:
                        store.leave(group, client, one.channel)

    # Expiry

    def expire(self, transaction: Transaction) -> bool:
        """End those that are past their expiry; return whether there may be more."""
        store = transaction.store
        found = store.expired_presences(transaction.now, self._options.trim_batch_size)
        ended: dict[str, list[Attendee]] = defaultdict(list)
        for one in found:
            membership = store.member(one.group, one.client, one.channel) if one.key else None
            # A membership that was renewed since carries the presence along.
            if membership is None or (membership[1] is not None and membership[1] <= transaction.now):
                ended[one.group].append(one)
            else:
                store.prolong(one.group, one.client, one.channel, membership[1])
        for group, attendees in ended.items():
            self._attendance.end(transaction, group, attendees)
        return len(found) == self._options.trim_batch_size

    # Flush

    def flush(self, transaction: Transaction) -> bytes:
        """Delete all messages, memberships and presences; return what the row of the flush is to tell.

        It is told to those who were present or watched until then: nobody is any more.
        """
        store = transaction.store
        gone: dict[str, dict[str, tuple[bytes | None, bytes | None]]] = defaultdict(dict)
        for group, key, info in store.all_present():
            gone[group][key] = info, None
        limit = self._options.max_message_size
        payloads = {group: diffs.packed(group, diff, limit) for group, diff in gone.items()}
        normal = store.all_normal_that_hear()
        store.flush()
        for group, channel in normal:
            if group in payloads:
                self._telling.tell_normal(transaction, store, group, channel, payloads[group])
        farewells = [payload for of_group in payloads.values() for payload in of_group]
        return msgpack.packb(farewells) if farewells else b""

    # Coming back

    def reenter(self, transaction: Transaction, starts_at: int | None) -> None:
        """Write what this process's channels are in their groups, where the registration was gone or the file is new.

        `starts_at`: as in `Registration.enter_in`.
        """
        store = transaction.store
        mine: dict[str, dict[str, PresenceRow]] = defaultdict(dict)
        for group, channel, row in self._here.audience.all():
            mine[group][channel] = row if starts_at is None else row._replace(heard_id=starts_at)
        strange: dict[str, list[Attendee]] = defaultdict(list)
        if starts_at is not None:  # an older copy of the file has what was true then
            transaction.undo.append(self._here.audience.begin_anew(starts_at))
            for _, group in store.groups_attended(self._client):
                strange[group] = [
                    one for one in store.attendees_of(group, self._client) if one.channel not in mine[group]
                ]
        for group in mine.keys() | strange.keys():
            rows = mine[group]
            keys = {row.key for row in rows.values()} | {one.key for one in strange[group]}
            with self._telling.changing(transaction, store, group, keys - {""}):
                for one in strange[group]:
                    store.depart(group, self._client, one.channel)
                    store.leave(group, self._client, one.channel)
                for channel, row in rows.items():
                    # What is there is at least as new: another process may have changed it, and told so in the log.
                    if starts_at is not None or store.presence(group, self._client, channel) is None:
                        store.restore(group, self._client, channel, row)
