"""Opening and tuning connections to the alias's database, and noticing when its file was replaced.

Connections come from Django's own parameters, so that OPTIONS, test databases and custom backends count. Opening takes
milliseconds and may wait for a lock: never do it on an event loop (Django refuses there as well).
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.backends.sqlite3.creation import DatabaseCreation
from django.utils.connection import ConnectionDoesNotExist

from channels_sqlite.exceptions import ChannelDatabaseError, UnusableAliasError
from channels_sqlite.storage import isolation
from channels_sqlite.storage.errors import explain, is_busy, migrate_command, why_migrate_fails

__all__ = ["Database", "has_wal_reset_bug", "require_sqlite"]


OLDEST_SQLITE = (3, 35, 0)  # RETURNING, https://www.sqlite.org/lang_returning.html
WAL_SIZE_LIMIT_BYTES = 16 * 1024 * 1024
OPEN_RETRY_S = 0.01
REFUSED_PRAGMAS = {
    "query_only": (("1", "on", "yes", "true"), "with which nothing can be sent or received"),
    "locking_mode": (("exclusive",), "with which one connection keeps all others out, and a layer has several"),
}
"""The pragmas with which no layer works: the values that are refused, and why."""

_PRAGMA = re.compile(r"\bPRAGMA\s+(?:\w+\s*\.\s*)?(\w+)\s*[=(]\s*['\"]?(\w+)", re.IGNORECASE)
DJANGO_TIMEOUT_S = 5.0  # of sqlite3.connect, where OPTIONS has none


class Database:
    """What DATABASES[alias] points at now."""

    def __init__(self, alias: str) -> None:
        try:
            self.settings = connections.settings[alias]
        except (KeyError, ConnectionDoesNotExist):
            known = ", ".join(map(repr, connections.settings))
            raise UnusableAliasError(
                f"a channel layer uses the database alias {alias!r}, which DATABASES does not have (it has {known})",
                'add it, or set "database" in the layer\'s CONFIG',
            ) from None
        self.alias = alias

    @property
    def configured(self) -> object:
        """NAME as it stands now, which test runners change, or the database of the test in hand; see `isolation`."""
        return isolation.database_of(self.alias) or self.settings["NAME"]

    @property
    def name(self) -> str:
        """The same as text."""
        return str(self.configured)

    @property
    def path(self) -> str:
        """The path of the file, which need not exist; "" when the database is in memory."""
        name = self.name
        if DatabaseCreation.is_in_memory_db(name):
            return ""
        return unquote(urlsplit(name).path) if name.startswith("file:") else name

    def connect(self) -> sqlite3.Connection:
        """Open one connection in autocommit mode, with what the user's OPTIONS say and what the layer needs beyond.

        Raises:
            ImproperlyConfigured: the alias is no usable SQLite database.
            ChannelDatabaseError: the file is missing or cannot be opened.
        """
        require_sqlite()
        wrapper = self.require_engine()
        self.require_file()
        self.require_sharing()
        name = self.name
        if isolation.is_active():
            isolation.provide(name)
        elif isolation.in_test_run() and not self.is_of_tests():
            warnings.warn(
                f"the channel layer uses the real database {name!r} (DATABASES[{self.alias!r}]) in a test run; give "
                f"each test one of its own with {isolation.REMEDY}, or name {self.alias!r} in the `databases` of the "
                f"test case",
                RuntimeWarning,
                stacklevel=2,
            )
        if not name.startswith("file:") and not os.path.exists(name):  # SQLite would make an empty one
            raise ChannelDatabaseError(
                f"the channel layer's database {name!r} (DATABASES[{self.alias!r}]) does not exist; run "
                f'"{migrate_command(self.alias)}"{why_migrate_fails()}'
            )
        params = wrapper.get_connection_params()
        params["database"] = name
        params["detect_types"] = 0  # the layer's columns need no converters
        deadline = time.monotonic() + float(params.get("timeout", DJANGO_TIMEOUT_S))
        while True:
            try:
                return self._connect(wrapper, params)
            except sqlite3.Error as error:
                # Switching to WAL, here or in init_command, does not go through SQLite's busy handler in every step:
                # the first of many processes switches, the others try again.
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise explain(error, name, self.alias) from error
            time.sleep(OPEN_RETRY_S)

    def _connect(self, wrapper: DatabaseWrapper, params: dict[str, Any]) -> sqlite3.Connection:
        opened: list[sqlite3.Connection] = []
        factory = params.get("factory", sqlite3.Connection)

        def remember(*args: Any, **kwargs: Any) -> sqlite3.Connection:  # Any: what sqlite3.connect passes on
            connection: sqlite3.Connection = factory(*args, **kwargs)
            opened.append(connection)
            return connection

        try:
            # Django forgets a connection whose init_command fails.
            connection: sqlite3.Connection = wrapper.get_new_connection({**params, "factory": remember})
            self._require_sharing(connection)
            self._tune(connection)
        except BaseException:
            for connection in opened:
                connection.close()
            raise
        return connection

    def require_engine(self) -> DatabaseWrapper:
        """Return a new, unconnected database wrapper; raise UnusableAliasError where it is not Django's for SQLite."""
        engine = self.settings["ENGINE"]
        reason: Exception | None = None
        try:
            wrapper = connections.create_connection(self.alias)
        except (ImproperlyConfigured, ImportError) as error:  # another engine, whose driver is not even installed
            reason = error
        else:
            if isinstance(wrapper, DatabaseWrapper):
                return wrapper
        raise UnusableAliasError(
            f"a channel layer uses DATABASES[{self.alias!r}], whose ENGINE is {engine!r}",
            'it must be "django.db.backends.sqlite3"',
        ) from reason

    def require_file(self) -> None:
        """Raise UnusableAliasError where NAME is a database in memory that only one connection can have."""
        if self.name in ("", ":memory:"):
            raise UnusableAliasError(
                f"a channel layer uses DATABASES[{self.alias!r}], whose NAME is {self.name!r}",
                "threads and processes cannot share that, so give it the path of a file",
            )

    @property
    def init_command(self) -> str:
        """What OPTIONS have run on each new connection."""
        return str(self.settings["OPTIONS"].get("init_command") or "")

    def require_sharing(self) -> None:
        """Raise UnusableAliasError where "init_command" keeps connections from writing, or from each other."""
        text = re.sub(r"--[^\n]*|/\*.*?\*/", " ", self.init_command, flags=re.DOTALL)
        # The last one counts, and the connection itself is asked once it is open.
        chosen = {name.lower(): value.lower() for name, value in _PRAGMA.findall(text)}
        for pragma, (refused, _) in REFUSED_PRAGMAS.items():
            if chosen.get(pragma) in refused:
                raise self._refused(pragma, chosen[pragma], '["init_command"]')

    def _require_sharing(self, connection: sqlite3.Connection) -> None:
        for pragma, (refused, _) in REFUSED_PRAGMAS.items():
            value = str(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
            if value in refused:
                raise self._refused(pragma, value, "")  # a factory's, say

    def _refused(self, pragma: str, value: str, key: str) -> UnusableAliasError:
        place = f'DATABASES[{self.alias!r}]["OPTIONS"]{key}'
        why = REFUSED_PRAGMAS[pragma][1]
        return UnusableAliasError(
            f"{place} sets PRAGMA {pragma} to {value}, {why}",
            f"remove that pragma from {place}",
        )

    def is_of_tests(self) -> bool:
        """Whether the alias points at a test database, as Django's test runners and their parallel workers make it."""
        test = self.settings["TEST"]
        if test["MIRROR"]:
            return Database(test["MIRROR"]).is_of_tests()
        if not self.path:
            return True
        if not test["NAME"]:
            return False
        name, made = Path(str(self.settings["NAME"])), Path(str(test["NAME"]))
        return name == made or (name.parent == made.parent and name.name.startswith(f"{made.stem}_"))

    def _tune(self, connection: sqlite3.Connection) -> None:
        connection.isolation_level = None  # autocommit; transactions are opened by hand
        chosen = self.init_command
        if not re.search(r"\bjournal_mode\b", chosen, re.IGNORECASE):
            _switch_to_wal(connection)
        if not re.search(r"\bsynchronous\b", chosen, re.IGNORECASE):
            # Survives the death of any process; https://www.sqlite.org/pragma.html#pragma_synchronous
            connection.execute("PRAGMA synchronous=NORMAL")
        if not re.search(r"\bjournal_size_limit\b", chosen, re.IGNORECASE):
            connection.execute(f"PRAGMA journal_size_limit={WAL_SIZE_LIMIT_BYTES}")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # one elected process checkpoints; see housekeeping


def require_sqlite() -> None:
    """Raise UnusableAliasError where Python's SQLite is too old."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise UnusableAliasError(
            f"channels_sqlite needs SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer, and this Python has "
            f"{sqlite3.sqlite_version}",
            "install a newer SQLite, or a Python that brings one",
        )


def has_wal_reset_bug(version: tuple[int, ...]) -> bool:
    """Whether SQLite `version` (three numbers) has the bug, and is none of the older lines that were mended too."""
    mended_lines: dict[tuple[int, ...], tuple[int, ...]] = {(3, 44): (3, 44, 6), (3, 50): (3, 50, 7)}
    mended = mended_lines.get(version[:2], (3, 51, 3))
    return (3, 7, 0) <= version < mended


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Make sure of WAL, which is a property of the file."""
    # An in-memory database answers "memory" and stays what it is.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        connection.execute("PRAGMA journal_mode=WAL")
