"""An event stream: the body of one response.

It is an object and no generator, for who is told that a client is gone are others: Django cancels the task that
iterates, wherever that waits just then, and closes the response. Each of the two ends the stream, at once and in any
order: the channel leaves its groups without anybody who waits for that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from channels_sqlite.concurrency.loops import call_in, call_soon_in, resolve
from channels_sqlite.exceptions import ChannelDatabaseError, LayerClosedError
from channels_sqlite.sse import fields
from channels_sqlite.sse.sources import POSITION, Caught, Event, Source

__all__ = ["EventStream"]

logger = logging.getLogger(__name__)

MOST_EVENTS = 100  # in one chunk: other tasks have their turn after that
CHUNK_BYTES = 64 * 1024


class EventStream:
    """An asynchronous iterator of chunks, each of whole events. It is iterated once, in one event loop."""

    def __init__(
        self,
        source: Source,
        *,
        since: str | None,
        last: int | None,
        encode: Callable[[Any], object] | None,
        heartbeat_s: float,
        name: str,
    ) -> None:
        """`since` and `last` are about the beginning; `name` is what the log calls it."""
        self._source = source
        self._since = since
        self._last = last
        self._encode = encode
        self._heartbeat_s = heartbeat_s
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None  # once it has begun
        self._iterating: asyncio.Task[Any] | None = None  # who asked for a chunk last
        self._waiting: asyncio.Future[None] | None = None  # for what comes
        self._ahead: deque[Event | bytes] = deque()  # what comes before the live messages
        self._position: str | None = None  # up to which all is said, or lies ahead
        self._beats_at = 0.0  # monotonic
        self._renews_at = 0.0  # monotonic; infinite where nothing is to be renewed
        self._ran_on = False  # the last chunk was there without waiting
        self._last_was_said = False
        self._over = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk. Cancelled here, as when the client is gone, the stream is over."""
        chunk: bytes | None = None
        try:
            if not self._over:
                self._note_task()
                chunk = await self._next()
        except LayerClosedError:
            logger.debug("%s ended: the channel layer was closed", self._name)
        except ChannelDatabaseError as error:
            logger.error("%s ended: %s", self._name, error)  # noqa: TRY400  # it says what to do
        except Exception:
            logger.exception("%s ended", self._name)  # some servers do not get over what raises in a response
        except BaseException:
            self._end()
            raise
        if chunk is None or self._over:
            self._end()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """End the stream."""
        self._end()

    def close(self) -> None:
        """End the stream, in any thread: Django's response calls this."""
        if self._loop is None:
            self._over = True
        else:
            call_in(self._loop, self._end)

    def __del__(self) -> None:
        # Whoever wrapped it has dropped it. The garbage collector may have come while this thread holds any lock.
        if self._loop is not None and not self._over:
            call_soon_in(self._loop, self._source.leave)

    # The end

    def _note_task(self) -> None:
        """See that the stream ends with the task that iterates, should that be cancelled while it sends a chunk."""
        task = asyncio.current_task()
        if task is not self._iterating:
            self._forget_task()
            self._iterating = task
            if task is not None:
                task.add_done_callback(self._end_with)

    def _forget_task(self) -> None:
        if self._iterating is not None:
            self._iterating.remove_done_callback(self._end_with)
            self._iterating = None

    def _end_with(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._end()

    def _end(self) -> None:
        """In the stream's event loop; any number of times."""
        self._over = True
        self._forget_task()
        self._ahead.clear()
        if self._loop is not None:
            self._source.leave()
        if self._waiting is not None:
            resolve(self._waiting, None)

    # Chunks

    async def _next(self) -> bytes | None:
        """Return the next chunk, or None where there is none any more."""
        if self._loop is None:
            await self._begin()
        elif self._ran_on:
            await asyncio.sleep(0)  # where neither the client nor the layer keeps it waiting, others have their turn
        while not self._over:
            self._ran_on = True
            now = time.monotonic()
            if now >= self._beats_at:
                self._beats_at = now + self._heartbeat_s
                return fields.COMMENT
            chunk: bytes | None
            if self._ahead:
                chunk = self._say_ahead()
            elif self._last_was_said:
                return None
            elif self._source.missed():
                if not self._source.keeps_all:
                    logger.info("%s ended: its client is too slow, and messages were dropped", self._name)
                    return None
                await self._join(self._position)
                continue
            elif now >= self._renews_at:
                await self._join(self._position)
                continue
            else:
                chunk = self._say_live()
            if chunk:
                return chunk
            if chunk is None:
                await self._wait(min(self._beats_at, self._renews_at) - now)
        return None

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._beats_at = time.monotonic() + self._heartbeat_s
        await self._source.open()
        self._ahead.append(fields.COMMENT)  # some servers send no headers before there is a body
        await self._join(self._since, self._last)

    async def _join(self, since: str | None, last: int | None = None) -> None:
        """Join the groups, or renew that, and put ahead what comes before the live messages."""
        try:
            caught = await self._source.join(since, last)
        finally:
            if self._over:  # ended meanwhile, it may have left before it has joined
                self._source.leave()
        every_s = self._source.renew_every_s
        self._renews_at = float("inf") if every_s is None else time.monotonic() + every_s
        self._put_ahead(caught)

    def _put_ahead(self, caught: Caught) -> None:
        position = self._position = caught.position
        if position is None:
            return
        if not caught.recovered:
            self._ahead.append(fields.reset(position))
        self._ahead.extend(caught.events)
        self._ahead.append(fields.id_only(position))

    def _say_ahead(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._ahead and len(parts) < MOST_EVENTS and size < CHUNK_BYTES:
            one = self._ahead.popleft()
            parts.append(one if isinstance(one, bytes) else self._say(one))
            size += len(parts[-1])
        return b"".join(parts)

    def _say_live(self) -> bytes | None:
        """Return what there is of live messages; where there is nothing, stand in line for it and return None."""
        parts: list[bytes] = []
        size = 0
        while not self._last_was_said and len(parts) < MOST_EVENTS and size < CHUNK_BYTES:
            message = self._source.take()
            if message is None:
                if parts or self._source.missed():
                    break
                return None
            position = message.pop(POSITION, None)
            if self._source.missed():
                # Something before this one is missing. It is read again together with that, or lost with it.
                if position is None and self._source.keeps_all:
                    parts.append(self._say(Event(message, None)))
                break
            if position is not None:
                self._position = position
            parts.append(self._say(Event(message, position)))
            size += len(parts[-1])
        return b"".join(parts)

    def _say(self, one: Event) -> bytes:
        """Return an event; or, where it cannot be said, what has the client go on behind it after the stream's end."""
        try:
            return fields.event(one.message, one.position, self._encode)
        except fields.UnsayableError as error:
            logger.error("%s ended: %s", self._name, error)  # noqa: TRY400  # it says where
        except Exception:
            logger.exception("%s ended: encode() has failed", self._name)
        self._last_was_said = True
        self._ahead.clear()
        return b"" if one.position is None else fields.id_only(one.position)

    async def _wait(self, timeout_s: float) -> None:
        self._ran_on = False
        self._waiting = arrived = self._source.arrival()
        try:
            await asyncio.wait((arrived,), timeout=max(0.0, timeout_s))
        finally:
            self._waiting = None
        if arrived.done() and not arrived.cancelled():
            arrived.exception()  # raised by take() as well
