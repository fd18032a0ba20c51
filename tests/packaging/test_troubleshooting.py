"""Every error text and log line that the table of troubles quotes is what the code says when it happens."""

import asyncio
import errno
import gc
import os
import re
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from channels.consumer import AsyncConsumer
from channels.exceptions import ChannelFull
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import OperationalError, connections, transaction
from pytest_django import DjangoDbBlocker

from channels_sqlite.concurrency.reentry import exclusive
from channels_sqlite.exceptions import ChannelDatabaseError, LayerClosedError
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.models import Message
from channels_sqlite.processes.meeting_place import folder_beside
from channels_sqlite.reports import Reports
from channels_sqlite.storage import isolation
from channels_sqlite.sync import SyncChannelLayer
from tests.faults.support import query, set_clock
from tests.packaging.pages import sections, table
from tests.support import inside
from tests.support.databases import ChannelDatabase, channel_database, fresh_file
from tests.support.waiting import aeventually, eventually

DEADLINE_S = 30

PAGE = "docs/troubleshooting.md"
TROUBLES = [row for title in sections(PAGE)[1:] for row in table(PAGE, title)]
CODE = [code for row in TROUBLES for code in re.findall(r"`([^`]+)`", row[0])]
QUOTES = [code for code in CODE if " " in code]
"""What stands between backticks in the first column and is more than a name."""


@dataclass(frozen=True)
class Scene:
    """Where troubles happen: a migrated database under the alias `channels`, the log, and a folder."""

    database: ChannelDatabase
    log: pytest.LogCaptureFixture
    folder: Path

    def told(self, part: str) -> str:
        """Wait for a line in the log that has `part`; return the whole log."""
        eventually(lambda: part in self.log.text, DEADLINE_S, what=f"a line with {part!r}")
        return self.log.text


@pytest.fixture
def scene(
    database: ChannelDatabase, caplog: pytest.LogCaptureFixture, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> Iterator[Scene]:
    caplog.set_level("WARNING", "channels_sqlite")
    with django_db_blocker.unblock():
        yield Scene(database, caplog, tmp_path)


@contextmanager
def facade(**config: object) -> Iterator[SyncChannelLayer]:
    """The sync facade of a new layer."""
    layer = SyncChannelLayer(SqliteChannelLayer(**config))
    try:
        yield layer
    finally:
        layer.close()


@contextmanager
def locked(database: ChannelDatabase) -> Iterator[None]:
    """Another connection holds the write lock."""
    with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def said(error: type[BaseException], call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(error) as raised:
        call(*arguments)
    return str(raised.value)


# Settings and files


def faulty_config(scene: Scene) -> str:
    return said(ImproperlyConfigured, lambda: SqliteChannelLayer(capcity=5))


def missing_alias(scene: Scene) -> str:
    with facade(database="messages") as layer:
        return said(ImproperlyConfigured, layer.send, "jobs", {})


def missing_file(scene: Scene) -> str:
    scene.database.path.unlink()
    with facade() as layer:
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def missing_tables(scene: Scene) -> str:
    scene.database.path.unlink()
    scene.database.path.touch()
    with facade() as layer:
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def missing_table_of_a_model(scene: Scene) -> str:
    scene.database.path.unlink()
    return said(OperationalError, lambda: Message.objects.using("channels").count())


def no_rights(scene: Scene) -> str:
    with pytest.MonkeyPatch.context() as patch, facade() as layer:
        # Holds for root as well.
        patch.setitem(connections.settings["channels"], "NAME", f"file:{scene.database.path}?mode=ro")
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def refused_pragma(scene: Scene) -> str:
    options = {"init_command": "PRAGMA query_only=1"}
    with channel_database(scene.folder, alias="readonly", options=options), facade(database="readonly") as layer:
        return said(ImproperlyConfigured, layer.send, "jobs", {})


def call_at_startup(scene: Scene) -> str:
    scene.database.path.unlink()
    with pytest.MonkeyPatch.context() as patch, facade() as layer:
        patch.setattr("channels_sqlite.storage.errors.code_at_startup", lambda: "shop.apps.ShopConfig.ready()")
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def no_descriptor(scene: Scene) -> str:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patch, facade() as layer:
        patch.setattr("channels_sqlite.processes.meeting_place.MeetingPlace.make_sure", refuse)
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def unusable_side_file(scene: Scene) -> str:
    """As if root had left a lock file; root itself may open any."""
    (folder_beside(str(scene.database.path)) / "housekeeping.lock").mkdir(parents=True)
    with facade() as layer:
        layer.new_channel()
        return scene.told("cannot be used by")


def damaged(scene: Scene) -> str:
    scene.database.path.write_bytes(b"no database" * 1000)
    with facade() as layer:
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def full(scene: Scene) -> str:
    options = {"init_command": "PRAGMA max_page_count=30"}
    with channel_database(scene.folder, alias="small", options=options), facade(database="small") as layer:
        return said(ChannelDatabaseError, layer.send, "jobs", {"data": b"x" * 200_000})


def replaced(scene: Scene) -> str:
    with facade() as layer:
        layer.new_channel()
        fresh_file(scene.folder, "new.sqlite3").replace(scene.database.path)
        return scene.told("replaced")


# Locks and transactions


def locked_while_in_use(scene: Scene) -> str:
    with channel_database(scene.folder, alias="hasty", options={"timeout": 0.1}) as hasty:
        layer = SqliteChannelLayer(database="hasty")

        async def send() -> str:
            await layer.send("jobs", {})
            with locked(hasty):
                try:
                    await layer.send("jobs", {})
                except ChannelDatabaseError as error:
                    return str(error)
                finally:
                    await layer.close()
            return ""

        return asyncio.run(send())


def locked_by_another(scene: Scene) -> str:
    with (
        channel_database(scene.folder, alias="hasty", options={"timeout": 0.1}) as hasty,
        closing(sqlite3.connect(hasty.path, isolation_level=None)) as other,
        facade(database="hasty") as layer,
    ):
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        return said(ChannelDatabaseError, layer.send, "jobs", {})


def deferred_transaction(scene: Scene) -> str:
    with channel_database(scene.folder, alias="lazy", options={}) as lazy, facade(database="lazy") as layer:
        layer.send("jobs", {})
        with transaction.atomic("lazy"):
            assert Message.objects.using("lazy").count() == 1
            with closing(sqlite3.connect(lazy.path)) as other:
                other.execute("DELETE FROM channels_sqlite_message")
                other.commit()
            return said(ChannelDatabaseError, layer.send, "jobs", {})


# Delivery


def no_wake_up(scene: Scene) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("channels_sqlite.processes.meeting_place.why_unusable", lambda folder: "it is no folder")
        patch.setattr("channels_sqlite.waking.wake_socket.LONGEST_SOCKET_PATH_BYTES", 0)
        patch.setenv("TMPDIR", str(scene.folder / ("x" * 120)))
        patch.setattr("tempfile.tempdir", None)
        (scene.folder / ("x" * 120)).mkdir()
        with facade() as layer:
            layer.new_channel()
            return scene.told("no wake-up socket")


def full_channel(scene: Scene) -> str:
    with facade() as layer:
        for _ in range(100):
            layer.send("jobs", {})
        return said(ChannelFull, layer.send, "jobs", {})


def full_member(scene: Scene) -> str:
    with facade(capacity=1) as layer:
        layer.group_add("room", "jobs")
        for _ in range(2):
            layer.group_send("room", {})
        return scene.told("missed")


def stalled_member(scene: Scene) -> str:
    async def stall() -> None:
        layer = SqliteChannelLayer(capacity=1)
        stalled, *others = [await layer.new_channel() for _ in range(4)]
        waiting = [asyncio.create_task(layer.receive(channel)) for channel in others]

        async def send() -> bool:
            with suppress(ChannelFull):
                await layer.send(stalled, {})
            return "dropped" in scene.log.text

        try:
            await aeventually(send, DEADLINE_S)
        finally:
            await layer.close()
            await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(stall())
    return scene.log.text


def dead_consumer(scene: Scene) -> str:
    async def die() -> None:
        layer = SqliteChannelLayer(expiry=0.2)
        channel = await layer.new_channel()
        await layer.group_add("room", channel)
        receiving = asyncio.create_task(layer.receive(channel))
        await aeventually(lambda: engine_of(layer).inbox.boxes.unread().channels, DEADLINE_S)
        receiving.cancel()
        await layer.group_send("room", {})
        try:
            await aeventually(lambda: "abandoned" in scene.log.text, DEADLINE_S)
        finally:
            await layer.close()

    asyncio.run(die())
    return scene.log.text


def ended_membership(scene: Scene) -> str:
    async def wait() -> None:
        layer = SqliteChannelLayer(group_expiry=3600)
        try:
            with set_clock() as clock:
                await layer.group_add("room", await layer.new_channel())
                clock.shift_s = 3601
                await layer.group_send("room", {})
                await aeventually(lambda: "group_expiry" in scene.log.text, DEADLINE_S)
        finally:
            await layer.close()

    asyncio.run(wait())
    return scene.log.text


def rows_under_another_key(scene: Scene) -> str:
    with facade(symmetric_encryption_keys=[Fernet.generate_key()]) as layer:
        layer.send("jobs", {})
    with facade(symmetric_encryption_keys=[Fernet.generate_key()]) as layer:
        with suppress(TimeoutError):
            layer.receive("jobs", timeout=0)
        return scene.told("skipped")


# Calls


def receiving_elsewhere(scene: Scene) -> str:
    with facade() as one, facade() as other:
        return said(ValueError, one.receive, other.new_channel(), 0)


def unserialisable(scene: Scene) -> str:
    with facade() as layer:
        return said(TypeError, layer.send, "jobs", {"when": date(2020, 1, 1)})


def sync_call_on_a_loop(scene: Scene) -> str:
    with facade() as layer:

        async def call() -> str:
            return said(SynchronousOnlyOperation, layer.send, "jobs", {})

        return asyncio.run(call())


def forgotten_await(scene: Scene) -> str:
    layer = SqliteChannelLayer()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer.send("jobs", {})  # type: ignore[unused-coroutine]  # what is shown here
        gc.collect()
    return str(caught[0].message)


def closed_while_waiting(scene: Scene) -> str:
    async def close() -> str:
        layer = SqliteChannelLayer()
        waiting = asyncio.create_task(layer.receive(await layer.new_channel()))
        await asyncio.sleep(0)
        await layer.close()
        try:
            await waiting
        except LayerClosedError as error:
            return str(error)
        return ""

    return asyncio.run(close())


def at_the_end(scene: Scene) -> str:
    """As on an event loop when no thread can be started: the job is done there, where nothing can be opened."""

    async def send() -> str:
        layer = SqliteChannelLayer()
        inside.end_threads(engine_of(layer))
        try:
            await layer.send("jobs", {})
        except LayerClosedError as error:
            return str(error)
        return ""

    return asyncio.run(send())


def call_in_a_call(scene: Scene) -> str:
    with facade() as layer, exclusive:
        return said(RuntimeError, layer.send, "jobs", {})


def emptied_tables(scene: Scene) -> str:
    async def receive() -> str:
        layer = SqliteChannelLayer()
        try:
            await layer.new_channel()
            query(scene.database.path, "DELETE FROM channels_sqlite_process")
            waiting = asyncio.create_task(layer.receive("jobs"))
            await aeventually(lambda: "registering again" in scene.log.text, DEADLINE_S)
            await layer.send("jobs", {})
            await waiting
        finally:
            await layer.close()
        return scene.log.text

    return asyncio.run(receive())


def unreadable_info(scene: Scene) -> str:
    with facade(symmetric_encryption_keys=["another"]) as layer:
        layer.presence_join("room", "jobs", "ann")
    with facade() as layer:
        layer.presence_list("room")
    return scene.log.text


def no_handler_for_presence(scene: Scene) -> str:
    with facade() as layer:
        layer.presence_watch("room", "jobs")
        layer.presence_join("room", "other", "ann")
        message = layer.receive("jobs", 0)
    return said(ValueError, lambda: asyncio.run(AsyncConsumer().dispatch(message)))


def lost_at_closing(scene: Scene) -> str:
    Reports().lost("jobs", 3, LayerClosedError("the database stayed locked"))
    return scene.log.text


def held_up(scene: Scene) -> str:
    Reports().held_up(4711, 3.0, 70_000_000)
    return scene.log.text


# Tests


def real_database_in_a_test(scene: Scene) -> str:
    with warnings.catch_warnings(record=True) as caught, facade() as layer:
        warnings.simplefilter("always")
        layer.send("jobs", {})
    return str(caught[0].message)


def transaction_of_a_test(scene: Scene) -> str:
    assert isolation.in_test_run()
    return locked_while_in_use(scene)


PROVOKED: dict[str, Callable[[Scene], str]] = {
    "CONFIG of a SqliteChannelLayer has faults": faulty_config,
    "which DATABASES does not have": missing_alias,
    "its tables are missing or old": missing_tables,
    'does not exist; run "python manage.py migrate': missing_file,
    "no such table: channels_sqlite_message": missing_table_of_a_model,
    "stayed locked for": locked_while_in_use,
    "it stays locked by another connection": locked_by_another,
    "cannot write: it has read before and others have written since": deferred_transaction,
    "messages are found by polling alone": no_wake_up,
    "holds 100 of 100 unread messages": full_channel,
    "members here were full and missed a message": full_member,
    "messages were dropped since the last line": stalled_member,
    "channels abandoned by their consumers were taken out of their groups": dead_consumer,
    "as group_expiry": ended_membership,
    "cannot receive on": receiving_elsewhere,
    "is not serializable": unserialisable,
    "of the sync facade was called in a thread whose event loop is running": sync_call_on_a_loop,
    "was never awaited": forgotten_await,
    "the channel layer was closed": closed_while_waiting,
    "the interpreter is ending": at_the_end,
    "while another call of it is under way in this very thread": call_in_a_call,
    "was gone; registering again": emptied_tables,
    "closing lost": lost_at_closing,
    "no checkpoint for": held_up,
    "cannot be read and counts as {}": unreadable_info,
    "No handler for message type presence.diff": no_handler_for_presence,
    "message rows that are no messages were skipped": rows_under_another_key,
    "this process may not write it": no_rights,
    "sets PRAGMA query_only": refused_pragma,
    "so that migrate cannot run either": call_at_startup,
    "no file descriptor left": no_descriptor,
    "cannot be used by this process's user": unusable_side_file,
    "is full; free some space": full,
    "the file is damaged or is no SQLite database": damaged,
    "the database was replaced or removed while in use": replaced,
    "uses the real database": real_database_in_a_test,
    "keeps a transaction open on every alias": transaction_of_a_test,
}


def test_every_trouble_has_a_cause_and_a_remedy() -> None:
    assert len(TROUBLES) >= 20
    assert all(len(row) == 3 and all(row) for row in TROUBLES)


def test_every_quote_is_provoked_here() -> None:
    assert len(QUOTES) == len(set(QUOTES))
    assert sorted(QUOTES) == sorted(PROVOKED)


@pytest.mark.parametrize("quote", sorted(PROVOKED))
def test_a_quote_is_what_the_code_says(scene: Scene, quote: str) -> None:
    assert quote in PROVOKED[quote](scene)
