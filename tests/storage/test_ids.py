"""Ids of messages never come back, whoever deletes the newest rows."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from channels_sqlite.kinds import Kind
from channels_sqlite.storage.store import Store
from tests.support.databases import ChannelDatabase, fresh_file
from tests.support.layers import LayerFactory


@pytest.fixture
def connection(no_leaks: None, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(fresh_file(tmp_path), isolation_level=None)) as connection:
        yield connection


def insert(store: Store) -> int:
    return store.insert(Kind.NORMAL, "work", b"", created_at=1.0, expires_at=2.0)


DELETIONS = {
    "the newest": "DELETE FROM channels_sqlite_message WHERE id = 5",
    "the newest two": "DELETE FROM channels_sqlite_message WHERE id > 3",
    "the newest two, from the end": "DELETE FROM channels_sqlite_message WHERE id IN (5, 4)",
    "all": "DELETE FROM channels_sqlite_message",
    "all but the newest": "DELETE FROM channels_sqlite_message WHERE id < 5",
    "none": "DELETE FROM channels_sqlite_message WHERE id > 5",
}


@pytest.mark.parametrize("delete", DELETIONS.values(), ids=DELETIONS)
def test_ids_go_on_from_the_largest(connection: sqlite3.Connection, delete: str) -> None:
    store = Store(connection, "asgi")
    assert [insert(store) for _ in range(5)] == [1, 2, 3, 4, 5]
    connection.execute(delete)
    assert store.newest_id() == 5
    assert [insert(store) for _ in range(2)] == [6, 7]
    connection.execute("DELETE FROM channels_sqlite_message")
    assert store.newest_id() == 7


def test_skipped_ids_are_not_given_back_by_a_deletion_below_them(connection: sqlite3.Connection) -> None:
    store = Store(connection, "asgi")
    assert insert(store) == 1
    [claimed], _ = store.claim("work", now=0.0, limit=1, delete=True)
    store.unclaim("work", [claimed] * 3, now=1.0, deleted=True)  # skips three
    connection.execute("DELETE FROM channels_sqlite_message")
    assert insert(store) == 5


def test_a_deletion_that_is_rolled_back_changes_nothing(connection: sqlite3.Connection) -> None:
    store = Store(connection, "asgi")
    insert(store)
    store.begin()
    insert(store)
    connection.execute("DELETE FROM channels_sqlite_message")
    store.rollback()
    assert (store.newest_id(), insert(store)) == (1, 2)


@pytest.mark.parametrize("retention", [0, 60])
async def test_nothing_that_a_layer_does_makes_them_fall(
    retention: int, database: ChannelDatabase, make_layer: LayerFactory
) -> None:
    seen = [0]
    layer = make_layer(message_retention=retention)
    with closing(sqlite3.connect(database.path)) as connection:
        store = Store(connection, "asgi")
        for _ in range(3):
            await layer.send("work", {"type": "t"})
            seen.append(store.newest_id())
            await layer.receive("work")
            assert store.newest_id() == seen[-1]
            await layer.send(await layer.new_channel(), {"type": "t"})
            seen.append(store.newest_id())
            await layer.flush()
            seen.append(store.newest_id())
            await layer.close()
    assert sorted(set(seen)) == seen
