"""What the sync facade needs of a channel layer, and how this package's own layer does it: without an event loop.

Threads call these; the store, the codec and the wake-ups are those of the async face.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from django.db.backends.sqlite3.base import DatabaseWrapper

from channels_sqlite import names
from channels_sqlite.codec import Message
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.inbox import Taken
from channels_sqlite.joining import join, open_transaction
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.outbox import Transaction
from channels_sqlite.process import LayerProcess
from channels_sqlite.store import Store
from channels_sqlite.waiters import Gate, ThreadWaiter

__all__ = ["BlockingLayer", "SqliteBlocking", "Stop"]

RETRY_S = 0.5

E = TypeVar("E")
T = TypeVar("T")


class Stop:
    """Ends a `listen()`, from another thread or from a signal handler. `gate` is where its thread waits."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.requested = False

    def __call__(self) -> None:
        """Request the end."""
        self.requested = True
        self.gate.open()


class BlockingLayer(Protocol[E]):
    """A channel layer as threads use it; E is what it makes of a message that was checked. Names are valid already."""

    def encode(self, message: Mapping[str, object]) -> E:
        """Check a message and make a copy that can be sent later; errors as `SqliteChannelLayer.send`."""

    def send(self, channel: str, encoded: E) -> None:
        """Send to one channel, or raise ChannelFull."""

    def group_send(self, group: str, encoded: E) -> None:
        """Send to all members."""

    def group_add(self, group: str, channel: str) -> None:
        """Add or renew a member."""

    def group_discard(self, group: str, channel: str) -> None:
        """Remove a member, if it is one."""

    def group_channels(self, group: str) -> list[str]:
        """Return the members, sorted; raise NotImplementedError where the layer cannot tell."""

    def new_channel(self, prefix: str) -> str:
        """Return a new name that only this process receives on."""

    def require_own(self, channel: str) -> None:
        """Raise ValueError where the layer knows that `receive` would refuse this name."""

    def receive(
        self, channels: Sequence[str], until: float | None, stop: Stop, *, patient: bool
    ) -> tuple[str, Message] | None:
        """Wait for a message on one of `channels`, in their order where several have one, and return both.

        None: there was none until the monotonic time `until`, or `stop` was requested. `patient`: a layer that does
        not work at the moment is waited for.
        """

    def end(self, stop: Stop) -> None:
        """Let go of what `receive` keeps for the `listen()` that `stop` ends; no call with that one follows."""

    def session(self) -> object:
        """Return what is another object after the layer was closed."""

    def flush(self) -> None:
        """Delete all messages and memberships."""

    def close(self) -> None:
        """Let go of everything; the next call opens the layer again."""


class SqliteBlocking:
    """The package's own layer."""

    def __init__(self, layer: SqliteChannelLayer) -> None:
        self._layer = layer
        self._alias = layer.options.database
        self._prefix = layer.options.prefix

    def encode(self, message: Mapping[str, object]) -> bytes:
        """Check and encode."""
        return self._layer.codec.encode(message)

    # Writing

    def send(self, channel: str, encoded: bytes) -> None:
        """Append the message, committed when this returns; in an open transaction of this thread, with it."""
        process = self._layer.here()
        self._write(process, process.writes.send(channel, encoded), len(encoded))

    def group_send(self, group: str, encoded: bytes) -> None:
        """Likewise."""
        process = self._layer.here()
        self._write(process, process.writes.group_send(group, encoded), len(encoded))

    def group_add(self, group: str, channel: str) -> None:
        """Likewise."""
        process = self._layer.here()
        self._write(process, process.writes.group_add(group, channel))

    def group_discard(self, group: str, channel: str) -> None:
        """Likewise."""
        process = self._layer.here()
        self._write(process, process.writes.group_discard(group, channel))

    def flush(self) -> None:
        """Likewise."""
        process = self._layer.here()
        self._write(process, process.writes.flush)

    def _write(self, process: LayerProcess, apply: Callable[[Transaction], T], size_bytes: int = 0) -> T:
        transaction = open_transaction(self._alias)
        if transaction is None:
            return process.outbox.write_blocking(apply, size_bytes)
        return join(transaction, process, self._prefix, apply)

    # Reading

    def group_channels(self, group: str) -> list[str]:
        """Read the members."""

        def query(store: Store) -> list[str]:
            return store.group_channels(group, time.time())

        process = self._layer.here()
        transaction = open_transaction(self._alias)
        if transaction is not None:
            return join(transaction, process, self._prefix, lambda joined: query(joined.store), writes=False)
        process.ready_blocking()
        return process.read_blocking(query)

    def new_channel(self, prefix: str) -> str:
        """Make a name, and make this process known to senders."""
        process = self._layer.here()
        name = names.new_specific(prefix, process.client)
        if not process.can_receive():
            self._become_receiver(process)
        return name

    def require_own(self, channel: str) -> None:
        """Raise ValueError for a name of another process."""
        self._layer.here().require_own(channel)

    def receive(
        self, channels: Sequence[str], until: float | None, stop: Stop, *, patient: bool
    ) -> tuple[str, Message] | None:
        """Take what is there, or wait."""
        process = self._layer.here()
        for channel in channels:
            process.require_own(channel)
        while not stop.requested:
            try:
                taken = self._take(process, channels, until, stop)
            except ChannelDatabaseError as error:
                if not patient:
                    raise
                process.reports.failed("receiving", error)
                stop.gate.sleep(time.monotonic() + RETRY_S)
                continue
            if taken is None:
                return None
            channel, (full_name, entry) = taken
            message = self._layer.open(process, channel, full_name, entry)
            if message is not None:
                return channel, message
        return None

    def _take(
        self, process: LayerProcess, channels: Sequence[str], until: float | None, stop: Stop
    ) -> tuple[str, Taken] | None:
        transaction = open_transaction(self._alias)
        normal = [channel for channel in channels if "!" not in channel]
        if transaction is not None and normal:
            taken = self._take_joined(process, normal, transaction)
            return taken[0], taken
        if not process.can_receive():
            self._become_receiver(process)
        return _wait(process, channels, until, stop)

    def _take_joined(self, process: LayerProcess, channels: Sequence[str], transaction: DatabaseWrapper) -> Taken:
        """Claim within a transaction of this thread: the message waits again if that rolls back."""
        taken = join(transaction, process, self._prefix, lambda joined: process.inbox.claims.first(joined, channels))
        if taken is None:
            raise TimeoutError(
                f"no message on {', '.join(map(repr, channels))}, and none can come while this thread has a "
                f"transaction open on the channel layer's own database (DATABASES[{self._alias!r}])"
            )
        return taken

    def _become_receiver(self, process: LayerProcess) -> None:
        if open_transaction(self._alias) is not None:
            raise ChannelDatabaseError(
                f"this process cannot become a receiver while its thread has a transaction open on the channel "
                f"layer's own database (DATABASES[{self._alias!r}]); call new_channel() and receive() outside of it"
            )
        process.ready_to_receive_blocking()

    def end(self, stop: Stop) -> None:
        """Nothing is kept."""

    def session(self) -> object:
        """Return what this layer has in this process."""
        return self._layer.here()

    def close(self) -> None:
        """Close the layer, for its async face as well."""
        self._layer.close_blocking()


def _wait(process: LayerProcess, channels: Sequence[str], until: float | None, stop: Stop) -> tuple[str, Taken] | None:
    """Look for a message, and wait: in line for the process-specific ones of `channels`, told of the normal ones."""
    gate = stop.gate
    lines: dict[str, ThreadWaiter] = {}
    normal = [channel for channel in channels if "!" not in channel]
    try:
        with process.inbox.claims.watched(normal, gate):
            while True:
                gate.shut()
                taken = _look(process, channels, normal, lines, gate)
                if taken is not None:
                    return taken
                if gate.error is not None:
                    raise gate.error
                if stop.requested or (until is not None and time.monotonic() >= until):
                    return None
                process.threads.wait(gate, until)
    finally:
        for waiter in lines.values():
            process.inbox.give_up(waiter)


def _look(
    process: LayerProcess, channels: Sequence[str], normal: Sequence[str], lines: dict[str, ThreadWaiter], gate: Gate
) -> tuple[str, Taken] | None:
    """Look for a message on `channels` in their order; all normal ones at once, in one transaction."""
    inbox = process.inbox
    if len(normal) < len(channels):
        inbox.pull()
    for channel in channels:
        taken: Taken | None
        if "!" in channel:
            taken = _take_in_line(process, channel, lines, gate)
            if taken is not None:
                return channel, taken
        elif channel == normal[0]:
            taken = inbox.claims.take_one(normal)
            if taken is not None:
                return taken[0], taken
    return None


def _take_in_line(process: LayerProcess, channel: str, lines: dict[str, ThreadWaiter], gate: Gate) -> Taken | None:
    """Take what a place in the line was woken for, or stand in it."""
    waiter = lines.get(channel)
    if waiter is not None and not waiter.woken:
        return None
    if waiter is not None:
        del lines[channel]
        taken = process.inbox.take_woken(waiter)
        if taken is not None:
            return taken
    found = process.inbox.take_or_wait(channel, ThreadWaiter, gate)
    if not isinstance(found, ThreadWaiter):
        return found
    lines[channel] = found
    return None
