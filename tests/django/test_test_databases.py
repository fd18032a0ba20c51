"""The layer in users' tests: over Django's test databases, and with overridden settings."""

import asyncio
import gc
import threading
from typing import Any

import pytest
from channels.layers import channel_layers, get_channel_layer
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

import channels_sqlite
from channels_sqlite.layers import SqliteChannelLayer
from tests.django.project import BARE, Project
from tests.faults.support import assert_works, count_messages, receive
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.waiting import aeventually

USERS_TESTS = """
    import asyncio
    import threading
    from asgiref.sync import async_to_sync
    from channels.layers import get_channel_layer
    from django.db import connections
    from django.test import TransactionTestCase

    async def round_trip(number):
        layer = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        await layer.send(f"jobs-{number}", {"n": number})
        await layer.send(channel, {"n": number})
        await layer.group_send("room", {"n": -1})
        received = [await asyncio.wait_for(layer.receive(name), 10) for name in (f"jobs-{number}", channel, channel)]
        await layer.group_discard("room", channel)
        await layer.close()
        return [message["n"] for message in received]

    class LayerTests(TransactionTestCase):
        databases = {"default", "channels"}

        def test_which_database(self):
            name = connections["channels"].settings_dict["NAME"]
            print("NAME", name, connections["channels"].is_in_memory_db())

        async def test_async(self):
            self.assertEqual(await round_trip(1), [1, 1, -1])

        def test_async_to_sync(self):
            for number in range(5):
                self.assertEqual(async_to_sync(round_trip)(number), [number, number, -1])

        def test_threads(self):
            results = []
            threads = [
                threading.Thread(target=lambda n=n: results.append(asyncio.run(exchange(n)))) for n in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(sorted(results), [(n, list(range(20))) for n in range(4)])
            async_to_sync(get_channel_layer().close)()

        def test_large_messages_in_order(self):
            async def main():
                layer = get_channel_layer()
                for n in range(20):
                    await layer.send("large", {"n": n, "data": b"x" * 300_000})
                got = [(await asyncio.wait_for(layer.receive("large"), 10))["n"] for _ in range(20)]
                await layer.close()
                return got
            self.assertEqual(asyncio.run(main()), list(range(20)))

        def test_the_models_see_the_same_database(self):
            from channels_sqlite.models import Message
            async_to_sync(get_channel_layer().send)("seen", {"n": 1})
            self.assertEqual(Message.objects.filter(queue="seen").count(), 1)
            async_to_sync(get_channel_layer().close)()

    async def exchange(number):
        layer = get_channel_layer()
        name = f"thread-{number}"
        for n in range(20):
            await layer.send(name, {"n": n})
        return number, [(await asyncio.wait_for(layer.receive(name), 20))["n"] for _ in range(20)]
"""


# `manage.py test`


@pytest.mark.processes
@pytest.mark.parametrize("options", ["documented", "none"])
def test_the_layer_works_over_the_test_database_in_memory(project: Project, options: str) -> None:
    if options == "none":
        project.settings(BARE)
    project.migrated()
    project.write("project/tests.py", USERS_TESTS)
    printed = project.manage("test", "project", "-v", "2")
    assert "NAME file:memorydb_channels?mode=memory&cache=shared True" in printed
    assert "OK" in printed
    assert count_messages(project.folder / "channels.sqlite3") == 0, "a test wrote into the real database"


@pytest.mark.processes
def test_the_layer_works_over_a_test_database_on_disk(project: Project) -> None:
    project.settings(
        """
        DATABASES["channels"]["TEST"] = {"NAME": BASE_DIR / "test_channels.sqlite3"}
        """
    )
    project.migrated()
    project.write("project/tests.py", USERS_TESTS)
    printed = project.manage("test", "project", "-v", "2")
    assert "test_channels.sqlite3 False" in printed
    assert "OK" in printed
    assert count_messages(project.folder / "channels.sqlite3") == 0, "a test wrote into the real database"
    assert not (project.folder / "test_channels.sqlite3").exists()


# Overridden settings


def layers(**config: object) -> dict[str, dict[str, Any]]:
    """CHANNEL_LAYERS with one layer of ours."""
    return {"default": {"BACKEND": "channels_sqlite.layers.SqliteChannelLayer", "CONFIG": config}}


async def test_overridden_settings_make_new_layers_and_the_old_one_comes_back(database: ChannelDatabase) -> None:
    with override_settings(CHANNEL_LAYERS=layers(capacity=5)):
        outer = channels_sqlite.get_channel_layer()
        assert outer.capacity == 5
        assert outer is get_channel_layer()
        await assert_works(outer)
        with override_settings(CHANNEL_LAYERS=layers(capacity=1, prefix="inner")):
            inner = channels_sqlite.get_channel_layer()
            assert inner is not outer
            assert inner.capacity == 1
            await inner.send("jobs", {"n": 1})
            with pytest.raises(Exception, match="holds 1 of 1"):
                await inner.send("jobs", {"n": 2})
            await inner.close()
        again = channels_sqlite.get_channel_layer()
        assert again.capacity == 5
        await assert_works(again)
        await again.close()
        await outer.close()


async def test_a_layer_that_nobody_closed_leaves_nothing_when_its_settings_go(database: ChannelDatabase) -> None:
    before = set(threading.enumerate())

    async def use() -> None:
        with override_settings(CHANNEL_LAYERS=layers(prefix="forgotten")):
            layer = channels_sqlite.get_channel_layer()
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            await layer.send(channel, {"n": 1})
            assert await receive(layer, channel) == {"n": 1}

    await use()
    gc.collect()
    await aeventually(lambda: set(threading.enumerate()) <= before, what="its thread has ended")
    # The fixture looks after connections and descriptors.


async def test_a_layer_with_a_waiting_receiver_that_nobody_closed_leaves_nothing(database: ChannelDatabase) -> None:
    async def use() -> None:
        with override_settings(CHANNEL_LAYERS=layers(prefix="forgotten")):
            layer = channels_sqlite.get_channel_layer()
            waiting = asyncio.create_task(layer.receive(await layer.new_channel()))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    await use()
    gc.collect()


async def test_another_backend_in_settings_is_told(database: ChannelDatabase) -> None:
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}):
        with pytest.raises(ImproperlyConfigured, match="InMemoryChannelLayer"):
            channels_sqlite.get_channel_layer()
        with pytest.raises(ImproperlyConfigured, match="'second'"):
            channels_sqlite.get_channel_layer("second")
    channel_layers.backends.clear()


# An in-memory database by hand, as the test runner makes it


async def test_a_shared_in_memory_database_works_for_several_layers_of_a_process(no_leaks: None, tmp_path: Any) -> None:
    import sqlite3
    from contextlib import closing

    uri = "file:memorydb_by_hand?mode=memory&cache=shared"
    with (
        channel_database(tmp_path) as database,
        closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as keeper,
        closing(sqlite3.connect(database.path)) as source,
        pytest.MonkeyPatch.context() as patch,
    ):
        source.backup(keeper)
        from django.db import connections

        patch.setitem(connections.settings["channels"], "NAME", uri)
        first, second = SqliteChannelLayer(), SqliteChannelLayer()
        try:
            channel = await second.new_channel()
            await second.group_add("room", channel)
            waiting = [asyncio.create_task(receive(second, name)) for name in (channel, "jobs")]
            await asyncio.sleep(0)
            await first.group_send("room", {"n": 1})
            await first.send("jobs", {"n": 2})
            assert await asyncio.gather(*waiting) == [{"n": 1}, {"n": 2}]

            async def burst(layer: SqliteChannelLayer, start: int) -> None:
                for number in range(start, start + 30):
                    await layer.send("burst", {"n": number})

            await asyncio.gather(burst(first, 0), burst(second, 30))
            received = [(await receive(first if number % 2 else second, "burst"))["n"] for number in range(60)]
            assert sorted(received) == list(range(60))
            for start in (0, 30):
                part = [number for number in received if start <= number < start + 30]
                assert part == sorted(part)
        finally:
            await first.close()
            await second.close()


async def test_the_layer_follows_when_the_name_of_the_database_changes(tmp_path: Any, no_leaks: None) -> None:
    """As when a test run begins: the settings then point elsewhere."""
    from django.db import connections

    from tests.support.databases import fresh_file

    with channel_database(tmp_path) as real:
        layer = SqliteChannelLayer()
        try:
            await layer.send("jobs", {"n": 1})
            test_file = fresh_file(tmp_path, "test_channels.sqlite3")
            with pytest.MonkeyPatch.context() as patch:
                patch.setitem(connections.settings["channels"], "NAME", str(test_file))
                await layer.send("jobs", {"n": 2})
                assert await receive(layer, "jobs") == {"n": 2}
                await assert_works(layer)
            assert count_messages(real.path) == 1
            assert await receive(layer, "jobs") == {"n": 1}
        finally:
            await layer.close()
