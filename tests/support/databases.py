"""Fresh channel databases: migrated once a run, copied for each test, and put under an alias while the test runs."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.db import connections

from tests.settings import DATABASES, RUN_FOLDER, RUN_FOLDER_VARIABLE
from tests.support import inside

DOCUMENTED_OPTIONS: Mapping[str, object] = DATABASES["channels"]["OPTIONS"]
"""The OPTIONS that the README recommends."""

ROOT = Path(__file__).resolve().parents[2]

MIGRATE_DEADLINE_S = 60
THREAD_DEADLINE_S = 10


@dataclass(frozen=True, kw_only=True)
class ChannelDatabase:
    """A database file and the alias that it has in DATABASES."""

    alias: str
    path: Path
    options: Mapping[str, object]

    def settings(self) -> dict[str, object]:
        """The entry for DATABASES."""
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.path), "OPTIONS": dict(self.options)}


@functools.cache
def migrated_template() -> Path:
    """A database file with the migrations of `channels` applied; made once a run, never opened, only copied.

    It is made by `migrate --database=channels` in a process of its own, as users do it.
    """
    folder = RUN_FOLDER / f"template-{os.getpid()}"
    folder.mkdir()
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "django",
            "migrate",
            "--database=channels",
            "--settings=tests.settings",
            "--verbosity=0",
        ],
        env={**os.environ, RUN_FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=MIGRATE_DEADLINE_S,
        check=False,
    )
    if finished.returncode != 0:
        message = f"migrate --database=channels failed:\n{finished.stdout}{finished.stderr}"
        raise RuntimeError(message)
    return folder / "channels.sqlite3"


def fresh_file(folder: Path, name: str = "channels.sqlite3") -> Path:
    """A fresh migrated database file in `folder`."""
    path = folder / name
    shutil.copyfile(migrated_template(), path)
    return path


@contextmanager
def channel_database(
    folder: Path,
    *,
    alias: str = "channels",
    options: Mapping[str, object] = DOCUMENTED_OPTIONS,
    migrated: bool = True,
) -> Iterator[ChannelDatabase]:
    """A database file in `folder`, known to Django as `alias` until the block ends.

    `options`: OPTIONS of the alias, by default the documented ones; `{}` is a bare alias.
    `migrated`: False leaves the file out, so that whoever opens it first creates an empty one.
    An alias of the same name is put aside meanwhile, with this thread's connection to it.
    """
    path = fresh_file(folder, f"{alias}.sqlite3") if migrated else folder / f"{alias}.sqlite3"
    database = ChannelDatabase(alias=alias, path=path, options=options)
    with registered(database):
        yield database


@contextmanager
def registered(database: ChannelDatabase) -> Iterator[None]:
    """Django knows the database under its alias until the block ends."""
    alias = database.alias
    entry = connections.configure_settings({"default": {}, alias: database.settings()})[alias]
    # One dict in most runs, two where something overrode the setting.
    registries: list[dict[str, Any]] = [connections.settings, settings.DATABASES]
    before = [registry.get(alias) for registry in registries]
    connection_before = _detach_connection(alias)
    _close_in_asgiref_thread(alias)
    for registry in registries:
        registry[alias] = entry
    try:
        yield
    finally:
        _close_connection(alias)
        _close_in_asgiref_thread(alias)
        for registry, entry_before in zip(registries, before, strict=True):
            if entry_before is None:
                registry.pop(alias, None)
            else:
                registry[alias] = entry_before
        if connection_before is not None:
            connections[alias] = connection_before


def _detach_connection(alias: str) -> Any:
    """Take this thread's connection object for the alias out of Django's hands: the object, or None."""
    for connection in connections.all(initialized_only=True):
        if connection.alias == alias:
            del connections[alias]
            return connection
    return None


def _close_connection(alias: str) -> None:
    connection = _detach_connection(alias)
    if connection is not None:
        connection.close()


def _close_in_asgiref_thread(alias: str) -> None:
    """Async tests use the ORM in the one thread that asgiref keeps: a connection there would outlive its file."""
    executor = SyncToAsync.single_thread_executor
    if inside.threads_of(executor):
        executor.submit(_close_connection, alias).result(THREAD_DEADLINE_S)
