"""The channel layer: the async API of the Channel Layer Specification
(https://channels.readthedocs.io/en/stable/channel_layer_spec.html).
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from channels.layers import BaseChannelLayer

from channels_sqlite import names
from channels_sqlite.codec import Codec, Message
from channels_sqlite.concurrency import endings, forks
from channels_sqlite.counters import Counters
from channels_sqlite.delivery.consumers import note_made
from channels_sqlite.delivery.history import Question, Reading
from channels_sqlite.engine.engine import Engine
from channels_sqlite.engine.receive import CoroutineReceiver, Line
from channels_sqlite.histories import History, require_flag, require_question
from channels_sqlite.options import Options
from channels_sqlite.sending import NOBODY, Batch, require_due, require_excluded, require_expiry
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction

# pyright: reportPrivateUsage=false
# The functions at the end are the layer's own, for its sync face.

__all__ = ["SqliteChannelLayer"]


class SqliteChannelLayer(CoroutineReceiver, BaseChannelLayer):
    """A channel layer in one SQLite file, for all processes of one machine.

    Its keyword arguments are the CONFIG options, see `Options`; faults in them raise ImproperlyConfigured. Making a
    layer opens nothing. One object serves any number of event loops and threads, and survives forks; every method may
    raise ChannelDatabaseError, which says what to do, and works again once that is done.
    """

    extensions = ["groups", "flush"]  # noqa: RUF012  # as the specification and Channels' own layer have it

    def __init__(self, **config: object) -> None:
        self._options = options = Options.from_config(config)
        super().__init__(expiry=options.expiry, capacity=options.capacity)
        self.channel_capacity = list(options.channel_capacity)
        self.group_expiry = options.group_expiry
        self._codec = Codec(
            max_message_size=self._options.max_message_size, keys=self._options.symmetric_encryption_keys
        )
        self._counters = Counters()
        self._engine: Engine | None = None
        self._making = threading.Lock()  # guards `_engine` and `_finalizer`; nothing is waited for inside
        self._finalizer: weakref.finalize[..., SqliteChannelLayer] | None = None
        forks.register(self._after_fork_in_child)
        _layers.add(self)

    # Channels

    async def send(self, channel: str, message: Mapping[str, object], *, expiry: float | None = None) -> None:
        """Send `message` to one channel. It stays deliverable for `expiry` seconds; None: for as long as CONFIG says.

        Raises:
            ChannelFull: the channel holds as many unread messages as its capacity allows.
            MessageTooLarge: the message is larger than `max_message_size` bytes.
            TypeError: the name is invalid, or `expiry` no number, or the message holds something that cannot be
                serialised; names the path.
            ValueError: the message has the key `__asgi_channel__`, or `expiry` is not finite and greater than 0.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        names.require_channel_name(channel)
        if expiry is not None:
            require_expiry(expiry)
        payload = self._codec.encode(message)
        engine = self._here()
        await engine.outbox.write(engine.operations.send(channel, (payload,), expiry), len(payload))

    async def send_many(
        self, channel: str, messages: Sequence[Mapping[str, object]], *, expiry: float | None = None
    ) -> None:
        """Send `messages` to one channel, in their order and in one transaction: all of them or none.

        All are checked and copied before the first is written; an error about one begins with its place, such as
        `messages[2]`. Leave them alone until this returns: many are copied by a thread.

        Raises TypeError (also where `messages` is no sequence), ValueError, MessageTooLarge and ChannelDatabaseError as
        `send` does, and ChannelFull where not all of them fit.
        """
        names.require_channel_name(channel)
        require_expiry(expiry)
        batch = Batch(self._codec.encode, messages)
        if batch:
            engine = self._here()
            await _write_batch(engine, batch, engine.operations.send(channel, batch.payloads, expiry))

    async def send_later(
        self,
        channel: str,
        message: Mapping[str, object],
        *,
        delay: float | None = None,
        at: datetime | None = None,
        expiry: float | None = None,
    ) -> str:
        """Send `message` to one channel after `delay` seconds or at the time `at`; return a ticket for `cancel`.

        It is stored when this returns, and sent once, at its time by the system's clock or at most a second later,
        while any process receives; else when the next one does. Its expiry counts from then. A channel that is full
        then is tried each second until its expiry, and later messages for it wait behind.

        Raises TypeError (also unless exactly one of `delay` and `at` is given), ValueError (also for a negative
        `delay`, or an `at` without a time zone), MessageTooLarge and ChannelDatabaseError as `send` does.
        """
        names.require_channel_name(channel)
        require_expiry(expiry)
        due_at = require_due(delay, at)
        payload = self._codec.encode(message)
        engine = self._here()
        return await engine.outbox.write(engine.schedule.send_later(channel, payload, due_at, expiry), len(payload))

    async def cancel(self, ticket: str) -> bool:
        """Take a message out of the schedule; return whether that came in time.

        False: it was sent or cancelled already, or the ticket is none of this layer's. Raises ChannelDatabaseError.
        """
        engine = self._here()
        return await engine.outbox.write(engine.schedule.cancel(ticket))

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a new channel name, `prefix.client!local`, that only this layer in this process can receive on.

        Raises TypeError where `prefix` does not make a valid name.
        """
        engine = self._here()
        name = names.new_specific(prefix, engine.client)
        await engine.ready_to_receive()
        note_made(name)
        return name

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member of `group` for `group_expiry` seconds, or renew its membership."""
        names.require_group_name(group)
        names.require_channel_name(channel)
        engine = self._here()
        await engine.outbox.write(engine.operations.group_add(group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        """End the membership of `channel` in `group`, if there is one."""
        names.require_group_name(group)
        names.require_channel_name(channel)
        engine = self._here()
        await engine.outbox.write(engine.operations.group_discard(group, channel))

    async def group_send(
        self,
        group: str,
        message: Mapping[str, object],
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> None:
        """Send `message` to every channel that is a member of `group` now, but for those that `exclude` names.

        Full members are skipped and logged. `expiry` as in `send`. A group with history keeps the message, unless
        `history` is False. Raises TypeError, ValueError, MessageTooLarge and ChannelDatabaseError as `send` does.
        """
        names.require_group_name(group)
        if expiry is not None:
            require_expiry(expiry)
        require_flag(history)
        excluded = NOBODY if exclude is None else require_excluded(exclude)
        payload = self._codec.encode(message)
        engine = self._here()
        apply = engine.operations.group_send(group, (payload,), expiry, excluded, history=history)
        await engine.outbox.write(apply, len(payload))

    async def group_send_many(
        self,
        group: str,
        messages: Sequence[Mapping[str, object]],
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> None:
        """Send `messages` to the members of `group`, in their order and in one transaction; see `send_many`.

        A member that has no room for all of them gets the first ones. `exclude` and `history` as in `group_send`.
        Raises TypeError, ValueError, MessageTooLarge and ChannelDatabaseError as `send_many` does.
        """
        names.require_group_name(group)
        require_expiry(expiry)
        require_flag(history)
        excluded = require_excluded(exclude)
        batch = Batch(self._codec.encode, messages)
        if batch:
            engine = self._here()
            apply = engine.operations.group_send(group, batch.payloads, expiry, excluded, history=history)
            await _write_batch(engine, batch, apply)

    async def group_send_later(
        self,
        group: str,
        message: Mapping[str, object],
        *,
        delay: float | None = None,
        at: datetime | None = None,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
    ) -> str:
        """Send `message` to the members that `group` will have, later; return a ticket for `cancel`; see `send_later`.

        `exclude` and `history` as in `group_send`; it is kept once it is sent. Raises TypeError, ValueError,
        MessageTooLarge and ChannelDatabaseError as `send_later` does.
        """
        names.require_group_name(group)
        require_expiry(expiry)
        require_flag(history)
        excluded = require_excluded(exclude)
        due_at = require_due(delay, at)
        payload = self._codec.encode(message)
        engine = self._here()
        schedule = engine.schedule.group_send_later(group, payload, due_at, expiry, excluded, history=history)
        return await engine.outbox.write(schedule, len(payload))

    async def group_channels(self, group: str) -> list[str]:
        """Return the names of the channels in `group`, sorted."""
        names.require_group_name(group)
        engine = self._here()
        await engine.ready()
        return await engine.inbox.reader.aread(lambda store: store.group_channels(group, time.time()))

    async def group_count(self, group: str) -> int:
        """Return how many channels are in `group`."""
        return len(await self.group_channels(group))

    async def group_subscribe(
        self, group: str, channel: str, *, since: object = None, last: int | None = None
    ) -> History[Message]:
        """Make `channel` a member of `group`, as `group_add` does, and return what the group was sent.

        `since` is a position: what came after it, or all that is kept where that is not known, and then `recovered` is
        False. It may be anything, as it comes from clients. `last`: the newest messages, so many at most. Neither:
        none. A message is either among the entries or is received on the channel later, never both; what waits there
        and is among the entries is withdrawn (not from a normal channel). A call that is cancelled may have joined.

        Raises:
            TypeError: a name is invalid, `since` and `last` were both given, or `last` is no whole number.
            ValueError: no pattern of the option `history` matches the group, or `last` is less than 1.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        names.require_group_name(group)
        names.require_channel_name(channel)
        require_question(since, last)
        engine = self._here()
        question = engine.histories.ask(group, since, last)
        apply = engine.histories.subscribe(question, channel)
        reading = await engine.outbox.write(apply, prepare=_nothing if question.is_large else None)
        return await engine.histories.adecode(reading)

    async def group_history(self, group: str, *, since: object = None, last: int | None = None) -> History[Message]:
        """Return what `group` was sent, without joining it; see `group_subscribe`, with whose errors."""
        names.require_group_name(group)
        require_question(since, last)
        engine = self._here()
        question = engine.histories.ask(group, since, last)
        await engine.ready()
        reading = await _read_history(engine, question)
        return await engine.histories.adecode(reading)

    @property
    def counters(self) -> Counters:
        """What this layer has done in this process so far; a copy, which does not change any more."""
        return replace(self._counters)

    # Life cycle

    async def flush(self) -> None:
        """Delete all messages, kept ones and those to be sent later too, and all memberships of this `prefix`."""
        engine = self._here()
        await engine.outbox.write(engine.operations.flush)

    async def close(self) -> None:
        """End the layer's thread, connections and sockets; waiting receivers get LayerClosedError.

        Its channels leave their groups. The next call opens the layer again, under a new client name.
        """
        engine = self._let_go()
        if engine is not None:
            await engine.close()

    def _close_blocking(self) -> None:
        engine = self._let_go()
        if engine is not None:
            engine.close_from_anywhere(wait=True)

    def _let_go(self) -> Engine | None:
        with self._making:
            engine, self._engine = self._engine, None
            finalizer, self._finalizer = self._finalizer, None
        if finalizer is not None:
            finalizer.detach()
        return engine

    def _here(self) -> Engine:
        """Return what this layer has in this process, made if need be; nothing is opened yet."""
        engine = self._engine
        if engine is None:
            with self._making:
                engine = self._engine
                if engine is None:
                    engine = self._engine = Engine(self._options, self._codec, self._counters)
                    self._finalizer = weakref.finalize(self, engine.close_from_anywhere, wait=False)
                    self._finalizer.atexit = False
                    _engines.add(engine)
        return engine

    def _after_fork_in_child(self) -> None:
        """Leave the parent's things alone and begin anew, under a client name of its own."""
        self._making = threading.Lock()
        self._counters = Counters()
        self._engine = None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None


async def _write_batch(engine: Engine, batch: Batch, apply: Callable[[Transaction], None]) -> None:
    batch.begin()
    await engine.outbox.write(apply, batch.size_bytes, None if batch.is_whole else batch.finish)


async def _read_history(engine: Engine, question: Question) -> Reading:
    def read(store: Store) -> Reading | bool:
        return engine.histories.read(store, question, time.time()) or False

    reading = await (engine.read_aside(read) if question.is_large else engine.inbox.reader.aread(read))
    if isinstance(reading, Reading):
        return reading
    # Once for each file, or after a loss: another epoch begins.
    return await engine.outbox.write(engine.histories.read_in(question))


def _nothing() -> int:
    """Prepares a write that the background thread is to do."""
    return 0


_layers: weakref.WeakSet[SqliteChannelLayer] = weakref.WeakSet()
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


# For what goes with the layer: the sync face, the test kit, the interpreter's end.


def engine_of(layer: SqliteChannelLayer) -> Engine:
    """Return what a layer has in this process, made if need be; nothing is opened."""
    return layer._here()  # noqa: SLF001  # this module is the layer's own


def options_of(layer: SqliteChannelLayer) -> Options:
    """Return the options that a layer was made with."""
    return layer._options  # noqa: SLF001  # likewise


def codec_of(layer: SqliteChannelLayer) -> Codec:
    """Return what makes a layer's messages bytes, and bytes messages."""
    return layer._codec  # noqa: SLF001  # likewise


def line_of(layer: SqliteChannelLayer, channel: str) -> Line | None:
    """Return a place in the line of a channel of this layer's own; None where `receive` was replaced."""
    replaced = type(layer).receive is not CoroutineReceiver.receive or "receive" in vars(layer)
    return None if replaced else Line(engine_of(layer), channel)


def close_layer(layer: SqliteChannelLayer) -> None:
    """Close a layer, in a thread without an event loop."""
    layer._close_blocking()  # noqa: SLF001  # likewise


def close_layers() -> None:
    """Close every layer of this process, those included that nobody has any more. The next call opens one again."""
    for layer in list(_layers):
        close_layer(layer)
    for engine in list(_engines):
        engine.close_from_anywhere(wait=True)


@atexit.register
def _close_for_good() -> None:
    """Close what lives until the interpreter ends; other `atexit` handlers may still send."""
    endings.closed_for_good = True
    close_layers()
