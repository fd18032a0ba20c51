"""`recovered` never lies: where ids may come back, or commits are lost, positions from before are good for nothing."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from channels_sqlite.delivery import epochs
from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import query, remove, remove_folder, replace
from tests.history.conftest import KeepingFactory
from tests.history.test_reading import send, texts
from tests.support.databases import ChannelDatabase
from tests.support.waiting import aeventually

NOTICED_S = 20.0  # a few seconds, on a machine that does other things too


async def position_of(layer: SqliteChannelLayer) -> str:
    return (await layer.group_history("room")).position


def note(database: ChannelDatabase) -> Path:
    return Path(f"{database.path}.wake/history")


async def assert_unknown(layer: SqliteChannelLayer, position: str, kept: list[int]) -> None:
    """A position says nothing, and neither does it once its id is reached again."""
    for _ in range(2):
        history = await layer.group_history("room", since=position)
        assert (texts(history), history.recovered) == (kept, False)
        for number in range(100, 120):
            await send(layer, number)
        kept = [*kept, *range(100, 120)]
    fresh = await layer.group_history("room", since=history.position)
    assert (texts(fresh), fresh.recovered) == ([*range(100, 120)], True), "the present position is good again"


# What keeps an epoch


async def test_restarts_keep_it(make_keeping: KeepingFactory) -> None:
    layer = make_keeping()
    await send(layer, 1)
    position = await position_of(layer)
    await layer.close()
    await send(layer, 2)
    await layer.close()
    history = await make_keeping().group_history("room", since=position)
    assert (texts(history), history.recovered) == ([2], True)


async def test_a_vacuum_and_a_checkpoint_keep_it(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping()
    position = await position_of(layer)
    await send(layer, 1)
    with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await layer.close()
    history = await layer.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([1], True)


async def test_the_largest_id_may_go_and_it_is_kept(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping()
    position = await position_of(layer)
    await send(layer, 1)
    await layer.send("jobs", {"type": "last"})
    newest = await position_of(layer)
    query(database.path, "DELETE FROM channels_sqlite_message WHERE kind = 0")
    await layer.close()
    assert (await layer.group_history("room", since=newest)).recovered
    history = await layer.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([1], True)


async def test_a_layer_without_histories_on_the_same_file_does_not_matter(make_keeping: KeepingFactory) -> None:
    layer, other = make_keeping(), make_keeping(history=None, prefix="other")
    position = await position_of(layer)
    await send(layer, 1)
    await other.send("jobs", {"type": "any"})
    await other.flush()
    history = await layer.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([1], True)


# What ends an epoch


async def test_a_file_that_was_deleted(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping()
    await send(layer, 1, 2, 3)
    position = await position_of(layer)
    await layer.close()
    remove(database.path)
    replace(database.path)
    await assert_unknown(layer, position, [])


async def test_a_file_that_was_replaced_while_it_was_open(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping()
    await send(layer, 1, 2, 3)
    position = await position_of(layer)
    replace(database.path)

    async def noticed() -> bool:
        return not (await layer.group_history("room", since=position)).recovered

    await aeventually(noticed, NOTICED_S)
    await assert_unknown(layer, position, [])


@pytest.mark.parametrize("way", ["in its place", "beside it, and moved", "with the folder"])
async def test_a_file_that_was_restored_from_a_copy(
    make_keeping: KeepingFactory, database: ChannelDatabase, tmp_path: Path, way: str
) -> None:
    layer = make_keeping()
    await send(layer, 1)
    await layer.close()
    copy, folder = tmp_path / "copy", tmp_path / "copy.wake"
    shutil.copy(database.path, copy)
    shutil.copytree(f"{database.path}.wake", folder)
    await send(layer, 2, 3)
    position = await position_of(layer)
    await layer.close()
    if way == "in its place":
        shutil.copy(copy, database.path)  # the same inode, in the same boot: what was noted is larger
    else:
        remove(database.path)
        os.replace(copy, database.path)
    if way == "with the folder":
        shutil.rmtree(f"{database.path}.wake")
        os.replace(folder, f"{database.path}.wake")
    await assert_unknown(layer, position, [1])


async def test_what_was_kept_before_a_loss_has_no_position_that_says_more(
    make_keeping: KeepingFactory, database: ChannelDatabase, tmp_path: Path
) -> None:
    """A message may have been lost after any of the entries, of which nobody knows."""
    layer = make_keeping()
    await send(layer, 1, 2)
    await layer.close()
    shutil.copy(database.path, tmp_path / "copy")
    await send(layer, 3)
    await layer.close()
    remove(database.path)
    os.replace(tmp_path / "copy", database.path)
    history = await layer.group_history("room", last=10)
    assert texts(history) == [1, 2]
    await send(layer, 4)
    for entry in history.entries:
        assert not (await layer.group_history("room", since=entry.position)).recovered
    complete = await layer.group_history("room", since=history.position)
    assert (texts(complete), complete.recovered) == ([4], True)


async def test_another_boot(make_keeping: KeepingFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut may have taken the last commits."""
    layer = make_keeping()
    await send(layer, 1)
    position = await position_of(layer)
    await layer.close()
    monkeypatch.setattr(epochs, "machine_id", lambda: "another-boot/1")
    await assert_unknown(layer, position, [1])


async def test_a_note_that_somebody_has_removed_while_nobody_had_it(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping()
    await send(layer, 1)
    position = await position_of(layer)
    await layer.close()
    note(database).unlink()
    await assert_unknown(layer, position, [1])


async def test_a_note_that_is_removed_while_it_is_in_use_is_made_anew(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping()
    await send(layer, 1)
    position = await position_of(layer)
    noted = note(database).read_bytes()
    remove_folder(note(database).parent)
    await aeventually(lambda: note(database).exists() and note(database).read_bytes() == noted, NOTICED_S)
    await layer.close()
    assert (await layer.group_history("room", since=position)).recovered


async def test_tables_that_were_all_emptied(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping()
    await send(layer, 1, 2, 3)
    position = await position_of(layer)
    with closing(sqlite3.connect(database.path, isolation_level=None, timeout=10)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'channels_%'")
        connection.execute("BEGIN IMMEDIATE")  # as `manage.py flush` does it
        for (table,) in tables.fetchall():
            connection.execute(f"DELETE FROM {table}")
        connection.execute("COMMIT")
    await assert_unknown(layer, position, [])


async def test_the_command_that_flushes(make_keeping: KeepingFactory, database: ChannelDatabase) -> None:
    layer = make_keeping()
    await send(layer, 1, 2, 3)
    position = await position_of(layer)
    await layer.flush()
    await assert_unknown(layer, position, [])


async def test_a_loss_is_noticed_for_every_prefix(
    make_keeping: KeepingFactory, database: ChannelDatabase, tmp_path: Path
) -> None:
    one, other = make_keeping(prefix="one"), make_keeping(prefix="other")
    for layer in (one, other):
        await send(layer, 1)
    for layer in (one, other):
        await layer.close()
    shutil.copy(database.path, tmp_path / "copy")
    await send(one, 2)
    await send(other, 2)
    positions = [await position_of(layer) for layer in (one, other)]
    for layer in (one, other):
        await layer.close()
    shutil.copy(tmp_path / "copy", database.path)
    for layer, position in zip((one, other), positions, strict=True):
        await assert_unknown(layer, position, [1])


async def test_live_messages_of_a_new_epoch_have_positions_that_are_good(
    make_keeping: KeepingFactory, database: ChannelDatabase
) -> None:
    layer = make_keeping()
    await send(layer, 1)
    await layer.close()
    remove(database.path)
    replace(database.path)
    channel = await layer.new_channel()
    await layer.group_subscribe("room", channel)
    await send(layer, 2, 3)
    live = await layer.receive(channel)
    history = await layer.group_history("room", since=live["__position__"])
    assert (texts(history), history.recovered) == ([3], True)
