"""What goes wrong with the database, recognised by code and told with a remedy."""

from __future__ import annotations

import sqlite3

from django.core.exceptions import ImproperlyConfigured
from django.db.utils import OperationalError

from channels_sqlite.isolation import REMEDY, in_test_run

__all__ = ["ChannelDatabaseError", "LayerClosedError", "UnusableAliasError"]


class UnusableAliasError(ImproperlyConfigured):
    """DATABASES does not have what a layer needs; `problem` says what is wrong, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


class ChannelDatabaseError(OperationalError):
    """The layer's database cannot be used now; the text says why and what to do. The next call tries again."""


class LayerClosedError(RuntimeError):
    """The layer was closed while this call was waiting."""


# https://www.sqlite.org/rescode.html; primary codes are the low byte of the extended ones.
_BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR = 5, 6, 7, 8, 10
_CORRUPT, _FULL, _CANTOPEN, _SCHEMA, _NOTADB = 11, 13, 14, 17, 26

# Python 3.10 does not give the code. These are sqlite3_errstr() texts, fixed by https://www.sqlite.org/c3ref/errcode.html
_CODE_OF_TEXT = {
    "database is locked": _BUSY,
    "database table is locked": _LOCKED,
    "database schema is locked": _LOCKED,
    "attempt to write a readonly database": _READONLY,
    "disk I/O error": _IOERR,
    "database disk image is malformed": _CORRUPT,
    "malformed database schema": _CORRUPT,
    "database or disk is full": _FULL,
    "unable to open database file": _CANTOPEN,
    "file is not a database": _NOTADB,
}


def _primary_code(error: sqlite3.Error) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF
    text = str(error)
    return next((known for start, known in _CODE_OF_TEXT.items() if text.startswith(start)), None)


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the lock, so that trying again later can succeed."""
    return _primary_code(error) in (_BUSY, _LOCKED)


def is_harmless(error: sqlite3.Error) -> bool:
    """Whether the connection stays good after this error: the statement failed, not the file."""
    return is_busy(error) or _primary_code(error) == _FULL


def explain(error: sqlite3.Error, database: str, alias: str) -> ChannelDatabaseError:
    """Turn what SQLite said about the file `database` of DATABASES[`alias`] into an error that names the remedy."""
    where = f"the channel layer's database {database!r} (DATABASES[{alias!r}])"
    return ChannelDatabaseError(f"{where}: {remedy_for(error, alias)}. SQLite says: {error}")


def remedy_for(error: sqlite3.Error, alias: str) -> str:
    """Return what the user of DATABASES[`alias`] can do about what SQLite said."""
    code = _primary_code(error)
    text = str(error)
    if text.startswith(("no such table", "no such column")) or "has no column named" in text:
        return (
            f'its tables are missing or old; run "python manage.py migrate --database={alias}", with "channels_sqlite" '
            f"in INSTALLED_APPS"
        )
    if code in (_BUSY, _LOCKED):
        return "it stays locked by another connection; " + who_holds_the_lock()
    if code == _READONLY:
        return (
            "this process may not write it; give its user write permission on the file, its -wal and -shm files and "
            "the folder that holds them"
        )
    if code == _FULL:
        return (
            "the disk, or the size that PRAGMA max_page_count allows, is full; free some space, or lower "
            '"message_retention"'
        )
    if code in (_CORRUPT, _NOTADB):
        return (
            "the file is damaged or is no SQLite database; stop the processes that use it, move it and its -wal and "
            f'-shm files away, and run "python manage.py migrate --database={alias}" (it holds messages only)'
        )
    if code == _CANTOPEN:
        return "it cannot be opened; check that the folder exists and that this process's user may write to it"
    if code == _IOERR:
        return "the disk failed to read or write; check the disk, and that the file is on a local file system"
    return "see the SQLite error"


def who_holds_the_lock() -> str:
    """Return what may hold the write lock, and what to do then."""
    text = (
        "a long transaction (an open atomic() block, a shell, a backup tool) may hold the write lock; end it, or raise "
        'OPTIONS["timeout"]'
    )
    if in_test_run():
        text += (
            f". In tests, a TestCase keeps a transaction open on every alias in its `databases`: give the layer a "
            f"database of its own with {REMEDY}, or use a TransactionTestCase"
        )
    return text
