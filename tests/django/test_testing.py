"""What `channels_sqlite.testing` gives to users' tests. Whole test runs are in `test_testing_runs.py`."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import unittest
import warnings
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import channel_layers
from django.core.management import call_command
from django.db import connections, transaction
from django.test import SimpleTestCase, override_settings
from pytest_django.plugin import DjangoDbBlocker

import channels_sqlite
from channels_sqlite import get_sync_channel_layer, migrations
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.storage import isolation
from channels_sqlite.testing import IsolatedChannelLayersMixin, isolated_channel_layers, lossy, rooms
from channels_sqlite.testing import isolated as isolating
from tests.faults.support import count_messages, receive
from tests.support.databases import ROOT, ChannelDatabase, channel_database, migrated_template
from tests.support.layers import LayerFactory

__all__ = ["isolated_channel_layers"]

CHILD_DEADLINE_S = 60


@pytest.fixture
def isolated(no_leaks: None, isolated_channel_layers: None) -> None:
    """The fixture that users have, inside the look for what is left behind."""


def layers(**config: object) -> dict[str, dict[str, Any]]:
    """CHANNEL_LAYERS with one layer of ours."""
    return {"default": {"BACKEND": "channels_sqlite.layers.SqliteChannelLayer", "CONFIG": config}}


def schema(path: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE name LIKE 'channels_sqlite%' ORDER BY name"
        ).fetchall()


# Isolation


async def test_every_way_to_the_layer_sees_the_private_database(isolated: None) -> None:
    layer = channels_sqlite.get_channel_layer()
    facade = get_sync_channel_layer()

    def use_sync_code() -> None:
        facade.send("jobs", {"n": 2})
        async_to_sync(layer.send)("jobs", {"n": 3})

    await layer.send("jobs", {"n": 1})
    await asyncio.to_thread(use_sync_code)
    assert [(await receive(layer, "jobs"))["n"] for _ in range(3)] == [1, 2, 3]
    path = isolation.database_of("channels")
    assert path is not None
    assert count_messages(Path(path)) == 3


def test_a_test_sees_nothing_of_the_one_before() -> None:
    seen = []
    for _ in range(2):
        with isolating.isolated():
            layer = get_sync_channel_layer()
            seen.append(isolation.database_of("channels"))
            assert layer.group_count("room") == 0
            with pytest.raises(TimeoutError):
                layer.receive("jobs", timeout=0)
            layer.group_add("room", layer.new_channel())
            layer.send("jobs", {"n": 1})
            assert layer.group_count("room") == 1
    assert seen[0] != seen[1]
    assert [path for path in seen if path is None or Path(path).parent.exists()] == []


def test_what_was_opened_before_the_test_is_not_part_of_it(database: ChannelDatabase) -> None:
    outside = get_sync_channel_layer()
    outside.group_add("room", outside.new_channel())
    outside.send("jobs", {"n": 1})
    with isolating.isolated():
        assert outside.group_count("room") == 0
        outside.send("jobs", {"n": 2})
        assert outside.receive("jobs", timeout=10) == {"n": 2}
    assert outside.receive("jobs", timeout=10) == {"n": 1}
    outside.close()
    assert count_messages(database.path) == 1


def test_a_block_within_a_block_changes_nothing(isolated: None) -> None:
    get_sync_channel_layer().send("jobs", {"n": 1})
    with isolating.isolated():
        assert get_sync_channel_layer().receive("jobs", timeout=10) == {"n": 1}
        get_sync_channel_layer().send("jobs", {"n": 2})
    assert get_sync_channel_layer().receive("jobs", timeout=10) == {"n": 2}


async def test_layers_of_overridden_settings_are_isolated_too(isolated: None) -> None:
    for alias in ("channels", "default"):
        with override_settings(CHANNEL_LAYERS=layers(database=alias, capacity=1)):
            layer = channels_sqlite.get_channel_layer()
            await layer.send("jobs", {"n": 1})
            with pytest.raises(Exception, match="holds 1 of 1"):
                await layer.send("jobs", {"n": 2})
    assert {isolation.database_of(alias) for alias in ("channels", "default")} - {None} != set()
    for alias in ("channels", "default"):
        assert count_messages(Path(str(isolation.database_of(alias)))) == 1


def test_a_transaction_on_the_alias_does_not_matter(
    database: ChannelDatabase, django_db_blocker: DjangoDbBlocker
) -> None:
    with django_db_blocker.unblock(), isolating.isolated(), transaction.atomic(using="channels"):
        with connections["channels"].cursor() as cursor:
            cursor.execute("DELETE FROM channels_sqlite_message")  # now it holds the write lock
        get_sync_channel_layer().send("jobs", {"n": 1})
        layer = channels_sqlite.get_channel_layer()

        async def exchange() -> object:
            await layer.send("jobs", {"n": 2})
            return [(await receive(layer, "jobs"))["n"] for _ in range(2)]

        assert async_to_sync(exchange)() == [1, 2]
    assert count_messages(database.path) == 0


def test_commands_see_the_private_database(isolated: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("channels_send", "jobs", '{"n": 1}')
    assert get_sync_channel_layer().receive("jobs", timeout=10) == {"n": 1}
    call_command("channels_status", "--json")
    assert str(isolation.database_of("channels")) in capsys.readouterr().out


def test_a_process_that_the_test_starts_sees_the_private_database(isolated: None) -> None:
    code = (
        "import django; django.setup(); from channels_sqlite import get_sync_channel_layer;"
        'get_sync_channel_layer().send("jobs", {"n": 1})'
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        timeout=CHILD_DEADLINE_S,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": str(ROOT)},
    )
    assert get_sync_channel_layer().receive("jobs", timeout=10) == {"n": 1}


def test_the_layers_are_closed_and_open_again_in_the_next_test() -> None:
    own = SqliteChannelLayer()  # not in CHANNEL_LAYERS
    names = []
    for _ in range(2):
        with isolating.isolated():
            names.append(async_to_sync(own.new_channel)())
            get_sync_channel_layer().new_channel()
    assert names[0].partition("!")[0] != names[1].partition("!")[0]
    # The fixture looks after threads, sockets and connections.


@pytest.mark.parametrize("modules", [{}, {"channels_sqlite": None}], ids=["migrations", "no migrations"])
def test_the_template_is_what_migrate_makes(modules: dict[str, None], tmp_path: Path) -> None:
    with override_settings(MIGRATION_MODULES=modules, CHANNEL_LAYERS={}):
        made = rooms.template.__wrapped__()
    file = tmp_path / "template.sqlite3"
    file.write_bytes(made)
    assert schema(file) == schema(migrated_template()) != []
    with closing(sqlite3.connect(file)) as connection:
        applied = connection.execute("SELECT app, name FROM django_migrations").fetchall()
    names = sorted(path.stem for path in Path(migrations.__path__[0]).glob("0*.py"))
    assert applied == [("channels_sqlite", name) for name in names]


async def test_the_template_is_made_on_a_running_event_loop() -> None:
    assert rooms.template.__wrapped__().startswith(b"SQLite format 3")


def test_several_processes_may_make_a_database_at_once(isolated: None) -> None:
    path = str(isolation.database_of("another alias / of any name"))
    isolation.provide(path)
    before = Path(path).stat().st_ino
    isolation.provide(path)
    assert Path(path).stat().st_ino == before
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "exists", lambda self: False)  # as when the other one was quicker
        isolation.provide(path)
    assert Path(path).stat().st_ino == before
    assert len(list(Path(path).parent.iterdir())) == 2, "a draft was left behind"


def test_an_environment_that_names_a_room_which_is_gone_changes_nothing(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolation, "_pointer", str(tmp_path / "gone" / "now"))
        patch.setattr(isolation, "_owner", 0)
        assert not isolation.is_active()
        assert isolation.database_of("channels") is None


# The mixin


def run_test_case(case: type[unittest.TestCase]) -> unittest.TestResult:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(result)
    return result


def test_the_mixin_isolates_a_test_case_without_databases() -> None:
    seen = []

    class Tests(IsolatedChannelLayersMixin, SimpleTestCase):
        def setUp(self) -> None:  # which forgets to call that of its base
            get_sync_channel_layer().send("jobs", {"n": 1})

        def test_sync(self) -> None:
            assert get_sync_channel_layer().receive("jobs", timeout=10) == {"n": 1}
            seen.append(isolation.database_of("channels"))

        async def test_async(self) -> None:
            assert await receive(channels_sqlite.get_channel_layer(), "jobs") == {"n": 1}
            seen.append(isolation.database_of("channels"))

    result = run_test_case(Tests)
    assert result.testsRun == 2
    assert not result.errors + result.failures
    assert len(set(seen)) == 2
    assert not isolation.is_active()


def test_the_mixin_isolates_the_next_test_after_one_that_fails() -> None:
    class Tests(IsolatedChannelLayersMixin, unittest.TestCase):
        def test_1_fails(self) -> None:
            get_sync_channel_layer().send("jobs", {"n": 1})
            raise ValueError("on purpose")

        def test_2_sees_nothing_of_it(self) -> None:
            with pytest.raises(TimeoutError):
                get_sync_channel_layer().receive("jobs", timeout=0)

    result = run_test_case(Tests)
    assert [error for _, error in result.errors if "on purpose" not in error] == []
    assert (len(result.errors), result.failures) == (1, [])


def test_the_mixin_after_the_test_case_is_refused() -> None:
    with pytest.raises(TypeError, match=r"class Wrong\(IsolatedChannelLayersMixin, TestCase\)"):
        type("Wrong", (SimpleTestCase, IsolatedChannelLayersMixin), {})


# Without them


def test_the_real_database_in_a_test_run_is_warned_of(database: ChannelDatabase) -> None:
    with pytest.warns(RuntimeWarning, match="real database .* fixture isolated_channel_layers or the mixin"):
        get_sync_channel_layer().send("jobs", {"n": 1})
    get_sync_channel_layer().close()
    assert count_messages(database.path) == 1


@pytest.mark.parametrize("clone", ["", "_2", "_gw1"])
def test_a_test_database_on_disk_is_used_without_a_warning(tmp_path: Path, clone: str) -> None:
    with channel_database(tmp_path) as database, pytest.MonkeyPatch.context() as patch:
        renamed = tmp_path / f"test_channels{clone}.sqlite3"
        database.path.rename(renamed)
        patch.setitem(connections.settings["channels"], "NAME", str(renamed))
        patch.setitem(connections.settings["channels"]["TEST"], "NAME", str(tmp_path / "test_channels.sqlite3"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            get_sync_channel_layer().send("jobs", {"n": 1})
        get_sync_channel_layer().close()
        assert count_messages(renamed) == 1


async def test_a_transaction_that_keeps_the_layer_out_is_explained(no_leaks: None, tmp_path: Path) -> None:
    with channel_database(tmp_path, options={"timeout": 0.2}) as database:
        factory = LayerFactory()
        with closing(sqlite3.connect(database.path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(
                ChannelDatabaseError, match=r"TestCase keeps a transaction open.*isolated_channel_layers"
            ):
                await factory().send("jobs", {"n": 1})
            holder.execute("ROLLBACK")
        await factory.close()


# Lost messages


async def lost(seed: int, share: float = 0.3, count: int = 60) -> tuple[list[int], list[list[int]]]:
    """What a normal channel and two members of a group receive of `count` messages each."""
    with isolating.isolated(), lossy(share, seed) as losses:
        layer = channels_sqlite.get_channel_layer()
        members = [await layer.new_channel() for _ in range(2)]
        for member in members:
            await layer.group_add("room", member)
        for n in range(count):
            await layer.send("jobs", {"n": n})
            await layer.group_send("room", {"n": n})
        received: list[list[int]] = []
        for channel in ("jobs", *members):
            received.append([])
            while losses.delivered + losses.dropped < count * len(received):
                try:
                    message = await asyncio.wait_for(layer.receive(channel), 0.5)
                except TimeoutError:
                    continue
                except asyncio.TimeoutError:  # another class in Python 3.10
                    continue
                received[-1].append(message["n"])
        assert losses.delivered == sum(map(len, received))
        await layer.close()
    jobs, *rooms = received
    return jobs, rooms


async def test_the_seed_decides_which_messages_are_lost() -> None:
    jobs, rooms = await lost(1)
    assert (jobs, rooms) == await lost(1)
    assert (jobs, rooms) != await lost(2)
    assert rooms[0] != rooms[1], "members lose messages independently"
    for received in (jobs, *rooms):
        assert received == sorted(received)
        assert 24 <= len(received) < 60


@pytest.mark.parametrize("share", [0, 1])
async def test_none_and_all_are_shares(share: int) -> None:
    jobs, rooms = await lost(1, share=share, count=5)
    expected = [] if share else list(range(5))
    assert [jobs, *rooms] == [expected] * 3


def test_the_sync_facade_loses_messages_too(isolated: None) -> None:
    layer = get_sync_channel_layer()
    with lossy(share=0.5, seed=3) as losses:
        for n in range(30):
            layer.send("jobs", {"n": n})
        while losses.delivered + losses.dropped < 30:
            with suppress(TimeoutError):
                layer.receive("jobs", timeout=0)
    assert (losses.delivered + losses.dropped, losses.dropped > 5, losses.delivered > 5) == (30, True, True)
    layer.send("jobs", {"n": 1})
    assert layer.receive("jobs", timeout=10) == {"n": 1}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"), lossy(share):
        pass


def test_channels_own_manager_keeps_its_layers(isolated: None) -> None:
    assert channel_layers["default"] is channels_sqlite.get_channel_layer()
