"""Who receives on a process-specific channel, as far as a layer can see it: so that those who died are known.

Channels' consumers await `new_channel()` in the task that runs them, and call each `receive()` in a new task of its
own, which inherits the context of the former. A consumer whose server's `send` raises ends without its `disconnect`
handler, so that nobody calls `group_discard`. Then its `receive()` was cancelled or, where it was handling a message,
had returned that message before; a consumer that takes its time over a message looks the same but for its task.

Nothing here keeps a task alive, and nothing is kept beyond the contexts of the tasks.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

__all__ = ["CANCELLED", "Consumer", "consumer_of", "note_made"]

Task = asyncio.Task[Any]  # whatever it returns


class Consumer:
    """The task that made a channel."""

    __slots__ = ("channel", "task")

    def __init__(self, channel: str, task: Callable[[], Task | None]) -> None:
        """`task` is a weak reference."""
        self.channel = channel
        self.task = task

    @property
    def ended(self) -> bool:
        """Whether it cannot receive any more."""
        task = self.task()
        return task is None or task.done()


CANCELLED = Consumer("", lambda: None)
"""Stands for whoever called a `receive()` that was cancelled; he may come back."""

_made: ContextVar[Consumer] = ContextVar("channels_sqlite_made", default=CANCELLED)


def note_made(channel: str) -> None:
    """Note that the running task has made `channel`."""
    task = asyncio.current_task()
    if task is not None:
        _made.set(Consumer(channel, weakref.ref(task)))


def consumer_of(channel: str) -> Consumer | None:
    """Return who receives on `channel` in this context: the task that made it, if that still runs."""
    consumer = _made.get()
    if consumer.channel == channel:
        task = consumer.task()  # `ended`, without a call for every message
        if task is not None and not task.done():
            return consumer
    return None
