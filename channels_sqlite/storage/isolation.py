"""Where the layers of a test find their databases; see `testing`. Outside of tests nothing of this does anything.

A test process that isolates its layers has a room: a temporary folder with a template, one folder of databases for each
test, and a file that names the folder of the test in hand. What Django knows of the aliases stays as it is. Processes
that a test starts, a live server above all, read that file as well, so that they move on with each test: a forked one
inherits `_pointer`, others have the environment variable VARIABLE or were handed it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

__all__ = [
    "REMEDY",
    "TEMPLATE",
    "VARIABLE",
    "database_of",
    "in_test_run",
    "is_active",
    "look_in",
    "provide",
    "run_following",
    "where",
]

VARIABLE = "CHANNELS_SQLITE_TEST_ROOM"  # path of the file that names the folder of the test in hand
TEMPLATE = "template.sqlite3"

REMEDY = "the fixture isolated_channel_layers or the mixin IsolatedChannelLayersMixin of channels_sqlite.testing"

T = TypeVar("T")

_pointer = os.environ.get(VARIABLE, "")
_owner = 0  # pid of the process that runs the tests
_running = False  # there, whether the test in hand is an isolated one


def is_active() -> bool:
    """Whether the layers of this process use databases of a test."""
    return _folder() is not None


def database_of(alias: str) -> str | None:
    """Return the path of the database that layers over DATABASES[`alias`] have in this test; None: the alias's own."""
    if not _pointer:  # as outside of tests, where every receive() asks
        return None
    folder = _folder()
    return None if folder is None else str(Path(folder) / f"{quote(alias, safe='')}.sqlite3")


def _folder() -> str | None:
    if not _pointer or (_owner == os.getpid() and not _running):
        return None
    try:
        # Not kept: whoever runs the tests writes it anew for each.
        return Path(_pointer).read_text(encoding="utf-8")
    except OSError:  # inherited from a process that isolates nothing, or not yet
        return None


def provide(path: str) -> None:
    """Make the database that `database_of` named, with all tables, unless it is there already."""
    file = Path(path)
    if file.exists():
        return
    handle, draft = tempfile.mkstemp(dir=file.parent)
    os.close(handle)
    try:
        shutil.copyfile(file.parent.parent / TEMPLATE, draft)
        os.link(draft, path)  # at once and whole: another process may be about to do the same
    except FileExistsError:
        pass
    finally:
        Path(draft).unlink()


def run_following(pointer: str, function: Callable[[], T]) -> T:
    """In a process that a test started: use the databases of the tests from now on, and return what `function` does."""
    look_in(pointer, _owner, running=_running)
    return function()


def where() -> tuple[str, int, bool]:
    """Return where this process finds its databases now, for `look_in`."""
    return _pointer, _owner, _running


def look_in(pointer: str, owner: int, *, running: bool) -> None:
    """Have this process look into the file `pointer`; if it is the `owner`, only while `running`."""
    global _pointer, _owner, _running  # this module's state is the process's
    _pointer, _owner, _running = pointer, owner, running


def in_test_run() -> bool:
    """Whether Django's test environment is set up in this process, by `manage.py test` or pytest-django."""
    # Imported by every test runner and, being large, by nobody else.
    utils = sys.modules.get("django.test.utils")
    return hasattr(getattr(utils, "_TestState", None), "saved_data")
