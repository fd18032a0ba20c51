"""The channel layer: the async API of the Channel Layer Specification
(https://channels.readthedocs.io/en/stable/channel_layer_spec.html).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace

from channels.layers import BaseChannelLayer

from channels_sqlite import forks, names
from channels_sqlite.codec import Codec, Message, UndecodableError, is_flat
from channels_sqlite.counters import Counters
from channels_sqlite.inbox import Taken
from channels_sqlite.mailboxes import Entry
from channels_sqlite.options import Options
from channels_sqlite.process import LayerProcess
from channels_sqlite.waiters import LoopWaiter

__all__ = ["SqliteChannelLayer"]


class SqliteChannelLayer(BaseChannelLayer):
    """A channel layer in one SQLite file, for all processes of one machine.

    Its keyword arguments are the CONFIG options, see `Options`; faults in them raise ImproperlyConfigured. Making a
    layer opens nothing. One object serves any number of event loops and threads, and survives forks; every method may
    raise ChannelDatabaseError, which says what to do, and works again once that is done.
    """

    extensions = ["groups", "flush"]  # noqa: RUF012  # as the specification and Channels' own layer have it

    def __init__(self, **config: object) -> None:
        self.options = Options.from_config(config)
        super().__init__(expiry=self.options.expiry, capacity=self.options.capacity)
        self.channel_capacity = list(self.options.channel_capacity)
        self.group_expiry = self.options.group_expiry
        self.codec = Codec(max_message_size=self.options.max_message_size, keys=self.options.symmetric_encryption_keys)
        self._counters = Counters()
        self._process: LayerProcess | None = None
        self._making = threading.Lock()
        self._finalizer: weakref.finalize[..., SqliteChannelLayer] | None = None
        forks.register(self)
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
        payload = self.codec.encode(message)
        process = self.here()
        await process.outbox.write(process.writes.send(channel, payload), len(payload))

    async def receive(self, channel: str) -> Message:
        """Wait for the next message on `channel` and return it; the receiver's own copy.

        `channel` is a normal name, a process-specific one of this layer's own, or the part of such a name up to and
        including the `!`. In the last case the message has the full name under `__asgi_channel__`. A cancelled call
        loses nothing.

        Raises:
            TypeError: the name is invalid.
            ValueError: the name is specific to another process (or to this layer before it was closed).
            LayerClosedError: the layer was closed meanwhile.
            ChannelDatabaseError: the database could not be opened. Once waiting, a call waits on until it works again.
        """
        process = self._process
        if process is None or type(channel) is not str or process.inbox.find(channel) is None:
            names.require_channel_name(channel)
            process = self.here()
            process.require_own(channel)
        if not process.can_receive():
            await process.ready_to_receive()  # cancelled here, nothing has been taken
        loop = asyncio.get_running_loop()
        while True:
            found = process.inbox.take_or_wait(channel, LoopWaiter, loop)
            taken: Taken | None
            if isinstance(found, LoopWaiter):
                waiter = found
                watch = process.watches.of(loop)
                watch.waiting += 1
                try:
                    if not watch.active:
                        watch.start()
                        process.inbox.pull()  # what came before this loop watched
                    elif "!" not in channel:
                        process.inbox.claims.look(channel)
                    # Cancelled here, this receiver has taken nothing: what it was woken for stays in the mailbox.
                    await waiter.future
                except BaseException:
                    process.inbox.give_up(waiter)
                    raise
                finally:
                    watch.waiting -= 1
                taken = process.inbox.take_woken(waiter)
                if taken is None:  # another receiver was quicker
                    continue
            else:
                taken = found
            message = self.open(process, channel, *taken)
            if message is not None:
                return message

    def open(self, process: LayerProcess, channel: str, full_name: str, entry: Entry) -> Message | None:
        """Decode what was taken for a receiver on `channel`; None, and a line in the log, when that cannot be done."""
        template = entry.template
        if template is None:
            try:
                message = self.codec.decode(entry.payload)
            except UndecodableError as error:
                process.reports.undecodable(entry.id, str(error))
                return None
            if entry.shared and is_flat(message):
                entry.template = message.copy()
        else:
            message = template.copy()
        self._counters.received += 1
        if channel != full_name:
            message["__asgi_channel__"] = full_name
        return message

    async def new_channel(self, prefix: str = "specific") -> str:
        """Return a new channel name, `prefix.client!local`, that only this layer in this process can receive on.

        Raises TypeError where `prefix` does not make a valid name.
        """
        process = self.here()
        name = names.new_specific(prefix, process.client)
        await process.ready_to_receive()
        return name

    # Groups

    async def group_add(self, group: str, channel: str) -> None:
        """Make `channel` a member of `group` for `group_expiry` seconds, or renew its membership."""
        names.require_group_name(group)
        names.require_channel_name(channel)
        process = self.here()
        await process.outbox.write(process.writes.group_add(group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        """End the membership of `channel` in `group`, if there is one."""
        names.require_group_name(group)
        names.require_channel_name(channel)
        process = self.here()
        await process.outbox.write(process.writes.group_discard(group, channel))

    async def group_send(self, group: str, message: Mapping[str, object]) -> None:
        """Send `message` to every channel that is a member of `group` now. Full members are skipped and logged.

        Raises TypeError, ValueError, MessageTooLarge and ChannelDatabaseError as `send` does.
        """
        names.require_group_name(group)
        payload = self.codec.encode(message)
        process = self.here()
        await process.outbox.write(process.writes.group_send(group, payload), len(payload))

    async def group_channels(self, group: str) -> list[str]:
        """Return the names of the channels in `group`, sorted."""
        names.require_group_name(group)
        process = self.here()
        await process.ready()
        return await process.read(lambda store: store.group_channels(group, time.time()))

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
        process = self.here()
        await process.outbox.write(process.writes.flush)

    async def close(self) -> None:
        """End the layer's thread, connections and sockets; waiting receivers get LayerClosedError.

        Its channels leave their groups. The next call opens the layer again, under a new client name.
        """
        process = self._let_go()
        if process is not None:
            await process.close()

    def close_blocking(self) -> None:
        """Like `close`, for a thread without an event loop."""
        process = self._let_go()
        if process is not None:
            process.close_from_anywhere(wait=True)

    def _let_go(self) -> LayerProcess | None:
        with self._making:
            process, self._process = self._process, None
            finalizer, self._finalizer = self._finalizer, None
        if finalizer is not None:
            finalizer.detach()
        return process

    def here(self) -> LayerProcess:
        """Return what this layer has in this process, made if need be; nothing is opened yet."""
        process = self._process
        if process is None:
            with self._making:
                process = self._process
                if process is None:
                    process = self._process = LayerProcess(self.options, self._counters)
                    self._finalizer = weakref.finalize(self, process.close_from_anywhere, wait=False)
                    self._finalizer.atexit = False
                    _processes.add(process)
        return process

    def fork_locks(self) -> Iterable[threading.Lock]:
        """Return the locks that must be free while the process forks."""
        process = self._process
        return (self._making, *(process.fork_locks() if process is not None else ()))

    def after_fork_in_child(self) -> None:
        """Leave the parent's things alone and begin anew, under a client name of its own."""
        self._making = threading.Lock()
        self._counters = Counters()
        process, self._process = self._process, None
        if self._finalizer is not None:
            self._finalizer.detach()
            self._finalizer = None
        if process is not None:
            process.abandon()


_layers: weakref.WeakSet[SqliteChannelLayer] = weakref.WeakSet()
_processes: weakref.WeakSet[LayerProcess] = weakref.WeakSet()


def close_layers() -> None:
    """Close every layer of this process, those included that nobody has any more. The next call opens one again."""
    for layer in list(_layers):
        layer.close_blocking()
    _close_all()


@atexit.register
def _close_all() -> None:
    """Close what lives until the interpreter ends, while threads still run."""
    for process in list(_processes):
        process.close_from_anywhere(wait=True)
