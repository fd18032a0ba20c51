"""Who is here: the calls of a layer that concern presence, for coroutines.

A large room's list is read and decoded by the layer's thread, so that no event loop is held up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from channels_sqlite import names
from channels_sqlite.codec import Message
from channels_sqlite.engine.engine import Engine
from channels_sqlite.present import Present, encoded_info, require_key
from channels_sqlite.storage.presences import PresentRow
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction

__all__ = ["LargeGroups", "PresenceCalls", "presents"]

MANY = 500  # people, whose list takes a millisecond or two

T = TypeVar("T")


class LargeGroups:
    """The groups whose last list was long."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def __contains__(self, group: object) -> bool:
        return group in self._names

    def note(self, group: str, count: int) -> None:
        """Note how many were present in a group."""
        if count > MANY:
            self._names.add(group)
        else:
            self._names.discard(group)


def presents(engine: Engine, group: str, rows: Sequence[PresentRow]) -> list[Present[Message]]:
    """Return a list as users get it."""
    return [Present(row.key, engine.info(group, row.key, row.info), row.channels, row.since) for row in rows]


class PresenceCalls:
    """The methods of a layer that concern presence."""

    _large: LargeGroups

    def _here(self) -> Engine:
        """Return what the layer has in this process."""
        raise NotImplementedError

    async def presence_join(
        self, group: str, channel: str, key: str, info: Mapping[str, object] | None = None
    ) -> list[Present[Message]]:
        """Make `channel` a member of `group` by which `key` is present; return who is, as of that moment.

        The others who are present or watch are told of what that changes, and `channel` of what changes after it. A
        channel that is present already joins anew: under another key it moves. `info` is what the list shows beside the
        key; None counts as {}. The membership lasts `group_expiry` seconds.

        Raises:
            TypeError: a name is invalid, the key is no str, or the info holds something that cannot be serialised.
            ValueError: the key does not have 1 to 200 characters, or the info has the key `__asgi_channel__`.
            MessageTooLarge: the info has more than 4096 bytes.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        names.require_group_name(group)
        names.require_channel_name(channel)
        key = require_key(key)
        engine = self._here()
        stored = encoded_info(engine.codec, info)
        return await self._listed(engine, group, engine.inbox.attendance.join(group, channel, key, stored))

    async def presence_update(self, group: str, channel: str, info: Mapping[str, object] | None) -> None:
        """Change the info of `channel`, which is present in `group`, and renew its membership.

        All who are present or watch are told, where the list shows it: where no other channel of that key has joined
        later.

        Raises TypeError, ValueError (also where `channel` is not present), MessageTooLarge and ChannelDatabaseError as
        `presence_join` does.
        """
        names.require_group_name(group)
        names.require_channel_name(channel)
        engine = self._here()
        stored = encoded_info(engine.codec, info)
        await engine.outbox.write(engine.inbox.attendance.update(group, channel, stored), len(stored))

    async def presence_leave(self, group: str, channel: str) -> None:
        """End the presence of `channel` in `group` with its membership, or its watching; nothing where it does neither.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        names.require_group_name(group)
        names.require_channel_name(channel)
        engine = self._here()
        await engine.outbox.write(engine.inbox.attendance.leave(group, channel))

    async def presence_watch(self, group: str, channel: str) -> list[Present[Message]]:
        """Have `channel` told of who comes and goes in `group`, and return who is present, as of that moment.

        It is no member, gets no broadcasts, and is not listed. It watches for `group_expiry` seconds. One that is
        present goes on to be.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        names.require_group_name(group)
        names.require_channel_name(channel)
        engine = self._here()
        return await self._listed(engine, group, engine.inbox.attendance.watch(group, channel))

    async def presence_list(self, group: str) -> list[Present[Message]]:
        """Return who is present in `group`, by key.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        names.require_group_name(group)
        engine = self._here()
        await engine.ready_to_list()
        if group in self._large:
            rows = await engine.read_aside(lambda store: store.who(group))
        else:
            rows = await engine.inbox.reader.aread(lambda store: store.who(group))
        return await self._decoded(engine, group, rows)

    async def presence_count(self, group: str) -> int:
        """Return how many keys are present in `group`.

        Raises TypeError and ChannelDatabaseError as `presence_join` does.
        """
        names.require_group_name(group)
        return await self._read(lambda store: store.count_present(group))

    async def presence_groups(self, key: str) -> list[str]:
        """Return the names of the groups in which `key` is present, sorted.

        Raises TypeError, ValueError and ChannelDatabaseError as `presence_join` does.
        """
        key = require_key(key)
        return await self._read(lambda store: store.whereabouts(key))

    async def _read(self, query: Callable[[Store], T]) -> T:
        engine = self._here()
        await engine.ready_to_list()
        return await engine.inbox.reader.aread(query)

    async def _listed(
        self, engine: Engine, group: str, apply: Callable[[Transaction], list[PresentRow]]
    ) -> list[Present[Message]]:
        """Write, and return the list that comes of it."""
        await engine.ready_to_list()
        rows = await engine.outbox.write(apply, 0, _nothing if group in self._large else None)
        return await self._decoded(engine, group, rows)

    async def _decoded(self, engine: Engine, group: str, rows: Sequence[PresentRow]) -> list[Present[Message]]:
        self._large.note(group, len(rows))
        if len(rows) <= MANY:
            return presents(engine, group, rows)
        return await engine.do_in_thread(lambda: presents(engine, group, rows))


def _nothing() -> int:
    """Prepare nothing: a write with something to prepare is the thread's."""
    return 0
