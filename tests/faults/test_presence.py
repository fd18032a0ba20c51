"""Who is here stays exact when processes, rows, files and keys go, and every end of it is told."""

import asyncio
import logging
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import InMemoryChannelLayer
from django.core.management import call_command
from django.db import transaction
from pytest_django import DjangoDbBlocker

from channels_sqlite import SyncChannelLayer
from channels_sqlite.codec import Codec
from channels_sqlite.delivery.departures import GROUPS_AT_ONCE
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.kinds import Kind
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.processes.liveness import machine_id
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.storage.store import Store
from tests.faults.support import (
    NOTICED_S,
    Clock,
    count_messages,
    next_is_marker,
    query,
    receive,
    replace,
)
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

PLAIN = Codec(max_message_size=10_000)
GONE_PID = 2**22 + 1  # more than Linux ever gives

ANN, BOB = {"name": "Ann"}, {"name": "Bob"}


def diff(group: str = "room", **parts: Any) -> dict[str, Any]:
    return {"type": "presence.diff", "group": group, "joins": {}, "leaves": {}, "updates": {}} | parts


async def keys(layer: SqliteChannelLayer, group: str = "room") -> list[str]:
    return [one.key for one in await layer.presence_list(group)]


async def watcher_of(layer: SqliteChannelLayer, group: str = "room") -> str:
    channel = await layer.new_channel()
    await layer.presence_watch(group, channel)
    return channel


@pytest.fixture
def orm(database: ChannelDatabase, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Django's own connections may be used."""
    with django_db_blocker.unblock():
        yield


Person = tuple[str, str, str, dict[str, Any]]
"""A group, a channel's local part, a key and an info."""

CLIENT = "deceased"


def haunt(path: Path, people: Sequence[Person], *, prefix: str = "asgi", codec: Codec = PLAIN) -> None:
    """Leave in the file what a process leaves that is killed, by now without its pid."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        store = Store(connection, prefix)
        now = time.time()
        store.begin()
        newest = store.newest_id()
        store.register(ProcessRow(CLIENT, GONE_PID, machine_id(), "", newest, "{}", 0), now)
        for group, local, key, info in people:
            channel = f"specific.{CLIENT}!{local}"
            store.join(group, CLIENT, channel, joined_id=newest, expires_at=None, now=now)
            store.attend(group, CLIENT, channel, key, codec.encode(info), heard_id=newest, expires_at=None, now=now)
        store.commit()


async def until_buried(path: Path) -> None:
    """Wait until nothing of the deceased is left."""

    def is_buried() -> bool:
        return not query(path, "SELECT client FROM channels_sqlite_process WHERE client = ?", CLIENT)

    await aeventually(is_buried, NOTICED_S)
    for table in ("membership", "presence"):
        assert not query(path, f"SELECT channel FROM channels_sqlite_{table} WHERE client = ?", CLIENT)


# Ends


async def test_a_closed_layer_takes_its_people_along(make_layer: LayerFactory) -> None:
    layer, other = make_layer(), make_layer()
    watcher = await watcher_of(layer)
    ann = await other.new_channel()
    await other.presence_join("room", ann, "ann", ANN)
    await other.presence_watch("another", ann)
    assert await receive(layer, watcher) == diff(joins={"ann": ANN})
    await other.close()
    assert await receive(layer, watcher) == diff(leaves={"ann": ANN})
    assert await keys(layer) == []


async def test_a_dead_process_takes_its_people_along_in_one_diff_for_each_group(
    layer: SqliteChannelLayer, database: ChannelDatabase
) -> None:
    watchers = {group: await watcher_of(layer, group) for group in ("a", "b", "many0")}
    await layer.presence_watch("a", "normal")
    people: list[Person] = [("ab"[n % 2], f"{n}", f"key{n}", {"n": n}) for n in range(1000)]
    # More groups than end in one transaction.
    people += [(f"many{n}", "x", "ann", ANN) for n in range(2 * GROUPS_AT_ONCE + 1)]
    haunt(database.path, people)
    told = {group: diff(group, leaves={key: info for at, _, key, info in people if at == group}) for group in watchers}
    for group, watcher in watchers.items():
        assert await receive(layer, watcher) == told[group]
        assert await next_is_marker(layer, watcher)
    assert await receive(layer, "normal") == told["a"]
    await until_buried(database.path)
    assert await keys(layer, "a") == []


async def test_another_tab_in_a_living_process_keeps_its_person_there(
    layer: SqliteChannelLayer, database: ChannelDatabase
) -> None:
    await layer.presence_join("room", "tab", "ann", ANN)
    haunt(database.path, [("room", "x", "ann", ANN), ("other room", "x", "ann", ANN)])
    watcher = await watcher_of(layer)
    await until_buried(database.path)
    (one,) = await layer.presence_list("room")
    assert (one.key, one.channels) == ("ann", 1)
    assert await next_is_marker(layer, watcher)


@pytest.mark.parametrize("face", ["layer", "facade"])
@pytest.mark.parametrize("call", ["presence_list", "presence_count", "presence_groups"])
async def test_the_first_list_of_a_process_has_no_dead_in_it(
    layer: SqliteChannelLayer, database: ChannelDatabase, face: str, call: str
) -> None:
    haunt(database.path, [("room", "x", "ann", ANN)])
    argument = "ann" if call == "presence_groups" else "room"
    if face == "layer":
        assert not await getattr(layer, call)(argument)
    else:
        assert not await asyncio.to_thread(getattr(SyncChannelLayer(layer), call), argument)


@pytest.mark.parametrize("way", ["join", "watch"])
async def test_who_comes_first_does_not_meet_the_dead(
    layer: SqliteChannelLayer, database: ChannelDatabase, way: str
) -> None:
    haunt(database.path, [("room", "x", "ann", ANN)])
    if way == "join":
        assert [one.key for one in await layer.presence_join("room", "normal", "bob", BOB)] == ["bob"]
    else:
        assert await layer.presence_watch("room", "normal") == []
    assert await next_is_marker(layer, "normal")


async def test_who_joins_for_a_dead_process_is_gone_within_seconds(make_layer: LayerFactory) -> None:
    layer, other = make_layer(group_expiry=None), make_layer()
    theirs = await other.new_channel()
    await other.close()
    watcher = await watcher_of(layer)
    await layer.presence_join("room", theirs, "ann", ANN)
    await layer.presence_watch("room", f"{theirs}watcher")
    assert await receive(layer, watcher) == diff(joins={"ann": ANN})
    assert await receive(layer, watcher) == diff(leaves={"ann": ANN})
    assert await layer.group_count("room") == 0


async def test_the_housekeeping_of_another_layer_takes_along_the_dead_of_this_one(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """It has neither the prefix nor the keys."""
    layer, other = make_layer(prefix="one", symmetric_encryption_keys=["a key"]), make_layer(prefix="two")
    await other.new_channel()
    watcher = await watcher_of(layer)
    go_on = threading.Event()
    inside.background(engine_of(layer)).submit(go_on.wait)  # this one does not get to it
    try:
        codec = Codec(max_message_size=10_000, keys=[b"a key"])
        haunt(database.path, [("room", "x", "ann", ANN)], prefix="one", codec=codec)
        assert await receive(layer, watcher) == diff(leaves={"ann": ANN})
        await until_buried(database.path)
    finally:
        go_on.set()
    assert await keys(layer) == []
    assert "cannot be read" not in caplog.text


async def test_expiry_is_told_where_nobody_receives(
    make_layer: LayerFactory, clock: Clock, database: ChannelDatabase
) -> None:
    """A process that only sends looks after normal channels, too."""
    layer = make_layer(group_expiry=100)
    await layer.presence_join("room", "normal", "ann", ANN)
    clock.shift_s += 60
    await layer.presence_watch("room", "other")
    clock.shift_s += 60

    async def ended() -> bool:
        return await keys(layer) == []

    await aeventually(ended, NOTICED_S)
    assert await receive(layer, "other") == diff(leaves={"ann": ANN})
    assert query(database.path, "SELECT count(*) FROM channels_sqlite_membership") == [(0,)]


async def test_an_idle_process_wakes_for_the_next_expiry(make_layer: LayerFactory) -> None:
    layer = make_layer(group_expiry=60)
    await layer.presence_join("room", "normal", "ann")
    due_s = inside.housekeeping(engine_of(layer)).trimming.due_in_s()
    assert due_s is not None
    assert due_s <= 60


async def test_consumers_that_died_without_a_goodbye_leave(make_layer: LayerFactory, clock: Clock) -> None:
    """Also those that just watch, and where nothing but diffs ever came."""
    layer = make_layer(expiry=60)
    inbox = engine_of(layer).inbox
    watcher = await watcher_of(layer)
    ann, spectator = await layer.new_channel(), await layer.new_channel()
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_watch("room", spectator)
    assert await receive(layer, watcher) == diff(joins={"ann": ANN})
    for channel in (ann, spectator):
        task = asyncio.create_task(layer.receive(channel))
        await aeventually(lambda: inbox.boxes.unread().channels == 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    bob = await layer.new_channel()
    await layer.presence_join("room", bob, "bob", BOB)
    assert await receive(layer, watcher) == diff(joins={"bob": BOB})
    clock.shift_s += 61
    waiting = asyncio.create_task(layer.receive(watcher))
    await inside.background(engine_of(layer)).acall(lambda: inbox.sweep(loops_closed=False))
    assert await waiting == diff(leaves={"ann": ANN})
    assert await keys(layer) == ["bob"]
    assert not inbox.audience.attends(spectator)
    assert not inbox.audience.attends(ann)


# Rows and files that go


RESETS = pytest.mark.parametrize("reset", [False, True], ids=["TransactionTestCase", "manage.py flush"])


@RESETS
@pytest.mark.usefixtures("orm")
async def test_who_is_here_comes_back_after_the_tables_were_emptied(make_layer: LayerFactory, reset: bool) -> None:
    layer, other = make_layer(), make_layer()
    ann, bob = await layer.new_channel(), await other.new_channel()
    (came,) = await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_update("room", ann, {"name": "Ann B."})
    await other.presence_join("room", bob, "bob", BOB)
    watcher = await watcher_of(layer)
    await sync_to_async(call_command)(
        "flush", database="channels", interactive=False, verbosity=0, reset_sequences=reset
    )

    async def all_are_back() -> bool:
        return await keys(layer) == ["ann", "bob"]

    await aeventually(all_are_back, NOTICED_S)
    listed = await layer.presence_list("room")
    assert [(one.key, one.info, one.channels) for one in listed] == [("ann", {"name": "Ann B."}, 1), ("bob", BOB, 1)]
    assert listed[0].since == came.since
    assert await layer.group_count("room") == 2
    await layer.presence_watch("room", watcher)
    await other.presence_leave("room", bob)
    assert await receive(layer, watcher) == diff(leaves={"bob": BOB})


@pytest.mark.usefixtures("orm")
async def test_others_are_told_of_those_who_come_back(make_layer: LayerFactory) -> None:
    layer, other = make_layer(), make_layer()
    bob = await other.new_channel()
    await other.presence_join("room", bob, "bob", BOB)
    await sync_to_async(call_command)("flush", database="channels", interactive=False, verbosity=0)
    watcher = await layer.new_channel()
    seen = {one.key for one in await layer.presence_watch("room", watcher)}
    if not seen:
        assert await receive(layer, watcher) == diff(joins={"bob": BOB})
    assert await keys(layer) == ["bob"]


async def test_who_is_here_comes_back_in_another_file(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer, other = make_layer(), make_layer()
    ann, bob = await layer.new_channel(), await other.new_channel()
    await layer.presence_join("room", ann, "ann", ANN)
    await other.presence_join("room", bob, "bob", BOB)
    replace(database.path)

    async def all_are_back() -> bool:
        try:
            return await keys(layer) == ["ann", "bob"] == await keys(other)
        except Exception:  # noqa: BLE001  # it notices that the file is another one
            return False

    await aeventually(all_are_back, NOTICED_S)
    await layer.presence_watch("room", ann)
    await other.presence_update("room", bob, ANN)
    assert await receive(layer, ann) == diff(updates={"bob": ANN})


async def test_a_restored_copy_brings_nobody_back_who_has_left(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    ann, bob = await layer.new_channel(), await layer.new_channel()
    await layer.presence_join("room", ann, "ann", ANN)
    copy = database.path.with_name("copy.sqlite3")
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("VACUUM INTO ?", (str(copy),))
    await layer.presence_leave("room", ann)
    await layer.presence_join("room", bob, "bob", BOB)
    for file in (database.path.with_name(database.path.name + suffix) for suffix in ("-wal", "-shm")):
        file.unlink(missing_ok=True)
    shutil.move(copy, database.path)

    async def as_it_is() -> bool:
        try:
            return await keys(layer) == ["bob"]
        except Exception:  # noqa: BLE001  # it notices that the file is another one
            return False

    await aeventually(as_it_is, NOTICED_S)
    assert await layer.group_channels("room") == [bob]


# Transactions of the user's


@pytest.mark.usefixtures("orm")
async def test_within_a_transaction_it_is_of_that_transaction(layer: SqliteChannelLayer) -> None:
    watcher = await watcher_of(layer)
    ann = await layer.new_channel()
    facade = SyncChannelLayer(layer)

    def join(fail: bool) -> None:
        with transaction.atomic("channels"):
            listed = facade.presence_join("room", ann, "ann", ANN)
            assert [one.key for one in listed] == ["ann"] == [one.key for one in facade.presence_list("room")]
            assert facade.presence_count("room") == 1
            assert facade.presence_groups("ann") == ["room"]
            facade.presence_update("room", ann, BOB)
            if fail:
                raise RuntimeError

    with pytest.raises(RuntimeError):
        await sync_to_async(join)(True)
    assert await keys(layer) == []
    await layer.presence_watch("room", ann)
    await sync_to_async(join)(False)
    assert await receive(layer, watcher) == diff(joins={"ann": ANN})
    assert await receive(layer, watcher) == diff(updates={"ann": BOB})
    assert await receive(layer, ann) == diff(updates={"ann": BOB})  # its arrival is in its list
    assert await keys(layer) == ["ann"]

    def leave() -> None:
        with transaction.atomic("channels"):
            facade.presence_leave("room", ann)

    await layer.presence_update("room", ann, ANN)  # waits there, and is withdrawn
    await sync_to_async(leave)()
    assert await receive(layer, watcher) == diff(updates={"ann": ANN})
    assert await receive(layer, watcher) == diff(leaves={"ann": ANN})
    await layer.group_send("room", {"n": 1})
    await layer.presence_join("room", watcher, "bob", BOB)
    assert await next_is_marker(layer, ann)


# Channels of other processes


async def test_another_process_joins_updates_and_ends_for_a_channel(make_layer: LayerFactory) -> None:
    """As a view does for a socket."""
    layer, view = make_layer(), make_layer()
    ann = await layer.new_channel()
    await view.presence_watch("room", ann)
    await view.presence_join("room", "normal", "bob", BOB)
    assert await receive(layer, ann) == diff(joins={"bob": BOB})
    assert [one.key for one in await view.presence_join("room", ann, "ann", ANN)] == ["ann", "bob"]
    await view.presence_update("room", ann, {"name": "Ann B."})
    await layer.group_send("room", {"n": 1})
    assert await receive(layer, ann) == diff(updates={"ann": {"name": "Ann B."}})
    assert await receive(layer, ann) == {"n": 1}
    await view.presence_update("room", "normal", ANN)
    await view.presence_leave("room", ann)

    async def is_gone() -> bool:
        return not engine_of(layer).inbox.audience.attends(ann)

    await aeventually(is_gone)
    assert await next_is_marker(layer, ann)  # what waited there went as well
    await layer.group_send("room", {"n": 2})
    assert await next_is_marker(layer, ann)


async def test_what_another_process_has_renewed_is_what_is_heard(make_layer: LayerFactory) -> None:
    layer, view = make_layer(), make_layer()
    ann = await layer.new_channel()
    await layer.presence_watch("room", ann)
    await layer.presence_join("room", "normal", "bob", BOB)  # waits at ann
    assert [one.key for one in await view.presence_watch("room", ann)] == ["bob"]
    another = await layer.new_channel()
    await view.send(another, {"type": "marker"})
    assert await receive(layer, another) == {"type": "marker"}  # the log was read up to here
    await view.presence_update("room", "normal", ANN)
    assert await receive(layer, ann) == diff(updates={"bob": ANN})


@pytest.mark.parametrize("retention", [86400, 0])
async def test_a_normal_channel_gets_back_no_diff_that_its_new_list_has(
    make_layer: LayerFactory, retention: int
) -> None:
    """A receive() that was cancelled with one in hand puts it back."""
    layer = make_layer(message_retention=retention)
    claims = engine_of(layer).inbox.claims

    async def taken() -> Entry:
        found = await asyncio.to_thread(claims.take_one, ["normal"], lambda: False)
        assert found is not None
        return found[1]

    async def put_back(entry: Entry) -> None:
        await engine_of(layer).outbox.write(lambda writing: claims.put_back_in(writing, {"normal": [entry]}))

    await layer.presence_watch("room", "normal")
    await layer.presence_join("room", "other", "ann", ANN)
    old = await taken()
    assert [one.key for one in await layer.presence_watch("room", "normal")] == ["ann"]
    await put_back(old)
    assert await next_is_marker(layer, "normal")
    await layer.presence_update("room", "other", BOB)
    await put_back(await taken())
    assert await receive(layer, "normal") == diff(updates={"ann": BOB})
    await layer.presence_update("room", "other", ANN)
    late = await taken()
    await layer.presence_leave("room", "normal")
    await put_back(late)
    assert await next_is_marker(layer, "normal")


# Rows that stay as long as somebody has not read them


@pytest.mark.parametrize("retention", [86400, 0])
async def test_diffs_stay_until_every_process_has_read_them(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock, retention: int
) -> None:
    layer = make_layer(message_retention=retention, group_expiry=None, expiry=60)
    await watcher_of(layer)
    with closing(sqlite3.connect(database.path, timeout=10)) as connection, connection:  # one that lives and sleeps
        slow = ProcessRow("slow", os.getpid(), machine_id(), "", 0, "{}", 0)
        Store(connection, "asgi").register(slow, time.time())
    await layer.presence_join("room", "other", "ann", ANN)
    presence = f"SELECT count(*) FROM channels_sqlite_message WHERE kind = {Kind.PRESENCE.value}"
    clock.shift_s += 90000
    trimming = inside.housekeeping(engine_of(layer)).trimming

    def trim() -> None:
        inside.look_from_start(trimming)
        trimming.trim(float("inf"))

    await inside.background(engine_of(layer)).acall(trim)
    assert query(database.path, presence) == [(1,)]
    query(database.path, "DELETE FROM channels_sqlite_process WHERE client = 'slow'")
    inbox = engine_of(layer).inbox
    await inside.background(engine_of(layer)).acall(inbox.progress.publish_soon)
    await inside.background(engine_of(layer)).acall(trim)
    assert query(database.path, presence) == [(0,)]


async def test_nothing_is_written_where_nobody_hears(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    ann = await layer.new_channel()
    await layer.presence_join("room", ann, "ann")
    await layer.presence_leave("room", ann)
    before = count_messages(database.path)
    await layer.presence_join("room", "normal", "ann")
    await layer.presence_leave("room", "normal")
    assert count_messages(database.path) == before


async def test_what_waits_for_a_normal_channel_is_bounded(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(capacity=10)
    await layer.presence_watch("room", "unheard")
    for n in range(100):
        await layer.presence_join("room", "normal", f"key{n}")
    waiting = query(database.path, "SELECT count(*) FROM channels_sqlite_message WHERE queue = 'unheard' AND state = 0")
    assert waiting[0][0] <= 10


# Encryption


async def test_infos_are_encrypted_and_keys_are_not(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(symmetric_encryption_keys=["a key"])
    watcher = await watcher_of(layer)
    await layer.presence_join("room", "normal", "the key of ann", {"name": "the secret of ann"})
    await layer.presence_update("room", "normal", {"name": "the secret of ann"})  # other bytes, and the same
    assert await receive(layer, watcher) == diff(joins={"the key of ann": {"name": "the secret of ann"}})
    assert await next_is_marker(layer, watcher)
    rows = query(database.path, "SELECT key, CAST(info AS BLOB) FROM channels_sqlite_presence WHERE key <> ''")
    rows += query(database.path, "SELECT queue, CAST(payload AS BLOB) FROM channels_sqlite_message")
    assert rows[0][0] == "the key of ann"
    assert not [row for row in rows if b"the secret" in row[1]]


async def test_an_info_under_another_key_is_an_empty_one(
    make_layer: LayerFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "channels_sqlite")
    layer, other = make_layer(symmetric_encryption_keys=["a key"]), make_layer(symmetric_encryption_keys=["another"])
    watcher = await watcher_of(layer)
    await other.presence_join("room", "normal", "ann", ANN)
    (one,) = await layer.presence_list("room")
    assert (one.key, one.info) == ("ann", {})
    assert await receive(layer, watcher) == diff(joins={"ann": {}})
    assert "group 'room': the info of 'ann' cannot be read and counts as {}" in caplog.text
    assert "Ann" not in caplog.text


async def test_a_damaged_diff_is_skipped_and_told(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    await layer.presence_watch("room", "watcher")
    await layer.presence_join("room", "normal", "ann", ANN)
    query(database.path, "UPDATE channels_sqlite_message SET payload = x'c1' WHERE queue = 'watcher'")
    await layer.presence_update("room", "normal", BOB)
    assert await receive(layer, "watcher") == diff(updates={"ann": BOB})
    assert "message rows that are no messages were skipped" in caplog.text


# Who is not told


async def test_a_consumer_in_the_group_that_is_not_present_gets_no_diff(layer: SqliteChannelLayer) -> None:
    """It would raise: it has no handler for it."""
    plain = await layer.new_channel()
    await layer.group_add("room", plain)
    await layer.presence_join("room", await layer.new_channel(), "ann", ANN)
    await layer.presence_join("room", "normal", "bob", BOB)
    await layer.flush()
    await layer.group_add("room", plain)
    assert await next_is_marker(layer, plain)


async def test_over_other_layers_there_is_none() -> None:
    facade = SyncChannelLayer(InMemoryChannelLayer())

    def call() -> None:
        for method, arguments in {
            "presence_join": ("room", "channel", "key"),
            "presence_update": ("room", "channel", {}),
            "presence_leave": ("room", "channel"),
            "presence_watch": ("room", "channel"),
            "presence_list": ("room",),
            "presence_count": ("room",),
            "presence_groups": ("key",),
        }.items():
            with pytest.raises(NotImplementedError, match=rf"{method}\(\) cannot be had over channels.layers"):
                getattr(facade, method)(*arguments)

    await asyncio.to_thread(call)
