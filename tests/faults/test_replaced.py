"""The database breaks under a layer in use: it is noticed within seconds, told, and all goes on once it is mended."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import (
    NOTICED_S,
    assert_works,
    count_messages,
    move,
    next_is_marker,
    patient_of,
    query,
    receive_numbers,
    refusal,
    remove,
    replace,
)
from tests.support.child import Parent
from tests.support.databases import DOCUMENTED_OPTIONS, ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults


@pytest.fixture(params=[DOCUMENTED_OPTIONS], ids=["documented options"])
def database(request: pytest.FixtureRequest, no_leaks: None, tmp_path: Path) -> Iterator[ChannelDatabase]:
    """A database with the documented OPTIONS, or with those that the test asks for."""
    with channel_database(tmp_path, options=request.param) as database:
        yield database


in_both_forms = pytest.mark.parametrize(
    "database", [DOCUMENTED_OPTIONS, {}], indirect=True, ids=["documented options", "no options"]
)


# How it breaks, and how it is mended


def to_text(path: Path) -> None:
    note = path.with_name("note.txt")
    note.write_text("This is no database. " * 200)
    for file in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        file.unlink(missing_ok=True)
    os.replace(note, path)


def to_empty_file(path: Path) -> None:
    remove(path)
    path.touch()


def to_folder(path: Path) -> None:
    remove(path)
    path.mkdir()


def mend(path: Path) -> None:
    """Follow the advice: move the file away, migrate."""
    if path.is_dir():
        path.rmdir()
    remove(path)
    replace(path)  # in one step: a layer that looks meanwhile would make a database of a half copied file


BREAKAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "deleted": (remove, "does not exist"),
    "replaced by a text": (to_text, "damaged or is no SQLite database"),
    "replaced by an empty file": (to_empty_file, "tables are missing"),
    "replaced by a folder": (to_folder, "cannot be opened"),
}


@in_both_forms
@pytest.mark.parametrize("breakage", BREAKAGES)
async def test_a_broken_database_is_told_to_senders_and_receivers_wait_until_it_is_mended(
    make_layer: LayerFactory, database: ChannelDatabase, breakage: str
) -> None:
    do_break, said = BREAKAGES[breakage]
    layer, other = make_layer(), make_layer()
    await other.send("elsewhere", {"n": 0})
    async with patient_of(layer) as patient:
        do_break(database.path)
        assert said in await refusal(layer)
        assert said in await refusal(other)
        mend(database.path)
        await patient.assert_served(other)
    for one in (layer, other):
        await assert_works(one)


async def test_deleting_a_file_does_not_bring_up_an_empty_one(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    async with patient_of(layer):
        remove(database.path)
        await refusal(layer)
        assert not database.path.exists()
        mend(database.path)
        await assert_works(layer)


async def test_a_replaced_file_is_written_and_read_from_then_on(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, other = make_layer(), make_layer()
    await other.send("elsewhere", {"n": 0})
    async with patient_of(layer) as patient:
        replace(database.path)

        async def is_written() -> bool:
            await other.send("elsewhere", {"n": 1})
            return count_messages(database.path) > 0

        await aeventually(is_written, NOTICED_S, what="a message is in the new file")
        await patient.assert_served(other)


@in_both_forms
async def test_a_receiver_alone_notices_that_the_file_was_replaced(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    async with patient_of(layer) as patient:
        replace(database.path)
        # Somebody who never saw the old file, and sends at once.
        sender = make_layer()
        await sender.send(patient.channel, {"type": "to-channel"})
        await sender.send("work", {"type": "to-work"})
        assert await patient.received() == [{"type": "to-channel"}, {"type": "to-work"}]


async def test_a_process_that_is_not_receiving_notices_too(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    replace(database.path)
    sender = make_layer()

    async def is_member() -> bool:
        return await sender.group_channels("room") == [channel]

    await aeventually(is_member, NOTICED_S)
    await sender.group_send("room", {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]


async def test_a_discarded_membership_does_not_come_back_with_a_new_file(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    async with patient_of(layer) as patient:
        await layer.group_add("left", patient.channel)
        await layer.group_discard("left", patient.channel)
        replace(database.path)
        await patient.assert_served(make_layer())
        assert await layer.group_channels("left") == []


async def test_a_file_that_is_replaced_again_and_again_is_followed(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(3):
        replace(database.path)
        sender = make_layer()

        async def is_member(sender: SqliteChannelLayer = sender) -> bool:
            return await sender.group_channels("room") == [channel]

        await aeventually(is_member, NOTICED_S)
        await sender.group_send("room", {"n": number})
        assert await receive_numbers(layer, channel, 1) == [number]
        await sender.close()


async def test_replacing_is_told_in_the_log(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    async with patient_of(layer) as patient:
        with caplog.at_level(logging.INFO, "channels_sqlite"):
            replace(database.path)
            await patient.assert_served(make_layer())
    told = [record for record in caplog.records if "replaced" in record.getMessage()]
    assert told
    assert all(record.levelno >= logging.WARNING for record in told)


@in_both_forms
async def test_a_file_that_is_moved_away_and_back_has_lost_nothing(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, sender = make_layer(), make_layer()
    async with patient_of(layer) as patient:
        for number in range(3):
            await sender.send("jobs", {"n": number})
        elsewhere = database.path.with_name("elsewhere.sqlite3")
        move(database.path, elsewhere)
        assert "does not exist" in await refusal(sender)
        assert "does not exist" in await refusal(layer)
        move(elsewhere, database.path)
        await patient.assert_served(sender)
        assert await receive_numbers(layer, "jobs", 3) == [0, 1, 2]
        assert await next_is_marker(layer, "jobs")


async def test_tables_that_were_dropped_and_come_back_are_used_again(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, sender = make_layer(), make_layer()
    async with patient_of(layer) as patient:
        created = query(
            database.path, "SELECT sql FROM sqlite_master WHERE tbl_name LIKE 'channels_sqlite_%' AND sql IS NOT NULL"
        )
        tables = query(database.path, "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE '%channels_%'")
        for (table,) in tables:
            query(database.path, f"DROP TABLE {table}")
        assert "migrate --database=channels" in await refusal(layer)
        assert "migrate --database=channels" in await refusal(sender)
        for (statement,) in created:
            query(database.path, statement)
        await patient.assert_served(sender)


async def test_rows_that_somebody_deleted_are_made_again(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    """A database that was emptied by hand: the registration comes back, and with it the memberships."""
    layer, sender = make_layer(), make_layer()
    async with patient_of(layer) as patient:
        await sender.send("elsewhere", {"n": 0})
        for table in ("message", "membership", "listener", "process"):
            query(database.path, f"DELETE FROM channels_sqlite_{table}")
        await patient.assert_served(sender)


# Another process


async def wait_for_messages(parent: Parent) -> None:
    layer = parent.make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    parent.say(channel)
    while True:
        message = await layer.receive(channel)
        parent.say(message)
        if message == {"type": "last"}:
            return


@pytest.mark.processes
async def test_another_process_follows_to_the_new_file(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    child = start_process(wait_for_messages, database=database)
    channel = await child.ahear()
    layer = make_layer()
    await layer.group_send("room", {"type": "first"})
    assert await child.ahear() == {"type": "first"}
    replace(database.path)
    sender = make_layer()

    async def is_member() -> bool:
        return await sender.group_channels("room") == [channel]

    await aeventually(is_member, NOTICED_S)
    await sender.group_send("room", {"type": "last"})
    assert await child.ahear() == {"type": "last"}
    child.wait()


# Damage in place


GARBLE = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(int(sys.argv[2]))
    file.write(b"\\xde\\xad\\xbe\\xef" * (int(sys.argv[3]) // 4))
"""


def garble(path: Path, start: int, size: int) -> None:
    """Overwrite a part of the file. In a process of its own: closing it here would drop this process's locks."""
    subprocess.run([sys.executable, "-c", GARBLE, str(path), str(start), str(size)], check=True, timeout=30)


async def test_damage_in_place_is_told_and_mended(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer, other = make_layer(), make_layer()
    await other.send("elsewhere", {"n": 0})
    async with patient_of(layer) as patient:
        garble(database.path, 0, database.path.stat().st_size)
        garble(database.path.with_name(database.path.name + "-wal"), 0, 4096)
        # What is open may work on for a while, from caches; what is opened now cannot.
        assert "damaged" in await refusal(make_layer())
        mend(database.path)
        await patient.assert_served(make_layer())
        await assert_works(layer)

        async def other_works() -> bool:
            # Its first call may still meet the damage: that is how it hears of it.
            try:
                await other.send("elsewhere", {"n": 1})
            except ChannelDatabaseError:
                return False
            return True

        await aeventually(other_works, NOTICED_S)
        await assert_works(other)
