"""The sync facade: channel layers for views, signal handlers, management commands, threads and tasks.

Over this package's layer nothing here starts an event loop; over any other it goes through `async_to_sync`.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
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
from channels_sqlite.histories import History, require_flag, require_question
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sending import require_due, require_excluded, require_expiry, require_messages
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

    What another package's layer cannot do raises NotImplementedError, which names the method and the backend: `expiry`
    and `exclude`, what is sent later, and for some of them who is in a group.
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

    def send(self, channel: str, message: Mapping[str, object], *, expiry: float | None = None) -> None:
        """Send `message` to one channel; it can be received when this returns, and for `expiry` seconds.

        Raises:
            ChannelFull: the channel holds as many unread messages as its capacity allows.
            MessageTooLarge: the message is larger than `max_message_size` bytes.
            TypeError: the name is invalid, or `expiry` no number, or the message holds something that cannot be
                serialised; names the path.
            ValueError: the message has the key `__asgi_channel__`, or `expiry` is not finite and greater than 0.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
        """
        self._check("send", channel, expiry=expiry)
        self._blocking.send(channel, (self._blocking.encode(message),), expiry)

    def send_on_commit(
        self,
        channel: str,
        message: Mapping[str, object],
        *,
        expiry: float | None = None,
        using: str = DEFAULT_DB_ALIAS,
    ) -> None:
        """Send `message` once the transaction open on the database `using` commits; never, if it rolls back.

        The message is checked and copied now, with the errors of `send`. What goes wrong at the commit, a full channel
        for example, is logged and not raised: the transaction is done. Without a transaction it is sent at once, in the
        same way.
        """
        self._check("send_on_commit", channel, expiry=expiry)
        encoded = (self._blocking.encode(message),)
        _on_commit(partial(self._blocking.send, channel, encoded, expiry), f"to channel {channel!r}", using)

    def send_many(self, channel: str, messages: Sequence[Mapping[str, object]], *, expiry: float | None = None) -> None:
        """Send `messages` to one channel, in their order and in one transaction: all of them or none.

        All are checked and copied before the first is written; an error about one begins with its place, such as
        `messages[2]`. Over another layer they are sent one by one, and what comes before an error is sent.

        Raises TypeError (also where `messages` is no sequence), ValueError, MessageTooLarge and ChannelDatabaseError as
        `send` does, and ChannelFull where not all of them fit.
        """
        self._check("send_many", channel, expiry=expiry)
        encoded = self._encode_all(messages)
        if encoded:
            self._blocking.send(channel, encoded, expiry)

    def send_later(
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
        self._check("send_later", channel, expiry=expiry)
        due_at = require_due(delay, at)
        return self._blocking.send_later(channel, self._blocking.encode(message), due_at, expiry)

    def cancel(self, ticket: str) -> bool:
        """Take a message out of the schedule; return whether that came in time.

        False: it was sent or cancelled already, or the ticket is none of this layer's. Raises ChannelDatabaseError.
        """
        _require_no_loop("cancel")
        self._blocking.require("cancel")
        return self._blocking.cancel(ticket)

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

    def group_send(
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
        excluded = self._check("group_send", group, expiry=expiry, exclude=exclude, history=history)
        self._blocking.group_send(group, (self._blocking.encode(message),), expiry, excluded, history=history)

    def group_send_on_commit(
        self,
        group: str,
        message: Mapping[str, object],
        *,
        exclude: str | Collection[str] | None = None,
        expiry: float | None = None,
        history: bool = True,
        using: str = DEFAULT_DB_ALIAS,
    ) -> None:
        """Send `message` to the members that `group` has once the transaction commits; see `send_on_commit`."""
        excluded = self._check("group_send_on_commit", group, expiry=expiry, exclude=exclude, history=history)
        encoded = (self._blocking.encode(message),)
        send = partial(self._blocking.group_send, group, encoded, expiry, excluded, history=history)
        _on_commit(send, f"to group {group!r}", using)

    def group_send_many(
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
        excluded = self._check("group_send_many", group, expiry=expiry, exclude=exclude, history=history)
        encoded = self._encode_all(messages)
        if encoded:
            self._blocking.group_send(group, encoded, expiry, excluded, history=history)

    def group_send_later(
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
        excluded = self._check("group_send_later", group, expiry=expiry, exclude=exclude, history=history)
        due_at = require_due(delay, at)
        encoded = self._blocking.encode(message)
        return self._blocking.group_send_later(group, encoded, due_at, expiry, excluded, history=history)

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

    def group_subscribe(
        self, group: str, channel: str, *, since: object = None, last: int | None = None
    ) -> History[Message]:
        """Make `channel` a member of `group`, as `group_add` does, and return what the group was sent.

        `since` is a position: what came after it, or all that is kept where that is not known, and then `recovered` is
        False. It may be anything, as it comes from clients. `last`: the newest messages, so many at most. Neither:
        none. A message is either among the entries or is received on the channel later, never both; what waits there
        and is among the entries is withdrawn (not from a normal channel).

        Raises:
            TypeError: a name is invalid, `since` and `last` were both given, or `last` is no whole number.
            ValueError: no pattern of the option `history` matches the group, or `last` is less than 1.
            ChannelDatabaseError: the database could not be written; the text says why and what to do.
            NotImplementedError: the layer is another package's.
        """
        _require_no_loop("group_subscribe")
        names.require_group_name(group)
        names.require_channel_name(channel)
        require_question(since, last)
        self._blocking.require("group_subscribe")
        return self._blocking.group_subscribe(group, channel, since, last)

    def group_history(self, group: str, *, since: object = None, last: int | None = None) -> History[Message]:
        """Return what `group` was sent, without joining it; see `group_subscribe`, with whose errors."""
        _require_no_loop("group_history")
        names.require_group_name(group)
        require_question(since, last)
        self._blocking.require("group_history")
        return self._blocking.group_history(group, since, last)

    # What all that sends checks first

    def _check(
        self, method: str, name: object, *, expiry: object = None, exclude: object = None, history: object = True
    ) -> frozenset[str]:
        """Check all but the message; return who is excluded."""
        _require_no_loop(method)
        if method.startswith("group_"):
            names.require_group_name(name)
        else:
            names.require_channel_name(name)
        require_expiry(expiry)
        require_flag(history)
        excluded = require_excluded(exclude)
        self._blocking.require(method, expiry=expiry, exclude=exclude)
        return excluded

    def _encode_all(self, messages: Sequence[Mapping[str, object]]) -> list[Any]:
        require_messages(messages)
        return [self._blocking.encode(message, f"messages[{index}]") for index, message in enumerate(messages)]

    # Life cycle

    def flush(self) -> None:
        """Delete all messages, kept ones and those to be sent later too, and all memberships, in every process."""
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
