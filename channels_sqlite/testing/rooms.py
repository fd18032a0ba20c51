"""Where the databases of a test lie: one room for each test process, with a template and a folder for each test."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from unittest import mock

from django.db import connections, router
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState

from channels_sqlite.db_routers import APP_LABEL
from channels_sqlite.storage import isolation
from channels_sqlite.storage.history import raise_floors_of_what_is_deleted
from channels_sqlite.storage.ids import keep_ids_from_coming_back
from channels_sqlite.storage.isolation import TEMPLATE, VARIABLE

__all__ = ["Room", "room", "template"]

POINTER = "now"


class Room:
    """The place of one test process, until `close`."""

    def __init__(self, template: Callable[[], bytes]) -> None:
        """`template` returns a database file with all tables; it is called before the first test."""
        self.pid = os.getpid()
        self.folder = Path(tempfile.mkdtemp(prefix="channels-test-"))
        self._template = template
        self.running = False
        self._tests = 0
        self._variable_before = os.environ.get(VARIABLE)
        self._state_before = isolation.where()
        os.environ[VARIABLE] = self.pointer
        self.switch(running=False)

    @property
    def pointer(self) -> str:
        """The path of the file that names the folder of the test in hand."""
        return str(self.folder / POINTER)

    def enter(self) -> Path:
        """Begin a test; return the folder that its databases get."""
        if not self._tests:
            (self.folder / TEMPLATE).write_bytes(self._template())
        self._tests += 1
        folder = self.folder / str(self._tests)
        folder.mkdir()
        draft = self.folder / "next"
        draft.write_text(str(folder), encoding="utf-8")
        draft.replace(self.pointer)
        return folder

    def leave(self, folder: Path) -> None:
        """End a test: remove its databases."""
        Path(self.pointer).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def switch(self, *, running: bool) -> None:
        """Have this process use the databases of the test in hand, or not; others that follow always do."""
        self.running = running
        isolation.look_in(self.pointer, self.pid, running=running)

    def close(self) -> None:
        """Remove everything."""
        if self.pid != os.getpid():
            return
        if self._variable_before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = self._variable_before
        pointer, owner, running = self._state_before
        isolation.look_in(pointer, owner, running=running)
        shutil.rmtree(self.folder, ignore_errors=True)


_room: Room | None = None


@contextmanager
def room() -> Iterator[Room]:
    """Give this process's room: the one that is there, or one for the time of the block."""
    global _room  # noqa: PLW0603  # there is one in a process
    if _room is not None and _room.pid == os.getpid():
        yield _room
        return
    before = _room
    here = _room = Room(template)
    try:
        yield here
    finally:
        _room = before
        here.close()


@functools.lru_cache(1)
def template() -> bytes:
    """A database file with all tables, made once in a process."""
    # In a thread of its own: Django refuses where an event loop runs, and keeps connections by thread.
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(_make_template).result()


def _make_template() -> bytes:
    with tempfile.TemporaryDirectory(prefix="channels-test-") as folder:
        file = Path(folder) / "template.sqlite3"
        alias = "channels_sqlite_template"  # not in DATABASES
        entries = {"default": {}, alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}}
        wrapper = DatabaseWrapper(connections.configure_settings(entries)[alias], alias)
        # Test cases and pytest-django forbid Django's connections by this method. They do not mean this one.
        with mock.patch.object(wrapper, "ensure_connection"), mock.patch.object(router, "routers", []):
            try:
                wrapper.connect()
                connections[alias] = wrapper  # in this thread, which ends soon
                _migrate(wrapper)
                wrapper.connection.execute("PRAGMA journal_mode=WAL")
            finally:
                wrapper.close()
        return file.read_bytes()


def _migrate(wrapper: DatabaseWrapper) -> None:
    """Apply this app's migrations, whatever MIGRATION_MODULES and `--no-migrations` say of those of the project."""
    package = import_module(f"{APP_LABEL}.migrations")
    state = ProjectState()
    recorder = MigrationRecorder(wrapper)
    for name in sorted(info.name for info in iter_modules(package.__path__)):
        migration = import_module(f"{package.__name__}.{name}").Migration(name, APP_LABEL)
        with wrapper.schema_editor() as editor:
            state = migration.apply(state, editor)
        recorder.record_applied(APP_LABEL, name)
    keep_ids_from_coming_back(wrapper.alias)
    raise_floors_of_what_is_deleted(wrapper.alias)
