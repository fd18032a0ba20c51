"""For the tests of projects that use the layer: databases of their own for each test, and lost messages on purpose.

from channels_sqlite.testing import isolated_channel_layers        # in conftest.py, for pytest
class ChatTests(IsolatedChannelLayersMixin, TestCase): ...         # for manage.py test, and pytest
"""

from __future__ import annotations

import functools
import os
import random
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.db import connections, router
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState

from channels_sqlite import isolation, names
from channels_sqlite.configured import layer_aliases
from channels_sqlite.isolation import Room
from channels_sqlite.layers import SqliteChannelLayer, close_layers

if TYPE_CHECKING:
    from channels_sqlite.codec import Message
    from channels_sqlite.mailboxes import Entry
    from channels_sqlite.process import LayerProcess

__all__ = ["IsolatedChannelLayersMixin", "Losses", "isolated_channel_layers", "lossy"]

isolated_channel_layers: Callable[..., Iterator[None]]
"""A pytest fixture: the test has fresh databases for all layers of CHANNEL_LAYERS; see IsolatedChannelLayersMixin."""

APP_LABEL = "channels_sqlite"


def __getattr__(name: str) -> object:
    if name == "isolated_channel_layers":  # pytest is imported where it is used alone
        from channels_sqlite import pytest_fixtures

        return pytest_fixtures.isolated_channel_layers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Isolation

if TYPE_CHECKING:
    _BaseTestCase = unittest.TestCase
else:
    _BaseTestCase = object


class IsolatedChannelLayersMixin(_BaseTestCase):
    """Each test gets a fresh, migrated database for every layer of this package; name it before the test case.

    It is a temporary file, whatever `databases` says and whatever transaction the test case holds. All threads, forked
    processes and started ones see it, a ChannelsLiveServerTestCase's server included. After the test the layers are
    closed and the file is removed. Django's own connections, and so the models Message and Membership, do not see it.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        order = cls.__mro__
        if unittest.TestCase in order and order.index(IsolatedChannelLayersMixin) > order.index(unittest.TestCase):
            raise TypeError(
                f"{cls.__qualname__} must name IsolatedChannelLayersMixin before its test case: "
                f"class {cls.__name__}(IsolatedChannelLayersMixin, TestCase)"
            )

    @classmethod
    def setUpClass(cls) -> None:
        """Make the room; a live server that starts now is told of it."""
        opened = room()
        here = opened.__enter__()
        cls.addClassCleanup(opened.__exit__, None, None, None)  # after tearDownClass, where servers end
        start_server: Any = getattr(cls, "ProtocolServerProcess", None)  # the class is of the test's choice
        if start_server is not None:
            here.enter()  # what the server uses before the first test
            following = staticmethod(partial(_start_following, start_server, here.pointer))
            replaced = mock.patch.object(cls, "ProtocolServerProcess", following)
            replaced.start()
            cls.addClassCleanup(replaced.stop)
        super().setUpClass()

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test with databases of its own."""
        with isolated(keep_files=hasattr(self, "ProtocolServerProcess")):
            finished: unittest.TestResult | None = super().run(result)
        return finished


@contextmanager
def isolated(*, keep_files: bool = False) -> Iterator[None]:
    """Give the layers fresh databases until the block ends; within another such block nothing happens.

    `keep_files`: leave the files until the room goes, for a server that moves on from them with the next test.
    """
    with room() as here:
        if here.running:
            yield
            return
        close_layers()  # whatever was opened outside of tests: its memberships are none of this test's
        folder = here.enter()
        here.switch(running=True)
        try:
            for alias in layer_aliases():
                isolation.provide(str(isolation.database_of(alias)))
            yield
        finally:
            close_layers()
            here.switch(running=False)
            if not keep_files:
                here.leave(folder)


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


def _start_following(
    start: Callable[..., object], pointer: str, host: str, get_application: Callable[[], object], **kwargs: object
) -> object:
    """Make the process of a live server, which pickles what it is given where it does not fork."""
    return start(host, partial(isolation.run_following, pointer, get_application), **kwargs)


# Lost messages


@dataclass
class Losses:
    """What happened in a `lossy` block so far."""

    delivered: int = 0
    dropped: int = 0


@contextmanager
def lossy(share: float, seed: int = 0) -> Iterator[Losses]:
    """Drop a share of all deliveries in this process until the block ends, as a channel layer is allowed to.

    A message is dropped where it would be received, so the members of a group lose messages independently of each
    other, and `send` and `group_send` notice nothing. Which messages of a channel are lost depends on `seed` alone and,
    for channels of `new_channel()`, on how many the block has made before: no timing changes it.

    Args:
        share: from 0 (none) to 1 (all).
        seed: another one loses others.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share!r}")
    losses = Losses()
    decisions: dict[str, random.Random] = {}
    lock = threading.Lock()
    real_open = SqliteChannelLayer.open
    real_new = names.new_specific

    def decide(channel: str) -> random.Random:
        label = channel
        if "!" in channel:  # the names themselves are random
            label = f"{sum('!' in known for known in decisions)}!"
        return decisions.setdefault(channel, random.Random(f"{seed} {label}"))

    def new_specific(prefix: str, client: str) -> str:
        channel = real_new(prefix, client)
        with lock:
            decide(channel)
        return channel

    def open_or_drop(
        layer: SqliteChannelLayer, process: LayerProcess, channel: str, full_name: str, entry: Entry
    ) -> Message | None:
        with lock:
            decision = decisions.get(full_name) or decide(full_name)
            if decision.random() < share:
                losses.dropped += 1
                return None
            losses.delivered += 1
        return real_open(layer, process, channel, full_name, entry)

    with (
        mock.patch.object(SqliteChannelLayer, "open", open_or_drop),
        mock.patch.object(names, "new_specific", new_specific),
    ):
        yield losses
