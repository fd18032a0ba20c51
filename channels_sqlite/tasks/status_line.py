"""What `channels_worker --verbosity 2` says of its work: how much waits and runs, and what has become of the rest.

On a terminal that is one line, which is written over again and again; elsewhere a line of the log every so often.
Worker processes tell their parent of each task that has ended in one byte on a pipe, which never makes them wait.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TextIO

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.kinds import TaskState
from channels_sqlite.tasks.aside import opened_store
from channels_sqlite.tasks.backend import SqliteTaskBackend

__all__ = ["ERASE", "Ends", "Seen", "StatusLine", "look_at_queues", "tell_end"]

logger = logging.getLogger(__name__)

ERASE = "\r\x1b[K"  # to the line's beginning, and clear it
REWRITE_S = 0.4  # on a terminal; the parent looks around twice a second
LOG_EVERY_S = 10.0
RATE_OVER_S = 10.0
BYTES = {TaskState.SUCCESSFUL: b"+", TaskState.FAILED: b"-"}


class Ends:
    """The pipe on which worker processes tell their parent of tasks that have ended."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        for end in (self._reading, self.writing):  # of what does not fit nobody hears: nobody waits for a status line
            os.set_blocking(end, False)

    def take(self) -> tuple[int, int]:
        """Return how many tasks have succeeded and failed since the last call."""
        told = b""
        with suppress(BlockingIOError):
            while more := os.read(self._reading, 65536):
                told += more
        return told.count(BYTES[TaskState.SUCCESSFUL]), told.count(BYTES[TaskState.FAILED])

    def close(self) -> None:
        """Close both ends here."""
        os.close(self._reading)
        os.close(self.writing)


def tell_end(writing: int, state: int) -> None:
    """In a worker process: tell of a task that has come to `state`, where that is an end."""
    byte = BYTES.get(TaskState(state))
    if byte is not None:
        with suppress(OSError):  # the pipe is full, or the parent is dead
            os.write(writing, byte)


class Seen(NamedTuple):
    """The queues of a command at one moment."""

    waiting: int  # due, and not claimed yet
    running: int  # in all workers there are


def look_at_queues(backend: SqliteTaskBackend, queues: Sequence[str]) -> Seen | None:
    """Count the tasks of some queues; None where the database cannot be read now, which workers tell of."""
    now = time.time()
    try:
        with opened_store(backend) as (store, _):
            return Seen(
                sum(store.count_due(backend.alias, queue, now) for queue in queues),
                sum(store.count_running(backend.alias, queue) for queue in queues),
            )
    except (sqlite3.Error, ChannelDatabaseError):
        return None


class StatusLine:
    """Says from time to time how things stand."""

    def __init__(
        self,
        look: Callable[[], Seen | None],
        ends: Ends | None,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ends`: None where there is no such pipe; `stream`: standard error by default; `clock`: in seconds."""
        self._look = look
        self._ends = ends
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self.on_terminal = self._stream.isatty()
        self._done = self._failed = 0
        self._next_at = clock()
        self._totals = deque([(clock(), 0)])  # (time, how many had ended), of the last RATE_OVER_S

    @property
    def descriptor(self) -> int | None:
        """What worker processes write to."""
        return None if self._ends is None else self._ends.writing

    def tick(self) -> None:
        """Say how things stand, if it is time."""
        now = self._clock()
        if now >= self._next_at:
            self._next_at = now + (REWRITE_S if self.on_terminal else LOG_EVERY_S)
            self._say(now)

    def close(self) -> None:
        """Say it for the last time."""
        self._say(self._clock())
        if self.on_terminal:
            self._stream.write("\n")
            self._stream.flush()
        if self._ends is not None:
            self._ends.close()

    def _say(self, now: float) -> None:
        text = self._text(now)
        if self.on_terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write(ERASE + text[: columns - 1])  # a full line would begin another one
            self._stream.flush()
        else:
            logger.info("%s", text)

    def _text(self, now: float) -> str:
        seen = self._look()
        parts = [f"{seen.waiting} waiting", f"{seen.running} running"] if seen else ["the database cannot be read"]
        if self._ends is not None:
            done, failed = self._ends.take()
            self._done += done
            self._failed += failed
            parts += [f"{self._done} done", f"{self._failed} failed", f"{self._rate(now):.1f}/s"]
        return ", ".join(parts)

    def _rate(self, now: float) -> float:
        """Return how many tasks have ended in a second, of late."""
        self._totals.append((now, self._done + self._failed))
        while len(self._totals) > 2 and now - self._totals[1][0] >= RATE_OVER_S:
            self._totals.popleft()
        (since, before), (_, total) = self._totals[0], self._totals[-1]
        return (total - before) / (now - since) if now > since else 0.0
