"""Where the messages of an event stream come from: this package's layer, or any other one."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from channels.layers import BaseChannelLayer

from channels_sqlite.codec import Message
from channels_sqlite.concurrency.received import Received
from channels_sqlite.delivery.history import Reading
from channels_sqlite.engine.engine import Engine
from channels_sqlite.engine.receive import Line
from channels_sqlite.histories import Position, parse
from channels_sqlite.layers import SqliteChannelLayer, engine_of, line_of, options_of
from channels_sqlite.storage.transactions import Transaction

__all__ = ["POSITION", "Caught", "Event", "Source", "source_of"]

logger = logging.getLogger(__name__)

PREFIX = "events"
"""Begins the names of the channels."""
POSITION = "__position__"
NOWHERE = "-"
"""No position: all that is kept is read."""


@dataclass(frozen=True)
class Event:
    """A message and where it stands in the history; None: it is not kept."""

    message: Message
    position: str | None


@dataclass(frozen=True)
class Caught:
    """What comes before the live messages."""

    events: Sequence[Event] = field(default=())
    position: str | None = None
    """Up to which nothing is missing; None where no group has history."""
    recovered: bool = True
    """Whether nothing was missed."""


class Source(Protocol):
    """A channel, its membership in groups, and its messages. In one event loop."""

    keeps_all: bool
    """Whether what was missed can be read again."""
    renew_every_s: float | None
    """How often to `join` again, so that no membership ends; None: never."""

    async def open(self) -> None:
        """Get a channel."""

    async def join(self, since: str | None, last: int | None) -> Caught:
        """Join the groups, or renew that, and return what was missed `since`, or the `last` ones; None: nothing."""

    def take(self) -> Message | None:
        """Return the next message, or None and have `arrival` tell of it."""

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done once there is something to take, or nothing any more."""

    def missed(self) -> bool:
        """Whether some message was dropped since `join`, as far as that can be known."""

    def leave(self) -> None:
        """Leave the groups, without waiting; any number of times."""


def source_of(layer: BaseChannelLayer, groups: Sequence[str]) -> Source:
    """Return where the messages of `groups` come from."""
    return OwnSource(layer, groups) if isinstance(layer, SqliteChannelLayer) else ForeignSource(layer, groups)


class OwnSource:
    """A channel of this package's layer."""

    def __init__(self, layer: SqliteChannelLayer, groups: Sequence[str]) -> None:
        keeping_of = options_of(layer).keeping_of
        self._layer = layer
        self._groups = groups
        self._kept = [group for group in groups if keeping_of(group) is not None]
        self._channel = ""
        self._engine: Engine | None = None
        self._received: Line | Received[Message] | None = None
        self._read_up_to: Position | None = None
        self.keeps_all = len(self._kept) == len(groups)
        self.renew_every_s = _half(layer.group_expiry)

    async def open(self) -> None:
        """Get a channel."""
        self._channel = await self._layer.new_channel(PREFIX)
        self._engine = engine = engine_of(self._layer)
        engine.require_own(self._channel)
        line = line_of(self._layer, self._channel)
        self._received = line or Received(functools.partial(self._layer.receive, self._channel))

    async def join(self, since: str | None, last: int | None) -> Caught:
        """Join all groups and read what is kept of them, in one transaction, so that one position is that of all."""
        engine = self._opened()
        last = last if since is None else None
        questions = [engine.histories.ask(group, since, last) for group in self._kept]
        subscribing = [engine.histories.subscribe(question, self._channel) for question in questions]
        adding = [
            engine.operations.group_add(group, self._channel) for group in self._groups if group not in self._kept
        ]
        engine.inbox.boxes.watch_gaps(self._channel)  # before: what is missed from now on must be read after this

        def apply(transaction: Transaction) -> Reading | None:
            for add in adding:
                add(transaction)
            return _merged([subscribe(transaction) for subscribe in subscribing], last)

        is_large = any(question.is_large for question in questions)
        reading = await engine.outbox.write(apply, prepare=_nothing if is_large else None)
        if reading is None:
            return Caught()
        history = await engine.histories.adecode(reading)
        if not history.recovered and since != NOWHERE:  # another group may have been read from there on alone
            return await self.join(NOWHERE, None)
        self._read_up_to = parse(history.position)
        events = [Event(entry.message, entry.position) for entry in history.entries]
        return Caught(events, history.position, history.recovered)

    def _opened(self) -> Engine:
        assert self._engine is not None, "open() comes first"  # noqa: S101  # for mypy
        return self._engine

    def take(self) -> Message | None:
        """Return the next message, or None and stand in line."""
        if self._received is None:
            return None
        while True:
            message = self._received.take()
            if message is None or self._read_up_to is None or not self._was_read(message):
                return message

    def _was_read(self, message: Message) -> bool:
        """Whether the history was read past a message since it came: it waited, but was not kept any more."""
        position, up_to = parse(message.get(POSITION)), self._read_up_to
        if position is None or up_to is None:
            return False
        if position.epoch == up_to.epoch and position.id <= up_to.id:
            return True
        self._read_up_to = None  # nor are those that follow
        return False

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done once there is something to take, or nothing any more."""
        assert self._received is not None, "open() comes first"  # noqa: S101  # for mypy
        return self._received.arrival()

    def missed(self) -> bool:
        """Whether the mailbox has dropped a message."""
        return self._opened().inbox.boxes.missed(self._channel)

    def leave(self) -> None:
        """Leave the groups once the database can be written; what waits is dropped."""
        received, self._received = self._received, None
        if received is not None:
            received.leave()
        if self._engine is not None:
            self._engine.inbox.leavers.leave(self._channel, self._groups)


def _merged(readings: Sequence[Reading], last: int | None) -> Reading | None:
    """Return as one what one transaction has read: the `last` messages at most."""
    if not readings:
        return None
    rows = sorted((row for reading in readings for row in reading.rows), key=lambda row: row.id)
    newest = readings[-1]
    return Reading(
        newest.epoch,
        newest.newest,
        rows if last is None else rows[-last:],
        all(reading.recovered for reading in readings),
    )


def _nothing() -> int:
    """Prepares a write that the background thread is to do."""
    return 0


class ForeignSource:
    """A channel of another package's layer."""

    def __init__(self, layer: BaseChannelLayer, groups: Sequence[str]) -> None:
        # Any: what a layer has beyond the base class is a matter of the specification, not of its type.
        self._layer: Any = layer
        self._groups = groups
        self._channel = ""
        self._received: Received[Message] | None = None
        self.keeps_all = False
        self.renew_every_s = _half(getattr(layer, "group_expiry", None))

    async def open(self) -> None:
        """Get a channel."""
        self._channel = await self._layer.new_channel(PREFIX)
        self._received = Received(functools.partial(self._layer.receive, self._channel))

    async def join(self, since: str | None, last: int | None) -> Caught:  # noqa: ARG002  # nothing is kept
        """Join one group after the other."""
        for group in self._groups:
            await self._layer.group_add(group, self._channel)
        return Caught()

    def take(self) -> Message | None:
        """Return the next message, or None and wait for it."""
        return None if self._received is None else self._received.take()

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done once there is something to take, or receiving has failed."""
        assert self._received is not None, "open() comes first"  # noqa: S101  # for mypy
        return self._received.arrival()

    def missed(self) -> bool:
        """Nobody knows."""
        return False

    def leave(self) -> None:
        """Leave the groups in a task of its own."""
        received, self._received = self._received, None
        if received is not None:
            received.leave()
            task = asyncio.get_running_loop().create_task(self._leave(received))
            _leaving.add(task)
            task.add_done_callback(_leaving.discard)

    async def _leave(self, received: Received[Message]) -> None:
        await asyncio.wait({received.task})
        for group in self._groups:
            try:
                await self._layer.group_discard(group, self._channel)
            except Exception:
                logger.exception("an event stream could not leave group %r", group)


_leaving: set[asyncio.Task[None]] = set()
"""Event loops have but weak references to tasks."""


def _half(group_expiry: object) -> float | None:
    return group_expiry / 2 if isinstance(group_expiry, (int, float)) else None
