"""Somebody empties the tables behind the layer's back: `manage.py flush`, or a TransactionTestCase between two tests.

The processes lose their registrations and memberships in the database, and with `manage.py flush` the ids begin anew.
What was waiting is gone, as was asked for. What is sent afterwards arrives, once and in order.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.exceptions import ChannelFull
from django.core.management import call_command
from pytest_django import DjangoDbBlocker

from channels_sqlite.engine import trimming
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.storage.store import Store
from tests.faults.support import (
    NOTICED_S,
    Clock,
    assert_works,
    count_messages,
    housekeep,
    query,
    receive,
    receive_numbers,
    set_clock,
)
from tests.processes.children import stay_member
from tests.processes.evidence import client_of, registered_clients, suspend_without_the_lock
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def orm(database: ChannelDatabase, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Django's own connections may be used, as its commands do."""
    with django_db_blocker.unblock():
        yield


RESETS = pytest.mark.parametrize("reset", [False, True], ids=["TransactionTestCase", "manage.py flush"])


def empty(reset: bool) -> None:
    """As Django does it: the first for a TransactionTestCase, the second for the command."""
    call_command("flush", database="channels", interactive=False, verbosity=0, reset_sequences=reset)


aempty = sync_to_async(empty)


@RESETS
async def test_groups_work_at_once_in_the_process_that_goes_on(layer: SqliteChannelLayer, reset: bool) -> None:
    old, new = await layer.new_channel(), await layer.new_channel()
    await layer.group_add("room", old)
    for number in range(5):
        await layer.group_send("room", {"n": number})
    assert await receive_numbers(layer, old, 5) == list(range(5))
    await aempty(reset)
    await layer.group_add("room", new)
    for number in range(5, 9):
        await layer.group_send("room", {"n": number})
        await layer.send(old, {"n": number + 100})
    assert await receive_numbers(layer, new, 4) == [5, 6, 7, 8]
    # It has never left, and the process that it is in still knows.
    assert await receive_numbers(layer, old, 8) == [5, 105, 6, 106, 7, 107, 8, 108]
    assert await layer.group_channels("room") == sorted([old, new])
    await assert_works(layer)


@RESETS
async def test_what_waited_is_gone_and_comes_back_for_nobody(layer: SqliteChannelLayer, reset: bool) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send("jobs", {"n": 1})
    await aempty(reset)
    await layer.send("jobs", {"n": 2})
    assert await receive_numbers(layer, "jobs", 1) == [2]


@RESETS
@pytest.mark.processes
async def test_a_process_that_receives_misses_nothing_that_is_sent_from_then_on(
    reset: bool, layer: SqliteChannelLayer, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    children = [start_process(stay_member, database=database, normal=f"jobs-{number}") for number in range(2)]
    names = [await child.ahear() for child in children]
    before = 3  # fewer than after: new ids meet and pass those that were read before
    for number in range(before):
        await layer.group_send("room", {"n": number})
        assert [await child.ahear() for child in children] == [["own", number]] * 2
    await aempty(reset)
    last = 40
    for number in range(before, last):
        await layer.group_send("room", {"n": number})
        for index, name in enumerate(names):
            await layer.send(name, {"n": number + 1000})
            await layer.send(f"jobs-{index}", {"n": number})
    for child in children:
        heard = [await child.ahear() for _ in range(3 * (last - before))]
        own = [number for kind, number in heard if kind == "own"]
        assert own == [each for number in range(before, last) for each in (number, number + 1000)]
        assert [number for kind, number in heard if kind == "normal"] == list(range(before, last))
    assert {client_of(name) for name in names} <= registered_clients(database)
    assert sorted(await layer.group_channels("room")) == sorted(names)


@RESETS
@pytest.mark.processes
async def test_a_broadcast_at_the_very_moment_reaches_members_that_no_row_tells_of(
    reset: bool, layer: SqliteChannelLayer, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    child = start_process(stay_member, database=database, normal="jobs")
    await child.ahear()
    await layer.group_send("room", {"n": 0})  # from here on, the sender knows of the process
    assert await child.ahear() == ["own", 0]
    suspend_without_the_lock(child, database)
    await aempty(reset)
    await layer.group_send("room", {"n": 1})
    await layer.group_send("room", {"n": 2})
    child.resume()
    assert [await child.ahear() for _ in range(2)] == [["own", 1], ["own", 2]]


@pytest.mark.processes
async def test_every_other_process_hears_of_it_at_once(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """Polling would take a minute here."""
    layer = make_layer(polling_interval=60)
    children = [
        start_process(stay_member, database=database, config={"polling_interval": 60}, normal=f"jobs-{number}")
        for number in range(2)
    ]
    names = [await child.ahear() for child in children]
    own = await layer.new_channel()
    for name in names:  # where the path is too long for a socket, only who knows it finds it
        await layer.send(name, {"n": 0})
    await aempty(True)
    await layer.group_add("room", own)
    expected = {client_of(name) for name in (*names, own)}
    await aeventually(lambda: registered_clients(database) >= expected, NOTICED_S)


@RESETS
async def test_capacity_holds_from_the_first_message_on(make_layer: LayerFactory, reset: bool) -> None:
    layer = make_layer(capacity=5)
    channel = await layer.new_channel()
    for number in range(50):  # far more ids than the capacity
        await layer.send("jobs", {"n": number})
        await receive(layer, "jobs")
    await layer.send("jobs", {"n": 0})
    await layer.send(channel, {"n": 0})
    await aempty(reset)
    for name, kept in (("jobs", 5), (channel, 4)):  # what the process held already, it holds
        for _ in range(kept):
            await layer.send(name, {"n": 1})
        with pytest.raises(ChannelFull):
            await layer.send(name, {"n": 2})


async def test_rows_with_ids_that_came_back_are_trimmed(
    make_layer: LayerFactory, database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "FROM_START_EVERY_S", 0.0)  # a minute
    with set_clock() as clock:
        layer = make_layer(message_retention=100)
        for number in range(20):
            await layer.send("jobs", {"n": number})
        await trimmed(layer, database, clock)
        await aempty(True)
        for number in range(3):
            await layer.send("jobs", {"n": number})
        await trimmed(layer, database, clock)


async def trimmed(layer: SqliteChannelLayer, database: ChannelDatabase, clock: Clock) -> None:
    """Wait until the rows of today are gone tomorrow."""
    clock.shift_s += 200

    async def gone() -> bool:
        await housekeep(layer)
        return count_messages(database.path) == 0

    await aeventually(gone, NOTICED_S)


async def test_a_registration_alone_that_is_deleted_is_made_again_and_nothing_comes_twice(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, sender = make_layer(), make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(5):
        await sender.send(channel, {"n": number})
    assert await receive_numbers(layer, channel, 5) == list(range(5))
    query(database.path, "DELETE FROM channels_sqlite_process")
    for number in range(5, 10):
        await sender.send(channel, {"n": number})
        await sender.group_send("room", {"n": number})
    assert await receive_numbers(layer, channel, 10) == [number for number in range(5, 10) for _ in range(2)]


async def test_a_reader_that_enters_again_before_anything_was_read_brings_back_nothing_old(
    make_layer: LayerFactory,
) -> None:
    """As when its wake-up socket had to move to another folder."""
    layer, sender = make_layer(), make_layer()
    await sender.group_add("room", await sender.new_channel())
    for number in range(5):
        await sender.group_send("room", {"n": number})
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    process = engine_of(layer)
    await inside.tell_of_socket(process)
    await sender.group_send("room", {"n": 5})
    assert await receive_numbers(layer, channel, 1) == [5]


async def test_a_registration_that_is_deleted_before_anything_was_read_brings_back_nothing_old(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, sender = make_layer(), make_layer()
    await sender.group_add("room", await sender.new_channel())
    for number in range(5):
        await sender.group_send("room", {"n": number})
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    query(database.path, "DELETE FROM channels_sqlite_process")
    await sender.group_send("room", {"n": 5})
    await layer.group_send("room", {"n": 6})
    assert await receive_numbers(layer, channel, 2) == [5, 6]


async def test_a_registration_whose_commit_fails_leaves_everything_as_it_was(
    layer: SqliteChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(3):
        await layer.send("jobs", {"n": number})
    process = engine_of(layer)
    before = process.inbox.members.all(), process.inbox.boxes.unread()
    with monkeypatch.context() as patch:
        fail_registering(patch)  # before: housekeeping may be the first to notice
        await aempty(True)
        with pytest.raises(ChannelDatabaseError, match="SQLite says: made to fail"):
            await layer.group_add("room", await layer.new_channel())
        assert (process.inbox.members.all(), process.inbox.boxes.unread()) == before
    await layer.group_send("room", {"n": 9})
    assert await receive_numbers(layer, channel, 1) == [9]


def fail_registering(patch: pytest.MonkeyPatch) -> None:
    """Make every commit fail whose transaction writes a registration."""
    registering: set[int] = set()
    real_commit, real_register = Store.commit, Store.register

    def register(store: Store, *args: Any) -> None:
        registering.add(id(store))
        real_register(store, *args)

    def commit(store: Store) -> None:
        if id(store) in registering:
            registering.discard(id(store))
            raise sqlite3.IntegrityError("made to fail")
        real_commit(store)

    patch.setattr(Store, "register", register)
    patch.setattr(Store, "commit", commit)


async def test_a_receiver_that_waits_while_nobody_writes_is_registered_again_soon(
    layer: SqliteChannelLayer, database: ChannelDatabase
) -> None:
    channel = await layer.new_channel()
    waiting = asyncio.create_task(layer.receive(channel))
    await aempty(True)
    await aeventually(lambda: client_of(channel) in registered_clients(database), NOTICED_S)
    await layer.send(channel, {"n": 1})
    assert await asyncio.wait_for(waiting, NOTICED_S) == {"n": 1}


@RESETS
async def test_processes_that_neither_receive_nor_send_are_registered_again_soon(
    make_layer: LayerFactory, database: ChannelDatabase, reset: bool
) -> None:
    """One of them looks after the file, and would notice in any case; nobody wakes those who wait for nothing."""
    layers = [make_layer() for _ in range(3)]
    for layer in layers:
        await layer.group_add("room", await layer.new_channel())
    clients = {engine_of(layer).client for layer in layers}
    await aempty(reset)

    def all_are_back() -> bool:
        return {client for (client,) in query(database.path, "SELECT client FROM channels_sqlite_process")} == clients

    await aeventually(all_are_back, NOTICED_S)
    assert await layers[0].group_count("room") == 3
