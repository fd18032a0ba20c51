"""The channel layer: the async API of the Channel Layer Specification
(https://channels.readthedocs.io/en/stable/channel_layer_spec.html).
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace

from channels.layers import BaseChannelLayer

from channels_sqlite import names
from channels_sqlite.codec import Codec
from channels_sqlite.concurrency import endings, forks
from channels_sqlite.counters import Counters
from channels_sqlite.delivery.consumers import note_made
from channels_sqlite.engine.engine import Engine
from channels_sqlite.engine.receive import CoroutineReceiver, Line
from channels_sqlite.options import Options

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

    async def send(self, channel: str, message: Mapping[str, object]) -> None:
        """Send `message` to one channel.

        Raises:
            ChannelFull: the channel holds as many unread messages as its capacity allows.
            MessageTooLarge: the message is larger than `max_message_size` bytes.
            TypeError: the name is invalid, or the message holds something that cannot be serialised; names the path.
            ValueError: the message has the key `__asgi_channel__`.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        names.require_channel_name(channel)
        payload = self._codec.encode(message)
        engine = self._here()
        await engine.outbox.write(engine.operations.send(channel, payload), len(payload))

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

    async def group_send(self, group: str, message: Mapping[str, object]) -> None:
        """Send `message` to every channel that is a member of `group` now. Full members are skipped and logged.

        Raises TypeError, ValueError, MessageTooLarge and ChannelDatabaseError as `send` does.
        """
        names.require_group_name(group)
        payload = self._codec.encode(message)
        engine = self._here()
        await engine.outbox.write(engine.operations.group_send(group, payload), len(payload))

    async def group_channels(self, group: str) -> list[str]:
        """Return the names of the channels in `group`, sorted."""
        names.require_group_name(group)
        engine = self._here()
        await engine.ready()
        return await engine.inbox.reader.aread(lambda store: store.group_channels(group, time.time()))

    async def group_count(self, group: str) -> int:
        """Return how many channels are in `group`."""
        return len(await self.group_channels(group))

    @property
    def counters(self) -> Counters:
        """What this layer has done in this process so far; a copy, which does not change any more."""
        return replace(self._counters)

    # Life cycle

    async def flush(self) -> None:
        """Delete all messages and memberships of this layer's `prefix`, in every process."""
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
