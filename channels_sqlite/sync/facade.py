"""The sync facade: channel layers for views, signal handlers, management commands, threads and tasks.

Over this package's layer nothing here starts an event loop; over any other it goes through `async_to_sync`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from channels.exceptions import ChannelFull
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DEFAULT_DB_ALIAS, transaction

from channels_sqlite import names
from channels_sqlite.channel_layers import layer_of
from channels_sqlite.codec import Message
from channels_sqlite.concurrency import forks
from channels_sqlite.concurrency.gate import Stop
from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.concurrency.signals import ended_by_signals
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sync.foreign import ForeignBlocking
from channels_sqlite.sync.own import SqliteBlocking
from channels_sqlite.sync.protocol import BlockingLayer

if TYPE_CHECKING:
    from channels.layers import BaseChannelLayer

__all__ = ["SyncChannelLayer", "get_sync_channel_layer"]

logger = logging.getLogger(__name__)


class SyncChannelLayer:
    """The channel layer for code without an event loop; `get_sync_channel_layer` gives the one of an alias.

    Any thread may call it, also after a fork. In a thread whose event loop is running every method raises
    SynchronousOnlyOperation and names the call to await instead. A transaction that the calling thread has open on the
    layer's own database takes the call in: it commits or rolls back with it. All other transactions do not matter; for
    them there are the `_on_commit` methods.
    """

    def __init__(self, layer: BaseChannelLayer) -> None:
        self.layer = layer
        # Any: an encoded message is this object's own affair.
        self._blocking: BlockingLayer[Any] = (
            SqliteBlocking(layer) if isinstance(layer, SqliteChannelLayer) else ForeignBlocking(layer)
        )
        self._stops: set[Stop] = set()
        forks.register(self._after_fork_in_child)

    # Channels

    def send(self, channel: str, message: Mapping[str, object]) -> None:
        """Send `message` to one channel; it can be received when this returns.

        Raises:
            ChannelFull: the channel holds as many unread messages as its capacity allows.
            MessageTooLarge: the message is larger than `max_message_size` bytes.
            TypeError: the name is invalid, or the message holds something that cannot be serialised; names the path.
            ValueError: the message has the key `__asgi_channel__`.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        _require_no_loop("send")
        names.require_channel_name(channel)
        self._blocking.send(channel, self._blocking.encode(message))

    def send_on_commit(self, channel: str, message: Mapping[str, object], *, using: str = DEFAULT_DB_ALIAS) -> None:
        """Send `message` once the transaction open on the database `using` commits; never, if it rolls back.

        The message is checked and copied now, with the errors of `send`. What goes wrong at the commit, a full channel
        for example, is logged and not raised: the transaction is done. Without a transaction it is sent at once, in the
        same way.
        """
        _require_no_loop("send_on_commit")
        names.require_channel_name(channel)
        encoded = self._blocking.encode(message)
        _on_commit(partial(self._blocking.send, channel, encoded), f"to channel {channel!r}", using)

    def receive(self, channel: str, timeout: float | None = None) -> Message:
        """Wait for the next message on `channel` and return it.

        `channel` is what the async `receive` takes. `timeout` is in seconds: 0 asks once, None waits for ever.

        Raises:
            TimeoutError: nothing came.
            TypeError: the name is invalid.
            ValueError: the name is specific to another process (or to this layer before it was closed).
            LayerClosedError: the layer was closed meanwhile.
            ChannelDatabaseError: the database cannot be used.
        """
        _require_no_loop("receive")
        names.require_channel_name(channel)
        until = None if timeout is None else time.monotonic() + timeout
        received = self._blocking.receive([channel], until, Stop(), patient=False)
        if received is None:
            raise TimeoutError(f"no message on channel {channel!r} within {timeout} s")
        return received[1]

    def listen(self, *channels: str) -> Iterator[Message]:
        """Iterate over the messages of one or more channels as they come, taking turns among the channels.

        This makes a worker of a `for` loop. It ends when the layer is closed and, in the main thread, on SIGTERM and
        SIGINT, each time after the message in hand: the loop's body is never interrupted. A second signal has its usual
        effect, and in the end the signals' handlers are what they were. Any number of workers may listen on a normal
        channel; each message goes to one of them.

        Raises TypeError and ValueError at once as `receive` does, and ChannelDatabaseError when the database cannot be
        used from the start; later on it waits until that works again.
        """
        _require_no_loop("listen")
        if not channels:
            raise TypeError("listen() needs the name of at least one channel")
        for channel in channels:
            names.require_channel_name(channel)
            self._blocking.require_own(channel)
        return self._listen(deque(dict.fromkeys(channels)))

    def _listen(self, turns: deque[str]) -> Iterator[Message]:
        session = self._blocking.session()
        patient = False
        with self._stopped_by_close() as stop, ended_by_signals(stop):
            while not stop.requested and self._blocking.session() is session:
                try:
                    received = self._blocking.receive(list(turns), None, stop, patient=patient)
                except LayerClosedError:
                    return
                if received is None:
                    return
                channel, message = received
                turns.remove(channel)
                turns.append(channel)
                patient = True
                yield message

    @contextmanager
    def _stopped_by_close(self) -> Generator[Stop]:
        stop = Stop()
        self._stops.add(stop)
        try:
            yield stop
        finally:
            self._stops.discard(stop)
            self._blocking.end(stop)

    def new_channel(self, prefix: str = "specific") -> str:
        """Return a new channel name, `prefix.client!local`, that only this process can receive on.

        Raises TypeError where `prefix` does not make a valid name.
        """
        _require_no_loop("new_channel")
        names.require_channel_name(prefix)
        names.require_channel_name(f"{prefix}!")  # not every layer looks for a second one itself
        return self._blocking.new_channel(prefix)

    # Groups

    def group_send(self, group: str, message: Mapping[str, object]) -> None:
        """Send `message` to every channel that is a member of `group` now. Full members are skipped and logged.

        Raises TypeError, ValueError, MessageTooLarge and ChannelDatabaseError as `send` does.
        """
        _require_no_loop("group_send")
        names.require_group_name(group)
        self._blocking.group_send(group, self._blocking.encode(message))

    def group_send_on_commit(self, group: str, message: Mapping[str, object], *, using: str = DEFAULT_DB_ALIAS) -> None:
        """Send `message` to the members that `group` has once the transaction commits; see `send_on_commit`."""
        _require_no_loop("group_send_on_commit")
        names.require_group_name(group)
        encoded = self._blocking.encode(message)
        _on_commit(partial(self._blocking.group_send, group, encoded), f"to group {group!r}", using)

    def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member of `group` for `group_expiry` seconds, or renew its membership."""
        _require_no_loop("group_add")
        names.require_group_name(group)
        names.require_channel_name(channel)
        self._blocking.group_add(group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        """End the membership of `channel` in `group`, if there is one."""
        _require_no_loop("group_discard")
        names.require_group_name(group)
        names.require_channel_name(channel)
        self._blocking.group_discard(group, channel)

    def group_channels(self, group: str) -> list[str]:
        """Return the names of the channels in `group`, sorted; NotImplementedError over layers that cannot tell."""
        _require_no_loop("group_channels")
        names.require_group_name(group)
        return self._blocking.group_channels(group)

    def group_count(self, group: str) -> int:
        """Return how many channels are in `group`; NotImplementedError over layers that cannot tell."""
        _require_no_loop("group_count")
        names.require_group_name(group)
        return len(self._blocking.group_channels(group))

    # Life cycle

    def flush(self) -> None:
        """Delete all messages and memberships, in every process."""
        _require_no_loop("flush")
        self._blocking.flush()

    def close(self) -> None:
        """Close the layer in this process, for both faces; every `listen` ends. The next call opens it again."""
        _require_no_loop("close")
        for stop in list(self._stops):  # at once, as the interpreter sees it: a signal handler may call this
            stop()
        self._blocking.close()

    def _after_fork_in_child(self) -> None:
        """Forget the loops of the parent's threads."""
        self._stops = set()


def get_sync_channel_layer(alias: str = "default") -> SyncChannelLayer:
    """Return the sync facade of the layer that CHANNEL_LAYERS configures under `alias`, whatever its BACKEND.

    One object per alias and process, made anew when the settings change.

    Raises:
        ImproperlyConfigured: CHANNEL_LAYERS has no such alias, or its CONFIG has faults.
    """
    layer = layer_of(alias)
    while (facade := _facades.get(alias)) is None or facade.layer is not layer:
        if facade is None:
            _facades.setdefault(alias, SyncChannelLayer(layer))  # in two threads at once, the first one's
        else:
            _facades.pop(alias, None)
    return facade


_facades: dict[str, SyncChannelLayer] = {}


def _require_no_loop(method: str) -> None:
    if running_loop() is not None:
        raise SynchronousOnlyOperation(
            f"{method}() of the sync facade was called in a thread whose event loop is running, which it would block; "
            f"there, use the layer itself: {_ASYNC.get(method, f'await get_channel_layer().{method}(...)')}"
        )


_ASYNC = {
    "listen": "while True: message = await get_channel_layer().receive(channel)",
    "send_on_commit": "await get_channel_layer().send(...) after the transaction",
    "group_send_on_commit": "await get_channel_layer().group_send(...) after the transaction",
}


def _on_commit(send: Callable[[], None], where: str, using: str) -> None:
    def send_and_tell() -> None:
        try:
            send()
        except ChannelFull as error:
            logger.warning("a message %s, to be sent on commit, was dropped: %s", where, error)
        except Exception:
            logger.exception("a message %s, to be sent on commit, could not be sent", where)

    transaction.on_commit(send_and_tell, using=using)
