"""System checks that need the database: `manage.py check --database channels`.

They look through Django's connection and at what `stat` tells, make nothing, and never open a file of the database by
hand: closing it would drop the locks that SQLite holds in this process (https://www.sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.apps import AppConfig
from django.core.checks import ERROR, CheckMessage, Error, Info, Warning  # noqa: A004  # Django's names
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from channels_sqlite.channel_layers import layer_aliases
from channels_sqlite.checks import ids
from channels_sqlite.checks.filesystems import network_mount
from channels_sqlite.checks.settings import database_setting
from channels_sqlite.db_routers import APP_LABEL
from channels_sqlite.exceptions import UnusableAliasError
from channels_sqlite.processes.given_ids import NAME as NOTE_OF_IDS
from channels_sqlite.processes.meeting_place import existing_folders, folder_beside, own_folder, why_unusable
from channels_sqlite.processes.sharing import describe, is_draft, remedy_for_side_file, user_name
from channels_sqlite.storage.database import Database, has_wal_reset_bug
from channels_sqlite.storage.errors import remedy_for
from channels_sqlite.storage.startup import is_migrating
from channels_sqlite.storage.store import Store

__all__ = ["check_databases"]


def check_databases(
    *,
    app_configs: Sequence[AppConfig] | None = None,  # noqa: ARG001  # Django's signature
    databases: Sequence[str] | None = None,
    **kwargs: object,  # noqa: ARG001  # the same
) -> list[CheckMessage]:
    """Check those of `databases` that layers of ours use."""
    messages: list[CheckMessage] = []
    for alias in layer_aliases():
        if alias in (databases or ()):
            try:
                database = Database(alias)
                database.require_engine()
                database.require_file()
                database.require_sharing()
            except UnusableAliasError:  # told by `checks.settings`
                continue
            messages += _check_database(database)
    if is_migrating():
        # It runs these checks first, mends most of this, and would be held up by none of it.
        return [message for message in messages if message.level >= ERROR]
    return messages


def _check_database(database: Database) -> Iterator[CheckMessage]:
    path = database.path
    if path:
        faults = list(_check_files(path, database.alias))
        yield from faults
        yield from _check_wake_folder(path, database.alias)
        yield from _check_side_files(path, database.alias)
        yield from _check_file_system(path, database.alias)
        if faults:
            return
        if not os.path.exists(path):  # connecting would make an empty file
            yield _not_migrated(database.alias, f"the database file {path!r} does not exist.")
            return
    try:
        with _connected(database.alias) as connection:
            yield from _check_tables(connection)
            yield from _check_journal(connection)
    except (DatabaseError, sqlite3.Error, ImproperlyConfigured) as error:
        yield _unusable(database, error)


@contextmanager
def _connected(alias: str) -> Iterator[BaseDatabaseWrapper]:
    """Django's connection of this thread, closed in the end if it was not open before."""
    connection = connections[alias]
    if connection.connection is not None:
        yield connection
        return
    _try_to_connect(connection.copy())
    try:
        connection.ensure_connection()
        yield connection
    finally:
        connection.close()


def _try_to_connect(connection: BaseDatabaseWrapper) -> None:
    """Connect once and close: Django leaves a connection open whose init_command fails."""
    options = connection.settings_dict["OPTIONS"]
    factory = options.get("factory", sqlite3.Connection)
    opened: list[sqlite3.Connection] = []

    def remember(*args: Any, **kwargs: Any) -> sqlite3.Connection:  # Any: what sqlite3.connect passes on
        raw: sqlite3.Connection = factory(*args, **kwargs)
        opened.append(raw)
        return raw

    options["factory"] = remember
    try:
        connection.ensure_connection()
    finally:
        for raw in opened:
            raw.close()


def _unusable(database: Database, error: Exception) -> CheckMessage:
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    remedy = (
        remedy_for(cause, database.alias, database.name)
        if isinstance(cause, sqlite3.Error)
        else "mend what the error names"
    )
    return Error(
        f"the database {database.name!r} cannot be used: {error}",
        hint=f"{remedy[:1].upper()}{remedy[1:]}.",
        obj=database_setting(database.alias),
        id=ids.UNUSABLE_DATABASE,
    )


# Files and folders


def _check_files(path: str, alias: str) -> Iterator[CheckMessage]:
    folder = Path(path).parent
    fault = ""
    if not folder.is_dir():
        fault, hint = f"the folder {str(folder)!r} of the database does not exist.", f"Make it: mkdir -p {folder}"
    elif not _may(str(folder), os.W_OK | os.X_OK):
        fault = f"the folder {str(folder)!r} of the database is not writable for this process's user."
        hint = "Give the user write permission on the folder: SQLite makes its -wal and -shm files there."
    if fault:
        yield Error(fault, hint=hint, obj=database_setting(alias), id=ids.NOT_WRITABLE)
    for file in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.exists(file) and not _may(file, os.R_OK | os.W_OK):
            yield Error(
                f"the file {file!r} is not writable for this process's user.",
                hint=(
                    "Give the user read and write permission on the file; often another user, such as root, ran the "
                    "first command."
                ),
                obj=database_setting(alias),
                id=ids.NOT_WRITABLE,
            )


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _check_wake_folder(path: str, alias: str) -> Iterator[CheckMessage]:
    beside = folder_beside(path)
    reason = why_unusable(beside) if os.path.lexists(beside) else None
    if reason is None:
        return
    own = own_folder()
    if os.path.lexists(own) and (own_reason := _why_not_own(own)) is not None:
        yield Error(
            f"there is no folder for wake-up sockets: not {str(beside)!r}, because {reason}, nor {str(own)!r}, because "
            f"{own_reason}.",
            hint=f"Make {str(beside)!r} a folder that every user of the database may write to.",
            obj=database_setting(alias),
            id=ids.NO_WAKE_FOLDER,
        )
        return
    yield Warning(
        f"the folder for wake-up sockets {str(beside)!r} cannot be used, because {reason}; {str(own)!r} serves, where "
        f"processes of other users and containers do not meet this one: they find its messages by polling, and do not "
        f"notice its death.",
        hint=f"Make {str(beside)!r} a folder that every user of the database may write to.",
        obj=database_setting(alias),
        id=ids.WAKE_FOLDER_ELSEWHERE,
    )


def _check_side_files(path: str, alias: str) -> Iterator[CheckMessage]:
    """Lock files need reading, sockets writing, and the note of ids both."""
    uses = {".lock": os.R_OK, ".sock": os.W_OK, NOTE_OF_IDS: os.R_OK | os.W_OK}
    found = [
        file
        for folder in existing_folders(path)
        for file in sorted(folder.glob("*"))
        if not is_draft(file.name)
        and not _may(str(file), uses.get(file.suffix or file.name, os.F_OK))
        and os.path.lexists(file)
    ]
    if not found:
        return
    locks = [file for file in found if file.suffix == ".lock"]
    first = next((file for file in found if file.stem == "housekeeping"), (locks or found)[0])
    if first.stem == "housekeeping":
        so = "this user's processes do no checkpoints, and where no others do the WAL grows until the disk is full"
    elif locks:
        so = "this user's processes do not notice the death of the process that made it"
    elif first.name == NOTE_OF_IDS:
        so = "a loss of the last messages may go unnoticed by those who read a history"
    else:
        so = "this user's processes cannot wake the one that made it, which finds messages by polling"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    yield Warning(
        f"{describe(str(first))}{more} cannot be used by this process's user {user_name()}: {so}.",
        hint=f"{remedy_for_side_file(str(first))[:1].upper()}{remedy_for_side_file(str(first))[1:]}.",
        obj=database_setting(alias),
        id=ids.SIDE_FILE_UNUSABLE,
    )


def _why_not_own(folder: Path) -> str | None:
    reason = why_unusable(folder)
    if reason is None and hasattr(os, "geteuid") and folder.stat().st_uid != os.geteuid():
        reason = "it belongs to another user"
    return reason


def _check_file_system(path: str, alias: str) -> Iterator[CheckMessage]:
    mount = network_mount(path)
    if mount is not None:
        yield Warning(
            f"the database {path!r} lies on a network file system ({mount.type}, mounted at {mount.point!r}), where "
            f"SQLite's locks and shared memory do not work: messages get lost and the file is corrupted sooner or "
            f"later.",
            hint=f'Set {database_setting(alias)}["NAME"] to a path on a local disk of this machine.',
            obj=database_setting(alias),
            id=ids.NETWORK_FILE_SYSTEM,
        )


# Through the connection


def _check_tables(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    alias = connection.alias
    executor = MigrationExecutor(connection)
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == APP_LABEL]
    missing = [migration.name for migration, _ in executor.migration_plan(targets)]
    if missing:
        yield _not_migrated(alias, f"migrations of channels_sqlite are not applied: {', '.join(missing)}.")
        return
    try:
        Store(connection.connection, "").probe()
    except sqlite3.OperationalError as error:
        if not str(error).startswith("no such"):
            raise
        yield Warning(
            f"tables of channels_sqlite are not as its migrations make them, although these are recorded as applied: "
            f"{error}.",
            hint=(
                f'Run "python manage.py migrate channels_sqlite zero --fake --database={alias}" and then "python '
                f'manage.py migrate --database={alias}", with ChannelsRouter in DATABASE_ROUTERS.'
            ),
            obj=database_setting(alias),
            id=ids.NOT_MIGRATED,
        )


def _not_migrated(alias: str, problem: str) -> CheckMessage:
    return Warning(
        problem,
        hint=f'Run "python manage.py migrate --database={alias}".',
        obj=database_setting(alias),
        id=ids.NOT_MIGRATED,
    )


def _check_journal(connection: BaseDatabaseWrapper) -> Iterator[CheckMessage]:
    setting = database_setting(connection.alias)
    with connection.cursor() as cursor:
        mode = str(cursor.execute("PRAGMA journal_mode").fetchone()[0])
    if mode == "memory":
        return
    if mode == "wal":
        if has_wal_reset_bug(sqlite3.sqlite_version_info):
            yield Info(
                f"SQLite {sqlite3.sqlite_version} has the WAL-reset bug: the file can be corrupted when two processes "
                f"do a checkpoint at the same moment. Of the processes that use this layer only one at a time does, so "
                f"that the WAL grows while a process is suspended in the middle of one.",
                hint=(
                    "Keep other programs from writing to this file, or use SQLite 3.51.3 or newer (or 3.50.7, or "
                    "3.44.6); see https://www.sqlite.org/wal.html#walresetbug"
                ),
                obj=setting,
                id=ids.WAL_RESET_BUG,
            )
        return
    init_command = str(connection.settings_dict["OPTIONS"].get("init_command", ""))
    if re.search(r"\bjournal_mode\b", init_command, re.IGNORECASE):
        yield Warning(
            f"the journal mode is {mode!r}, not WAL: readers and writers keep each other waiting, and every commit "
            f"waits for the disk.",
            hint=f'Write "PRAGMA journal_mode=WAL" in "init_command" of {setting}["OPTIONS"], or leave it out there.',
            obj=setting,
            id=ids.NOT_WAL,
        )
    else:
        yield Info(
            f"the journal mode is {mode!r} so far; the layer changes it to WAL when it is first used.",
            hint=f'Nothing needs doing; or add "PRAGMA journal_mode=WAL;" to "init_command" in {setting}["OPTIONS"].',
            obj=setting,
            id=ids.NOT_WAL_YET,
        )
