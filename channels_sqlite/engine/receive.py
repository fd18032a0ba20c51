"""Receiving: how a coroutine waits for a message, and how a thread does.

Both take what is there, or stand in line and look again once they are woken; see `delivery.lines`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from channels_sqlite import names
from channels_sqlite.codec import Message, UndecodableError, is_flat
from channels_sqlite.concurrency import endings
from channels_sqlite.concurrency.gate import Gate, Stop
from channels_sqlite.concurrency.loops import call_soon_in
from channels_sqlite.concurrency.reentry import exclusive
from channels_sqlite.delivery.diffs import message_of
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.delivery.lines import Taken
from channels_sqlite.delivery.waiters import LoopWaiter, ThreadWaiter
from channels_sqlite.engine.engine import Engine
from channels_sqlite.exceptions import LayerClosedError

__all__ = ["CoroutineReceiver", "Line", "decode", "giving_up", "wait_in_thread"]


def decode(engine: Engine, channel: str, full_name: str, entry: Entry) -> Message | None:
    """Decode what was taken for a receiver on `channel`; None, and a line in the log, when that cannot be done."""
    template = entry.template
    if template is None:
        try:
            if entry.diff_of is None:
                message = engine.codec.decode(entry.payload)
            else:
                diff = message_of(entry.payload, engine.info)
                if diff is None:  # encryption makes infos different that look the same
                    return None
                message = diff
        except UndecodableError as error:
            engine.reports.undecodable(entry.id, str(error))
            return None
        if entry.position:
            message["__position__"] = entry.position
        if entry.shared and is_flat(message):
            entry.template = message.copy()
    else:
        message = template.copy()
    engine.reports.counters.received += 1
    if channel != full_name:
        message["__asgi_channel__"] = full_name
    return message


# Coroutines


class CoroutineReceiver:
    """The `receive` of a layer, which is itself in the line: one coroutine fewer for each message."""

    _engine: Engine | None

    def _here(self) -> Engine:
        """Return what the layer has in this process."""
        raise NotImplementedError

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
        try:
            engine = self._engine
            if engine is None or type(channel) is not str or engine.inbox.lines_of(channel).find(channel) is None:
                names.require_channel_name(channel)
                engine = self._here()
                engine.require_own(channel)
            if not engine.can_receive():
                await engine.ready_to_receive()  # cancelled here, nothing has been taken
            inbox = engine.inbox
            lines = inbox.lines_of(channel)
            loop = asyncio.get_running_loop()
            while True:
                found = inbox.take_or_wait(channel, LoopWaiter, loop)
                taken: Taken | None
                if isinstance(found, LoopWaiter):
                    waiter = found
                    watch = engine.watches.of(loop)
                    watch.waiting += 1
                    try:
                        if not watch.active:
                            watch.start()
                            inbox.reader.pull()  # what came before this loop watched
                        elif "!" not in channel:
                            inbox.claims.look(channel)
                        # Cancelled here, this receiver has taken nothing: what it was woken for stays in the mailbox.
                        await waiter.future
                    except GeneratorExit:
                        # Destroyed, maybe by the garbage collector, which comes while this thread holds any lock. What
                        # is of a closed loop the sweep finds.
                        call_soon_in(loop, lines.give_up, waiter)
                        raise
                    except BaseException as error:
                        lines.give_up(waiter, cancelled=isinstance(error, asyncio.CancelledError))
                        raise
                    finally:
                        watch.waiting -= 1
                    taken = lines.take_woken(waiter)
                    if taken is None:  # another receiver was quicker
                        continue
                else:
                    taken = found
                message = decode(engine, channel, *taken)
                if message is not None:
                    return message
        except LayerClosedError:
            if not endings.thread_ends_unasked():
                raise
            # It was on its way to wait; those who waited were not told, and neither is this one.
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]


class Line:
    """A place in the line of one process-specific channel, for a coroutine that waits for something else as well.

    Nothing is taken before it is asked for: what comes meanwhile, or after the end, stays where it is.
    """

    def __init__(self, engine: Engine, channel: str) -> None:
        """`channel` is one of the engine's own. In the event loop of whoever waits."""
        self._engine = engine
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._watch = engine.watches.of(self._loop)
        self._waiter: LoopWaiter | None = None

    def take(self) -> Message | None:
        """Take the next message, or stand in line and return None. Raises LayerClosedError."""
        boxes = self._engine.inbox.boxes
        while True:
            waiter = self._waiter
            taken: Taken | None
            if waiter is None:
                taken = self._take_or_wait()
                if taken is None:
                    return None
            elif waiter.woken:
                self._forget()
                taken = boxes.take_woken(waiter)
                if taken is None:  # it has expired
                    continue
            elif boxes.stands(waiter):
                return None
            else:  # it came too late for what it was woken for, or nobody receives here any more
                self._forget()
                continue
            message = decode(self._engine, self._channel, *taken)
            if message is not None:
                return message

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done once there is something to take, or failed once there will be nothing any more.

        Whoever waits may have it be done for other reasons.
        """
        waiter = self._waiter
        assert waiter is not None, "take() was not called, or has found something"  # noqa: S101  # for mypy
        if waiter.future.done() and waiter.future.exception() is None:
            waiter.future = self._loop.create_future()
            # Another thread that was about to wake it has marked it before.
            if waiter.woken or not self._engine.inbox.boxes.stands(waiter):
                waiter.future.set_result(None)
        return waiter.future

    def leave(self, *, soon: bool = False) -> None:
        """Leave the line. `soon`: not in this call, in which the garbage collector may have come by."""
        waiter = self._waiter
        if waiter is None:
            return
        self._forget()
        boxes = self._engine.inbox.boxes
        if soon:
            call_soon_in(self._loop, boxes.give_up, waiter)
        else:
            boxes.give_up(waiter, cancelled=True)

    def _take_or_wait(self) -> Taken | None:
        inbox = self._engine.inbox
        found = inbox.take_or_wait(self._channel, LoopWaiter, self._loop)
        if not isinstance(found, LoopWaiter):
            return found
        self._waiter = found
        self._watch.waiting += 1
        if not self._watch.active:
            self._watch.start()
            inbox.reader.pull()  # what came before this loop watched
        return None

    def _forget(self) -> None:
        waiter, self._waiter = self._waiter, None
        self._watch.waiting -= 1
        if waiter is not None and waiter.future.done() and not waiter.future.cancelled():
            waiter.future.exception()  # whoever comes back only now is told by `take`


# Threads


def giving_up(until: float | None, stop: Stop) -> Callable[[], bool]:
    """Return what says whether the monotonic time `until` has come, or `stop` was requested."""
    return lambda: stop.requested or (until is not None and time.monotonic() >= until)


def wait_in_thread(
    engine: Engine, channels: Sequence[str], until: float | None, stop: Stop
) -> tuple[str, Taken] | None:
    """Wait for a message on one of `channels`, the first that has one, and return both.

    None: there was none until the monotonic time `until`, or `stop` was requested. The thread stands in line for the
    process-specific channels, and is told of the normal ones.
    """
    gate = stop.gate
    lines: dict[str, ThreadWaiter] = {}
    normal = [channel for channel in channels if "!" not in channel]
    give_up = giving_up(until, stop)
    try:
        with engine.inbox.claims.watched(normal, gate):
            while True:
                gate.shut()
                with exclusive:
                    taken = _look(engine, channels, lines, gate, give_up)
                if taken is not None:
                    return taken
                if gate.error is not None:
                    raise gate.error
                if give_up():
                    with exclusive:
                        return None if stop.requested else _look_once_more(engine, channels, lines, gate)
                engine.watches.threads.wait(gate, until)
    finally:
        with exclusive:
            for waiter in lines.values():
                engine.inbox.boxes.give_up(waiter)


def _look(
    engine: Engine,
    channels: Sequence[str],
    lines: dict[str, ThreadWaiter],
    gate: Gate,
    give_up: Callable[[], bool],
) -> tuple[str, Taken] | None:
    """Look for a message on `channels` in their order; all normal ones at once, in one transaction."""
    inbox = engine.inbox
    normal = [channel for channel in channels if "!" not in channel]
    if len(normal) < len(channels):
        inbox.reader.pull()
    for channel in channels:
        taken: Taken | None
        if "!" in channel:
            taken = _take_in_line(engine, channel, lines, gate)
            if taken is not None:
                return channel, taken
        elif channel == normal[0]:
            taken = inbox.claims.take_one(normal, give_up)
            if taken is not None:
                return taken[0], taken
    return None


def _look_once_more(
    engine: Engine, channels: Sequence[str], lines: dict[str, ThreadWaiter], gate: Gate
) -> tuple[str, Taken] | None:
    """Look for what another thread may have been about to read, before it is said that nothing is there."""
    specific = [channel for channel in channels if "!" in channel]
    if specific:
        engine.inbox.reader.pull_now()
    for channel in specific:
        taken = _take_in_line(engine, channel, lines, gate)
        if taken is not None:
            return channel, taken
    return None


def _take_in_line(engine: Engine, channel: str, lines: dict[str, ThreadWaiter], gate: Gate) -> Taken | None:
    """Take what a place in the line was woken for, or stand in it."""
    waiter = lines.get(channel)
    if waiter is not None and not waiter.woken:
        return None
    if waiter is not None:
        del lines[channel]
        taken = engine.inbox.boxes.take_woken(waiter)
        if taken is not None:
            return taken
    found = engine.inbox.take_or_wait(channel, ThreadWaiter, gate)
    if not isinstance(found, ThreadWaiter):
        return found
    lines[channel] = found
    return None
