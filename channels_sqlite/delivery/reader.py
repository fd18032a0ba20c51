"""The turns at the reader connection: whoever finds it taken leaves the work to its holder.

Reading after a wake-up, and when polling saw a change, takes no lock of the database and goes in steps of a few
milliseconds. What is read, and what becomes of it, is up to those who have registered.

Threads: everything may be called from any thread. `OpenDatabase.reading` is only ever tried for, but for queries,
and by threads that ask for what is there now.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.reports import Reports
from channels_sqlite.storage.connections import Connections, OpenDatabase
from channels_sqlite.storage.errors import is_busy, is_harmless
from channels_sqlite.storage.store import Store

__all__ = ["Reader", "Step"]

READ_RETRY_S = 0.001

T = TypeVar("T")


class Step(Protocol):
    """What is done in each turn."""

    def read(self, connections: Connections, *, behind: bool) -> bool:
        """Read for a few milliseconds; return whether there is more. `behind`: others may have committed something."""

    def follow(self) -> None:
        """Do what comes of it, once the turn is over."""


class Reader:
    """Who reads, and when."""

    def __init__(self, database: OpenDatabase, reports: Reports) -> None:
        self._database = database
        self._reports = reports
        self._steps: list[Step] = []
        self.wanted = False
        """There is work, for whoever holds the turn."""
        self._behind = False  # ... and it is in the database
        self._data_version = -1
        self.found = 0
        """Rows for this process, and channels to claim from, so far."""

    def register(self, step: Step) -> None:
        """Have `step` done in each turn, after those that are."""
        self._steps.append(step)

    def pull(self) -> None:
        """Bring in what is new. Never raises."""
        self._behind = True
        self.work()

    def pull_now(self) -> None:
        """Bring in all that was committed before this call: it waits for whoever is at it. Not on an event loop."""
        self.wanted = self._behind = True
        self._work(wait=True)

    def work(self) -> None:
        """Do what there is to do, unless somebody is at it, who sees that there is more. Never raises."""
        self.wanted = True
        self._work(wait=False)

    def _work(self, *, wait: bool) -> None:
        """`wait`: for the turn, until nothing is left of what was there before this call."""
        reading = self._database.reading
        while (wait or self.wanted) and reading.acquire(blocking=wait):
            more = False
            try:
                self.wanted = False
                connections = self._database.connections
                if connections is not None:
                    behind, self._behind = self._behind, False
                    for step in self._steps:
                        more = step.read(connections, behind=behind) or more
                    if more:  # known to whoever takes the turn next
                        self.wanted = self._behind = True
            except sqlite3.Error as error:
                if not is_busy(error):  # else the next poll tries again
                    self._database.failed(error)
            finally:
                reading.release()
            for step in self._steps:
                step.follow()
            wait = wait and more  # a step after which there is no more has left out nothing from before this call
            if more:
                loop = running_loop()
                if loop is not None:  # let it do something else first
                    loop.call_soon(self.work)
                    return

    def work_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Likewise, in the next iteration of the running loop, or before the next `receive()`."""
        self.wanted = True
        loop.call_soon(self.work)

    def poll(self, woken: Callable[[], bool]) -> bool:
        """Pull if another connection has committed since the last poll; `woken` says whether this process was told.

        Returns whether one has, or may have.
        """
        if not self._database.reading.acquire(blocking=False):
            return True
        changed = False
        unknown = True
        try:
            connections = self._database.connections
            if connections is not None:
                version = connections.reader.store.data_version()
                changed = version != self._data_version or not connections.wal
                self._data_version = version
                unknown = False
        except sqlite3.Error as error:
            if not is_busy(error):
                self._database.failed(error)
        finally:
            self._database.reading.release()
        if changed or self.wanted:
            told, found = self.wanted or woken(), self.found
            self.pull()
            self._reports.counters.wakeups_missed += not told and self.found != found
            return True
        return unknown

    def nobody_writes(self) -> bool:
        """Whether all that was committed before this call was there at the last poll, and no transaction is under way.

        What is committed afterwards is then written to the file afterwards as well.
        """
        if not self._database.reading.acquire(blocking=False):
            return False
        try:
            connections = self._database.connections
            if connections is None:
                return False
            connections.reader.store.lock()
            return connections.reader.store.data_version() == self._data_version
        except sqlite3.Error:  # the next poll sees what is wrong, if anything is
            return False
        finally:
            self._database.reading.release()
            if self.wanted:
                self.work()

    def query(self, query: Callable[[Store], T]) -> T:
        """Return what `query` reads. It may be held up for the length of another step."""
        try:
            with self._database.reading:
                connections = self._database.connections
                if connections is None:
                    raise ChannelDatabaseError("the channel layer's database is not open; try again")
                return query(connections.reader.store)
        finally:
            if self.wanted:  # somebody came meanwhile and left the work to the holder of the turn
                self.work()

    async def aread(self, query: Callable[[Store], T]) -> T:
        """Return what `query` reads, which is never None, without the write lock; raises ChannelDatabaseError."""
        started_at = time.monotonic()
        while (result := self._read_once(query, started_at)) is None:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(READ_RETRY_S)
        return result

    def read(self, query: Callable[[Store], T]) -> T:
        """Like `aread`, for a thread without an event loop."""
        started_at = time.monotonic()
        while (result := self._read_once(query, started_at)) is None:
            time.sleep(READ_RETRY_S)
        return result

    def _read_once(self, query: Callable[[Store], T], started_at: float) -> T | None:
        """Return what `query` reads; None where the database is locked, which is worth another try."""
        connections = self._database.connections
        try:
            return self.query(query)
        except sqlite3.Error as error:
            if connections is None:
                raise
            # Busy only where WAL is not in use.
            if not is_busy(error) or time.monotonic() - started_at >= connections.busy_timeout_s:
                if not is_harmless(error):
                    self._database.doubt()
                raise connections.explain(error) from error
            return None
