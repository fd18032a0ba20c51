"""How this package's own layer serves threads: without an event loop.

The storage, the codec and the wake-ups are those of the async face.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from django.db.backends.sqlite3.base import DatabaseWrapper

from channels_sqlite import names
from channels_sqlite.codec import Message
from channels_sqlite.concurrency import endings
from channels_sqlite.concurrency.gate import Stop
from channels_sqlite.concurrency.reentry import exclusive
from channels_sqlite.delivery.history import Reading
from channels_sqlite.delivery.lines import Taken
from channels_sqlite.engine import receive as receiving
from channels_sqlite.engine.engine import Engine
from channels_sqlite.engine.presence import presents
from channels_sqlite.exceptions import ChannelDatabaseError, LayerClosedError
from channels_sqlite.histories import History
from channels_sqlite.layers import SqliteChannelLayer, close_layer, codec_of, engine_of, options_of
from channels_sqlite.present import Present, encoded_info
from channels_sqlite.storage.presences import PresentRow
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.sync.atomic_blocks import join, open_transaction

__all__ = ["SqliteBlocking"]


RETRY_S = 0.5
T = TypeVar("T")


class SqliteBlocking:
    """The package's own layer."""

    def __init__(self, layer: SqliteChannelLayer) -> None:
        self._layer = layer
        self._codec = codec_of(layer)
        self._alias = options_of(layer).database
        self._prefix = options_of(layer).prefix

    def require(self, method: str, *, expiry: object = None, exclude: object = None) -> None:
        """There is all of it."""

    def encode(self, message: Mapping[str, object], path: str = "message") -> bytes:
        """Check and encode."""
        return self._codec.encode(message, path)

    # Writing

    def send(self, channel: str, encoded: Sequence[bytes], expiry: float | None) -> None:
        """Append the messages, committed when this returns; in an open transaction of this thread, with it."""
        self.write(lambda engine: engine.operations.send(channel, encoded, expiry), _size(encoded))

    def group_send(
        self, group: str, encoded: Sequence[bytes], expiry: float | None, excluded: frozenset[str], *, history: bool
    ) -> None:
        """Likewise."""
        self.write(
            lambda engine: engine.operations.group_send(group, encoded, expiry, excluded, history=history),
            _size(encoded),
        )

    def send_later(self, channel: str, encoded: bytes, due_at: float, expiry: float | None) -> str:
        """Likewise."""
        return self.write(lambda engine: engine.schedule.send_later(channel, encoded, due_at, expiry), len(encoded))

    def group_send_later(
        self,
        group: str,
        encoded: bytes,
        due_at: float,
        expiry: float | None,
        excluded: frozenset[str],
        *,
        history: bool,
    ) -> str:
        """Likewise."""
        return self.write(
            lambda engine: engine.schedule.group_send_later(group, encoded, due_at, expiry, excluded, history=history),
            len(encoded),
        )

    def cancel(self, ticket: str) -> bool:
        """Likewise."""
        return self.write(lambda engine: engine.schedule.cancel(ticket))

    def group_add(self, group: str, channel: str) -> None:
        """Likewise."""
        self.write(lambda engine: engine.operations.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        """Likewise."""
        self.write(lambda engine: engine.operations.group_discard(group, channel))

    def group_subscribe(self, group: str, channel: str, since: object, last: int | None) -> History[Message]:
        """Likewise; what is read in a transaction that rolls back was not joined for."""
        histories = engine_of(self._layer).histories
        question = histories.ask(group, since, last)
        return histories.decode(self.write(lambda engine: engine.histories.subscribe(question, channel)))

    def flush(self) -> None:
        """Likewise."""
        self.write(lambda engine: engine.operations.flush)

    def write(self, operation: Callable[[Engine], Callable[[Transaction], T]], size_bytes: int = 0) -> T:
        """Run what `operation` makes of the engine, in a transaction of its own or in this thread's open one."""

        def write() -> T:
            engine = engine_of(self._layer)
            apply = operation(engine)
            transaction = open_transaction(self._alias)
            if transaction is None:
                return engine.outbox.write_blocking(apply, size_bytes)
            return join(transaction, engine, self._prefix, apply)

        return self._call(write)

    def _call(self, work: Callable[[], T]) -> T:
        """Do what one call of the facade is for, in one go; at the interpreter's end, leave nothing open after it."""
        with exclusive:
            try:
                return work()
            except LayerClosedError:
                if not endings.closed_for_good:
                    raise
                return work()  # it was closed while this waited; what is opened now is this call's own
            finally:
                if endings.closed_for_good:
                    close_layer(self._layer)

    # Presence

    def encode_info(self, info: Mapping[str, object] | None) -> bytes:
        """Check and encode."""
        return encoded_info(self._codec, info)

    def presence_join(self, group: str, channel: str, key: str, info: bytes) -> list[Present[Message]]:
        """Likewise; returns who is present as of that commit, or as the open transaction sees it."""
        return self._listed(group, lambda engine: engine.inbox.attendance.join(group, channel, key, info))

    def presence_update(self, group: str, channel: str, info: bytes) -> None:
        """Likewise."""
        self.write(lambda engine: engine.inbox.attendance.update(group, channel, info), len(info))

    def presence_leave(self, group: str, channel: str) -> None:
        """Likewise."""
        self.write(lambda engine: engine.inbox.attendance.leave(group, channel))

    def presence_watch(self, group: str, channel: str) -> list[Present[Message]]:
        """Likewise; returns who is present as of that commit, or as the open transaction sees it."""
        return self._listed(group, lambda engine: engine.inbox.attendance.watch(group, channel))

    def _listed(
        self, group: str, operation: Callable[[Engine], Callable[[Transaction], list[PresentRow]]]
    ) -> list[Present[Message]]:
        self._clear_up()
        return presents(engine_of(self._layer), group, self.write(operation))

    def presence_list(self, group: str) -> list[Present[Message]]:
        """Read who is present."""
        self._clear_up()
        return presents(engine_of(self._layer), group, self.read(lambda store: store.who(group)))

    def presence_count(self, group: str) -> int:
        """Read how many keys are present."""
        self._clear_up()
        return self.read(lambda store: store.count_present(group))

    def presence_groups(self, key: str) -> list[str]:
        """Read where a key is present."""
        self._clear_up()
        return self.read(lambda store: store.whereabouts(key))

    def _clear_up(self) -> None:
        """Bury the dead first; within a transaction of this thread, which would be waited for, that cannot be done."""
        if open_transaction(self._alias) is None:
            self._call(lambda: engine_of(self._layer).ready_to_list_blocking())

    # Reading

    def group_channels(self, group: str) -> list[str]:
        """Read the members."""
        return self.read(lambda store: store.group_channels(group, time.time()))

    def group_history(self, group: str, since: object, last: int | None) -> History[Message]:
        """Read what is kept, with the write lock only where an epoch begins."""
        histories = engine_of(self._layer).histories
        question = histories.ask(group, since, last)
        reading = self.read(lambda store: engine_of(self._layer).histories.read(store, question, time.time()) or False)
        if not isinstance(reading, Reading):
            reading = self.write(lambda engine: engine.histories.read_in(question))
        return histories.decode(reading)

    def read(self, query: Callable[[Store], T]) -> T:
        """Return what `query` reads, which is never None; in an open transaction of this thread, what that sees."""

        def read() -> T:
            engine = engine_of(self._layer)
            transaction = open_transaction(self._alias)
            if transaction is not None:
                return join(transaction, engine, self._prefix, lambda joined: query(joined.store), writes=False)
            engine.ready_blocking()
            return engine.inbox.reader.read(query)

        return self._call(read)

    def new_channel(self, prefix: str) -> str:
        """Make a name, and make this process known to senders."""
        with exclusive:
            engine = engine_of(self._layer)
            name = names.new_specific(prefix, engine.client)
            if not engine.can_receive():
                self._become_receiver(engine)
        return name

    def require_own(self, channel: str) -> None:
        """Raise ValueError for a name of another engine."""
        engine_of(self._layer).require_own(channel)

    def receive(
        self, channels: Sequence[str], until: float | None, stop: Stop, *, patient: bool
    ) -> tuple[str, Message] | None:
        """Take what is there, or wait."""
        with exclusive:
            engine = engine_of(self._layer)
        for channel in channels:
            engine.require_own(channel)
        while not stop.requested:
            try:
                taken = self._take(engine, channels, until, stop)
            except LayerClosedError:
                if not endings.thread_ends_unasked():
                    raise
                # It was on its way to wait; those who waited were not told, and neither is this one.
                give_up = receiving.giving_up(until, stop)
                while not give_up():
                    stop.gate.sleep(until)
                return None
            except ChannelDatabaseError as error:
                if not patient:
                    raise
                engine.reports.failed("receiving", error)
                stop.gate.sleep(time.monotonic() + RETRY_S)
                continue
            if taken is None:
                return None
            channel, (full_name, entry) = taken
            message = receiving.decode(engine, channel, full_name, entry)
            if message is not None:
                return channel, message
        return None

    def _take(
        self, engine: Engine, channels: Sequence[str], until: float | None, stop: Stop
    ) -> tuple[str, Taken] | None:
        transaction = open_transaction(self._alias)
        normal = [channel for channel in channels if "!" not in channel]
        if transaction is not None and normal:
            with exclusive:
                taken = self._take_joined(engine, normal, transaction)
            return taken[0], taken

        if not engine.can_receive():
            with exclusive:
                if not self._become_receiver(engine, receiving.giving_up(until, stop)):
                    return None
        return receiving.wait_in_thread(engine, channels, until, stop)

    def _take_joined(self, engine: Engine, channels: Sequence[str], transaction: DatabaseWrapper) -> Taken:
        """Claim within a transaction of this thread: the message waits again if that rolls back."""
        taken = join(transaction, engine, self._prefix, lambda joined: engine.inbox.claims.first(joined, channels))
        if taken is None:
            raise TimeoutError(
                f"no message on {', '.join(map(repr, channels))}, and none can come while this thread has a "
                f"transaction open on the channel layer's own database (DATABASES[{self._alias!r}])"
            )
        return taken

    def _become_receiver(self, engine: Engine, give_up: Callable[[], bool] | None = None) -> bool:
        if open_transaction(self._alias) is not None:
            raise ChannelDatabaseError(
                f"this process cannot become a receiver while its thread has a transaction open on the channel "
                f"layer's own database (DATABASES[{self._alias!r}]); call new_channel() and receive() outside of it"
            )
        return engine.ready_to_receive_blocking(give_up)

    def end(self, stop: Stop) -> None:
        """Nothing is kept."""

    def session(self) -> object:
        """Return what this layer has in this process."""
        with exclusive:
            return engine_of(self._layer)

    def close(self) -> None:
        """Close the layer, for its async face as well."""
        with exclusive:
            close_layer(self._layer)


def _size(encoded: Sequence[bytes]) -> int:
    return sum(map(len, encoded))
