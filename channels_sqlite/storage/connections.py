"""The file that one layer has open in one process: its connections, whether they are sound, and opening them anew.

SQLite's connections are used under two locks, which a fork takes first: `writing` for those that write, `reading` for
the one that reads.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from channels_sqlite.concurrency.loops import running_loop
from channels_sqlite.exceptions import ChannelDatabaseError, LayerClosedError
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.processes.sharing import share_wal
from channels_sqlite.reports import Reports
from channels_sqlite.storage.database import Database
from channels_sqlite.storage.errors import explain, explaining_os
from channels_sqlite.storage.lost_ids import skip_lost_ids
from channels_sqlite.storage.store import Store

__all__ = ["Connections", "OpenConnection", "OpenDatabase", "Opened"]

logger = logging.getLogger(__name__)

REPLACED_CHECK_S = 1.0


@dataclass(frozen=True)
class OpenConnection:
    """A connection and its statements. Only one thread at a time may use either."""

    raw: sqlite3.Connection
    store: Store


def _busy_timeout_s(connection: sqlite3.Connection) -> float:
    """Return the busy time-out that OPTIONS left this connection with, in seconds."""
    milliseconds: int = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    return milliseconds / 1000


class Connections:
    """The connections of one layer in one process: `inline` and `reader` never wait, `patient` belongs to the thread.

    `inline` writes on event loops, `reader` reads there, and `patient` is used by the background thread alone. All are
    opened together and closed together, because together they see one file.
    """

    def __init__(self, alias: str, prefix: str) -> None:
        """Open them; errors as `Database.connect`, and ChannelDatabaseError where tables are missing."""
        self._database = Database(alias)
        self._configured = self._database.configured
        self._name = str(self._configured)
        self._opened: list[sqlite3.Connection] = []
        try:
            self.patient = self._open(prefix)
            self.busy_timeout_s = _busy_timeout_s(self.patient.raw)
            self.inline = self._open(prefix)
            self.reader = self._open(prefix)
            for connection in self._opened:
                connection.execute("PRAGMA busy_timeout=0")  # waiting is done in Python, where it can be given up
            self.patient.store.probe()
            self.path: str = self.patient.raw.execute("PRAGMA database_list").fetchone()[2]
            share_wal(self.path)  # made by now, for others to open as well
            skip_lost_ids(self.patient.raw, self.patient.store, self.path, self.busy_timeout_s)
            self.identity = _file_identity(self.path)
            journal_mode: str = self.patient.raw.execute("PRAGMA journal_mode").fetchone()[0]
            self.wal = journal_mode == "wal"
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise explain(error, self._name, alias) from error
            raise

    def _open(self, prefix: str) -> OpenConnection:
        raw = self._database.connect()
        self._opened.append(raw)
        return OpenConnection(raw, Store(raw, prefix))

    def renamed(self) -> bool:
        """Whether the alias now points elsewhere, as when a test run begins or ends."""
        configured = self._database.configured
        return configured is not self._configured and str(configured) != self._name

    def replaced(self) -> bool:
        """Whether the file at the path is no longer the one that is open."""
        return bool(self.path) and _file_identity(self.path) != self.identity

    def explain(self, error: sqlite3.Error) -> ChannelDatabaseError:
        """Return an error that tells the user what to do about `error`."""
        return explain(error, self._name, self._database.alias)

    def describe(self) -> str:
        """Name the database for messages."""
        return f"{self._name!r} (DATABASES[{self._database.alias!r}])"

    def close(self) -> None:
        """Close all; in the process that opened them, and when no thread uses one."""
        while self._opened:
            self._opened.pop().close()


def _file_identity(path: str) -> tuple[int, int] | None:
    """Return device and inode, or None when there is no such file. Never opens it: that would drop SQLite's locks."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Opened(NamedTuple):
    """What `OpenDatabase.open` has opened."""

    connections: Connections
    place: MeetingPlace  # where the processes that share the file meet
    same_file: bool  # it was open before
    since: float  # seconds since 1970: when the file that was open before was last seen at its path


class OpenDatabase:
    """Knows whether the open file can be used, and opens it anew. `connections` may be used under their locks alone.

    Any thread may ask; `open` and `close` are for the background thread.
    """

    def __init__(self, alias: str, prefix: str, reports: Reports) -> None:
        self._alias = alias
        self._prefix = prefix
        self._reports = reports
        self.connections: Connections | None = None
        self.place: MeetingPlace | None = None  # of the file that was opened last
        # Guards `inline` and `patient`; held for a transaction and what follows its commit. Inside `reading` may be
        # waited for, and the locks of what is written and delivered. Event loops only ever try for it.
        self.writing = threading.Lock()
        # Guards `reader`; held for one step of reading. Inside the locks of claims and members may be waited for. Who
        # wants to read only ever tries for it, but for queries and for threads that would find nothing.
        self.reading = threading.Lock()
        self.on_opened: list[Callable[[Opened], object]] = []  # called in turn, on the background thread
        self._broken = False
        self._closed = False
        self._identity: tuple[int, int] | None = None  # of the file that was opened last
        self._checked_at = 0.0  # monotonic seconds
        self._last_sound_at = time.time()  # when the open file was last seen to be the one at its path

    def is_sound(self) -> bool:
        """Whether the connections can be used, and the file that they have open is still the one at the path."""
        connections = self.connections
        if connections is None or self._broken or connections.renamed():
            return False
        now = time.monotonic()
        if now - self._checked_at >= REPLACED_CHECK_S:
            if connections.replaced():
                return False
            self._checked_at = now
            self._last_sound_at = time.time()
        return True

    def doubt(self) -> None:
        """Have the connections opened anew at the next use."""
        self._broken = True

    def failed(self, error: sqlite3.Error) -> None:
        """Likewise, and report it: this error may be the connections', or the file's."""
        self.doubt()
        self._reports.failed("using the database", error)

    def open(self) -> None:
        """Make sure of sound connections. Errors as `Connections`; LayerClosedError after `refuse`."""
        if self.is_sound():
            return
        if self._closed:
            raise LayerClosedError("the channel layer was closed")
        if running_loop() is not None:  # there is no thread for this job, and Django opens nothing on an event loop
            raise LayerClosedError(
                "the interpreter is ending: the channel layer's async methods need a thread, which cannot be started "
                "any more; call the sync facade, get_sync_channel_layer(), where no event loop runs"
            )
        since, before = self._last_sound_at, self._identity
        if self.connections is not None:
            if not self._broken and not self.connections.renamed():
                logger.warning("the database was replaced or removed while in use; opening it anew")
            self.close()
        with explaining_os("opening what the channel layer needs"):
            connections = Connections(self._alias, self._prefix)
            try:
                self.place = MeetingPlace(connections.path)
            except BaseException:
                connections.close()
                raise
        self._identity = connections.identity
        self._use(connections)
        self._broken = False
        self._checked_at = time.monotonic()
        self._last_sound_at = time.time()
        same_file = before is not None and before == connections.identity
        for tell in self.on_opened:
            tell(Opened(connections, self.place, same_file, since))

    def _use(self, connections: Connections | None) -> None:
        with self.writing, self.reading:
            self.connections = connections

    def refuse(self) -> None:
        """Open nothing any more."""
        self._closed = True

    def close(self) -> None:
        """Close the connections, when nobody uses one."""
        old = self.connections
        if old is None:
            return
        self._use(None)
        try:
            old.close()
        except sqlite3.Error as error:
            logger.warning("closing the database: %s", error)
