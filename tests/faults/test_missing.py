"""The database cannot be found or used as the settings have it: the error says what to do, and then it works."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import connections
from pytest_django import DjangoDbBlocker

from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import CALLS, assert_works, move, query, refusals
from tests.support.databases import ChannelDatabase, fresh_file
from tests.support.layers import LayerFactory

pytestmark = pytest.mark.faults

MIGRATE = "manage.py migrate --database=channels"


# Files


async def test_a_missing_file_is_named_with_the_command_that_makes_it(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    database.path.unlink()
    for text in await refusals(layer):
        assert str(database.path) in text
        assert MIGRATE in text
    assert not database.path.exists(), "an empty file was left where there was none"
    fresh_file(database.path.parent)
    await assert_works(layer)


async def test_a_missing_folder_is_told_and_made_up_for(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    folder = database.path.parent / "later"
    connections.settings["channels"]["NAME"] = str(folder / "channels.sqlite3")
    for text in await refusals(layer):
        assert str(folder) in text
    folder.mkdir()
    fresh_file(folder)
    await assert_works(layer)


async def test_a_folder_in_the_place_of_the_file_is_told(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    database.path.unlink()
    database.path.mkdir()
    for text in await refusals(layer):
        assert "cannot be opened" in text
    database.path.rmdir()
    fresh_file(database.path.parent)
    await assert_works(layer)


async def test_a_file_that_was_moved_away_and_comes_back_has_lost_nothing(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    sender, reader = make_layer(), make_layer()
    for number in range(3):
        await sender.send("jobs", {"n": number})
    await sender.close()
    elsewhere = database.path.with_name("elsewhere.sqlite3")
    move(database.path, elsewhere)
    await refusals(reader)
    move(elsewhere, database.path)
    assert [(await reader.receive("jobs"))["n"] for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("content", ["empty", "other tables"])
async def test_a_database_without_our_tables_is_told_and_works_once_migrated(
    make_layer: LayerFactory, database: ChannelDatabase, django_db_blocker: DjangoDbBlocker, content: str
) -> None:
    layer = make_layer()
    database.path.unlink()
    database.path.touch()
    if content == "other tables":
        query(database.path, "CREATE TABLE something (id INTEGER)")
    for text in await refusals(layer):
        assert "tables are missing" in text
        assert MIGRATE in text
    _migrate(django_db_blocker)
    await assert_works(layer)


async def test_a_database_with_old_tables_is_told(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    query(database.path, "ALTER TABLE channels_sqlite_message DROP COLUMN payload")
    for text in await refusals(layer):
        assert MIGRATE in text


def _migrate(blocker: DjangoDbBlocker) -> None:
    """`migrate --database=channels`: in a thread, for Django does no such thing where an event loop runs."""

    def migrate() -> None:
        with blocker.unblock():
            call_command("migrate", database="channels", verbosity=0)
            connections["channels"].close()

    thread = threading.Thread(target=migrate)
    thread.start()
    thread.join()


# Settings


@contextmanager
def alias_settings(**changes: object) -> Iterator[None]:
    """DATABASES["channels"] with these values until the block ends."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setitem(connections.settings["channels"], name, value)
        yield


async def misconfigurations(layer: SqliteChannelLayer) -> list[str]:
    """What every call that needs the database says about the settings."""
    texts = []
    for call in CALLS.values():
        with pytest.raises(ImproperlyConfigured) as raised:
            await call(layer)
        texts.append(str(raised.value))
    return texts


async def test_a_missing_alias_is_named_with_those_that_exist(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer("somewhere")
    for text in await misconfigurations(layer):
        assert "'somewhere'" in text
        assert "DATABASES" in text
        assert "'channels'" in text
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(connections.settings, "somewhere", connections.settings["channels"])
        await assert_works(layer)
        await layer.close()


def test_a_missing_alias_is_no_fault_until_the_layer_is_used() -> None:
    SqliteChannelLayer(database="somewhere")


@pytest.mark.parametrize(
    "engine",
    [
        "django.db.backends.dummy",
        "django.db.backends.postgresql",
        "django.db.backends.mysql",
        "django.db.backends.oracle",
    ],
)
async def test_another_engine_is_refused_whether_its_driver_is_installed_or_not(
    make_layer: LayerFactory, engine: str
) -> None:
    layer = make_layer()
    with alias_settings(ENGINE=engine):
        for text in await misconfigurations(layer):
            assert engine in text
            assert "django.db.backends.sqlite3" in text
            assert "channels" in text
    await assert_works(layer)


@pytest.mark.parametrize("name", [":memory:", ""])
async def test_a_private_database_in_memory_is_refused(make_layer: LayerFactory, name: str) -> None:
    layer = make_layer()
    with alias_settings(NAME=name):
        for text in await misconfigurations(layer):
            assert repr(name) in text
            assert "path" in text
    await assert_works(layer)


async def test_an_old_sqlite_is_refused_with_both_versions(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
        patch.setattr(sqlite3, "sqlite_version", "3.34.1")
        for text in await misconfigurations(layer):
            assert "3.35" in text
            assert "3.34.1" in text
    await assert_works(layer)


async def test_the_oldest_supported_sqlite_is_taken(make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 35, 0))
    await assert_works(make_layer())


async def test_options_that_sqlite_does_not_take_are_told(make_layer: LayerFactory) -> None:
    layer = make_layer()
    with alias_settings(OPTIONS={"init_command": "PRAGMA journal_mode=WAL; NONSENSE"}):
        for text in await refusals(layer):
            assert "NONSENSE" in text
    await assert_works(layer)


async def test_a_path_object_and_a_file_uri_are_names_too(
    make_layer: LayerFactory, database: ChannelDatabase, tmp_path: Path
) -> None:
    with alias_settings(NAME=database.path):
        await assert_works(make_layer())
    second = tmp_path / "second.sqlite3"
    shutil.copyfile(fresh_file(tmp_path, "source.sqlite3"), second)
    with alias_settings(NAME=f"file:{second}?mode=rw"):
        layer = make_layer()
        await assert_works(layer)
        await layer.close()
    assert query(second, "SELECT count(*) > 0 FROM channels_sqlite_message") == [(1,)]
