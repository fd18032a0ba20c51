"""SQLite's errors, and the system's, recognised by code and told with a remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.storage.causes import hidden_errno, remedy_for_errno
from channels_sqlite.storage.isolation import REMEDY, in_test_run
from channels_sqlite.storage.startup import code_at_startup

__all__ = [
    "explain",
    "explain_os",
    "explaining_os",
    "is_busy",
    "is_harmless",
    "migrate_command",
    "remedy_for",
    "who_holds_the_lock",
    "why_migrate_fails",
]


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
    return ChannelDatabaseError(f"{where}: {remedy_for(error, alias, database)}. SQLite says: {error}")


def explain_os(error: OSError, doing: str) -> ChannelDatabaseError:
    """Turn what the operating system said while `doing` something for a layer into an error that names the remedy."""
    where = "it" if error.filename is None else repr(error.filename)
    return ChannelDatabaseError(f"{doing} failed: {remedy_for_errno(error.errno, where)}. The system says: {error}")


@contextmanager
def explaining_os(doing: str) -> Generator[None]:
    """Have what the operating system says while `doing` something raised as a ChannelDatabaseError."""
    try:
        yield
    except OSError as error:
        raise explain_os(error, doing) from error


def remedy_for(error: sqlite3.Error, alias: str, database: str = "") -> str:
    """Return what the user of the file `database` of DATABASES[`alias`] can do about what SQLite said."""
    code = _primary_code(error)
    text = str(error)
    if text.startswith(("no such table", "no such column")) or "has no column named" in text:
        return (
            f'its tables are missing or old; run "{migrate_command(alias)}", with "channels_sqlite" in '
            f"INSTALLED_APPS{why_migrate_fails()}"
        )
    if code in (_BUSY, _LOCKED):
        return "it stays locked by another connection; " + who_holds_the_lock()
    if code == _FULL:
        return (
            "the disk, or the size that PRAGMA max_page_count allows, is full; free some space, or lower "
            '"message_retention"'
        )
    if code in (_CORRUPT, _NOTADB):
        return (
            "the file is damaged or is no SQLite database; stop the processes that use it, move it and its -wal and "
            f'-shm files away, and run "{migrate_command(alias)}" (it holds messages only)'
        )
    if code in (_READONLY, _CANTOPEN, _IOERR):
        return _remedy_for_hidden(code, database)
    return "see the SQLite error"


def _remedy_for_hidden(code: int, database: str) -> str:
    """Return what to do about an error that can have several causes, which SQLite does not tell."""
    number, where = hidden_errno(_path_of(database))
    if code == _READONLY:
        what = "this process may not write it"
        usual = (
            "give its user write permission on the file, its -wal and -shm files and the folder that holds them"
            if "mode=ro" not in database and "immutable=" not in database
            else "NAME opens it for reading alone; leave mode=ro and immutable out there"
        )
    elif code == _CANTOPEN:
        what = "it cannot be opened"
        usual = "check that the folder exists and that this process's user may write to it"
    else:
        what = "the disk failed to read or write"
        usual = "check the disk, and that the file is on a local file system"
    return f"{what}: {remedy_for_errno(number, where)}" if number is not None else f"{what}; {usual}"


def _path_of(database: str) -> str:
    """Return the path of a file that NAME gives as one or as a URI; "" for one in memory."""
    if ":memory:" in database or "mode=memory" in database:
        return ""
    return unquote(urlsplit(database).path) if database.startswith("file:") else database


def migrate_command(alias: str) -> str:
    """Return the command that makes the tables in DATABASES[`alias`]."""
    return f"python manage.py migrate --database={alias}"


def why_migrate_fails() -> str:
    """Return who keeps that command itself from running, and the way out, as the rest of a sentence; or ""."""
    code = code_at_startup()
    if not code:
        return ""
    return (
        f". It is {code} that called the layer, and it runs before every command, so that migrate cannot run either: "
        f"call the layer later (at the first request, in a command, in a receiver of post_migrate), or catch "
        f"ChannelDatabaseError there"
    )


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
