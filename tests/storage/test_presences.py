"""What the statements about presences cost: coming and going does not depend on how many are in the room."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from channels_sqlite.storage.store import Store
from tests.support.databases import fresh_file

ROOM = "room"
CLIENT = "client"


@pytest.fixture
def connection(no_leaks: None, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(fresh_file(tmp_path), isolation_level=None)) as connection:
        yield connection


def attend(store: Store, number: int, key: str, room: str = ROOM) -> None:
    store.join(room, CLIENT, f"channel{number}", joined_id=0, expires_at=None, now=0)
    store.attend(room, CLIENT, f"channel{number}", key, b"\x80", heard_id=0, expires_at=1e10, now=0)


def come_and_go(store: Store) -> None:
    """All that a join writes and looks at beside its list, and a leave."""
    assert store.presence(ROOM, CLIENT, "newcomer") is None
    assert store.info_of(ROOM, "new") is None
    store.join(ROOM, CLIENT, "newcomer", joined_id=0, expires_at=None, now=0)
    store.attend(ROOM, CLIENT, "newcomer", "new", b"\x80", heard_id=0, expires_at=1e10, now=0)
    assert store.info_of(ROOM, "new") == b"\x80"
    store.heard(ROOM, CLIENT, "newcomer", 1)
    store.clients_that_hear(ROOM)
    assert store.normal_that_hear(ROOM) == []
    store.update_presence(ROOM, CLIENT, "newcomer", info=b"\x81", expires_at=1e10)
    store.prolong(ROOM, CLIENT, "newcomer", 1e10)
    assert store.whereabouts("new") == [ROOM]
    assert store.expired_presences(0, 1) == []
    assert store.next_presence_ends() == 1e10
    store.depart(ROOM, CLIENT, "newcomer")
    store.leave(ROOM, CLIENT, "newcomer")


def steps_of(connection: sqlite3.Connection, work: Callable[[], object]) -> int:
    """How many instructions SQLite's virtual machine needs for `work`."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(count, 1)
    work()
    connection.set_progress_handler(None, 1)
    return steps


def test_coming_and_going_costs_the_same_in_a_room_of_5000(connection: sqlite3.Connection) -> None:
    store = Store(connection, "asgi")
    store.begin()
    attend(store, 0, "key0")
    alone = steps_of(connection, lambda: come_and_go(store))
    for number in range(1, 5000):
        attend(store, number, f"key{number}")
    assert store.count_present(ROOM) == 5000
    in_a_crowd = steps_of(connection, lambda: come_and_go(store))
    assert in_a_crowd <= alone * 1.1
    assert steps_of(connection, lambda: store.who(ROOM)) > 10 * in_a_crowd  # so steps are counted
    store.rollback()


def test_the_list_has_of_each_key_the_channel_that_joined_last(connection: sqlite3.Connection) -> None:
    store = Store(connection, "asgi")
    store.begin()
    for number, key in enumerate(["ann", "bob", "ann", "ann", "bob"]):
        store.attend(ROOM, CLIENT, f"c{number}", key, b"%d" % number, heard_id=0, expires_at=None, now=number)
    store.attend(ROOM, CLIENT, "c2", "ann", b"again", heard_id=0, expires_at=None, now=9)
    store.watch(ROOM, CLIENT, "watcher", heard_id=0, expires_at=None)
    store.of("other").attend(ROOM, CLIENT, "c9", "zoe", b"", heard_id=0, expires_at=None, now=0)
    assert store.who(ROOM) == [("ann", b"again", 3, 0.0), ("bob", b"4", 2, 1.0)]
    assert store.attendances() == [(ROOM, 2, 1)]
    assert sorted(store.all_present()) == [(ROOM, "ann", b"again"), (ROOM, "bob", b"4")]
    store.rollback()
