"""Standing in line for messages, and taking them.

A message stays in its box until a `receive()` takes it, in the same step in which it returns. Waking a receiver is a
hint and hands over nothing, so that a receiver which is cancelled, or whose loop ends, can lose nothing: what it was
woken for still lies there for the next.

Threads: everything may be called from any thread. `_lock` is held for memory operations alone, and nothing is locked
inside it; receivers are notified once it is released.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.delivery.mailbox import Box, Waiter
from channels_sqlite.exceptions import LayerClosedError

__all__ = ["Lines", "Taken"]

B = TypeVar("B", bound=Box)
C = TypeVar("C")
W = TypeVar("W", bound=Waiter)

Taken = tuple[str, Entry]
"""A message on its way out: the full name of its channel, and the entry."""


class Lines(Generic[B]):
    """The boxes of one kind of channels, by channel; a sweep forgets those in which nothing is left."""

    def __init__(self) -> None:
        # Guards all that is here and in those who derive from this; nothing is waited for inside.
        self._lock = threading.Lock()
        self._boxes: dict[str, B] = {}
        self.find: Callable[[str], B | None] = self._boxes.get
        """Returns the box of a channel; only valid channels, which may be received on here, have one."""
        self._closed = False  # nobody receives here any more
        self.on_left: Callable[[str], object] = self.wake
        """Called when a receiver has left a channel: what it was woken for is another's."""

    def _box_of(self, channel: str) -> B:
        """Return the box of `channel`, made if need be."""
        raise NotImplementedError

    # Receiving

    def take_or_wait(self, channel: str, new_waiter: Callable[[str, C], W], context: C) -> Taken | W:
        """Take the next message for `channel`, or stand in line for it with a `new_waiter(channel, context)`.

        The caller ends waiting with `take_woken` or `give_up`. Raises LayerClosedError once nobody receives any more.
        """
        with self._lock:
            if self._closed:
                raise LayerClosedError("the channel layer was closed")
            box = self._boxes.get(channel)
            if box is not None and box.entries:
                entry = self._take(box, time.time(), woken=False)
                if entry is not None:
                    return channel, entry
            waiter = new_waiter(channel, context)
            self._add_waiter(waiter)
            return waiter

    def take_woken(self, waiter: Waiter) -> Taken | None:
        """Leave the line and take the message that `waiter` was woken for; None when another receiver has it."""
        with self._lock:
            self._remove_waiter(waiter)
            box = self._boxes.get(waiter.channel)
            entry = None if box is None else self._take(box, time.time(), woken=waiter.woken)
        return None if entry is None else (waiter.channel, entry)

    def give_up(self, waiter: Waiter, *, cancelled: bool = False) -> None:
        """Leave the line without a message; one that this waiter was woken for goes to the next.

        `cancelled`: its caller was, and may never come back.
        """
        with self._lock:
            self._remove_waiter(waiter)
            if cancelled:
                self._note_cancelled(waiter.channel)
        self.on_left(waiter.channel)

    def stands(self, waiter: Waiter) -> bool:
        """Return whether `waiter` stands in line for what may still come."""
        with self._lock:
            return not self._closed and waiter.box is not None and waiter in waiter.box.waiters

    def shut(self) -> list[Waiter]:
        """Let nobody receive any more; return who waits."""
        with self._lock:
            self._closed = True
            return [waiter for box in self._boxes.values() for waiter in box.waiters]

    def wake(self, channel: str) -> None:
        """Notify receivers for the messages that lie there."""
        with self._lock:
            waiters = [] if self._closed else self._wakeable(channel)
        self._notify(waiters)

    def abandon(self) -> None:
        """In a forked child: a thread of the parent may hold the lock for ever."""
        self._lock = threading.Lock()

    # Under the lock

    def _take(self, box: B, now: float, *, woken: bool) -> Entry | None:
        """Take the oldest unexpired message of a box.

        A receiver that was not woken (`woken` is False) leaves the messages that others have been woken for.
        """
        entries = box.entries
        if entries and entries[0].expires_at <= now:
            self._drop_expired(box, now)
        if not entries or (not woken and len(entries) <= box.woken and not self._evict_gone(box)):
            return None
        return entries.popleft()

    def _drop_expired(self, box: B, now: float) -> None:
        raise NotImplementedError

    def _add_waiter(self, waiter: Waiter) -> B:
        waiter.box = box = self._box_of(waiter.channel)
        box.waiters[waiter] = None
        return box

    def _remove_waiter(self, waiter: Waiter) -> None:
        """Take `waiter` out of the line, where it stands there."""
        box = self._boxes.get(waiter.channel)
        if box is not None:
            box.remove(waiter)

    def _evict(self, box: B, gone: Callable[[Waiter], bool]) -> bool:
        """Take the waiters that are `gone` out of the line; return whether there were any."""
        return box.evict(gone)

    def _note_cancelled(self, channel: str) -> None:
        """Note that a receiver was cancelled, and is out of the line."""

    def _wakeable(self, channel: str) -> list[Waiter]:
        """Return the receivers to notify, marked as woken."""
        box = self._boxes.get(channel)
        return [] if box is None else box.wakeable()

    def _evict_gone(self, box: B) -> bool:
        """Take those out of the line who cannot come any more."""
        return self._evict(box, _gone)

    def _evict_stuck(self, box: B) -> bool:
        """Take those out of the line who were woken a sweep ago and have not come, or cannot come any more."""
        return self._evict(box, _stuck)

    # Outside of it

    def _notify(self, waiters: Iterable[Waiter]) -> None:
        here = running_loop()
        for waiter in waiters:
            if not waiter.notify(here):  # its loop is closed: the next one, please
                self.give_up(waiter)


def _gone(waiter: Waiter) -> bool:
    return waiter.gone


def _stuck(waiter: Waiter) -> bool:
    stuck = waiter.gone or waiter.late
    waiter.late = waiter.woken
    return stuck
