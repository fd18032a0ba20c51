"""The statements, on a file that the migrations made."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from channels_sqlite.kinds import Kind
from channels_sqlite.storage.messages import LogRow
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.storage.store import Store
from tests.support.databases import fresh_file

NOW = 1000.0
LATER = NOW + 60
CLIENT = "abc"
QUEUE = "specific.abc!"


@pytest.fixture
def connection(no_leaks: None, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(fresh_file(tmp_path), isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def store(connection: sqlite3.Connection) -> Store:
    return Store(connection, "asgi")


def insert(store: Store, queue: str = "jobs", payload: bytes = b"x", *, expires_at: float = LATER) -> int:
    return store.insert(Kind.NORMAL, queue, payload, created_at=NOW, expires_at=expires_at)


def insert_specific(store: Store, local: str = "one", *, expires_at: float = LATER) -> int:
    return store.insert(Kind.SPECIFIC, QUEUE, b"x", local=local, client=CLIENT, created_at=NOW, expires_at=expires_at)


def process(client: str = CLIENT, *, cursor: int = 0) -> ProcessRow:
    return ProcessRow(client, 4711, "boot/namespace", f"{client}.sock", cursor, "{}", 0)


def log(store: Store, client: str = CLIENT, after: int = 0) -> list[LogRow]:
    with closing(store.read_log(after, store.newest_id(), client)[2]) as rows:
        return list(rows)


# Ids


def test_the_newest_id_is_zero_at_first_and_never_falls(store: Store) -> None:
    assert store.newest_id() == 0
    ids = [insert(store) for _ in range(3)]
    assert store.newest_id() == ids[-1]
    store.delete_messages(ids, LATER)
    assert store.newest_id() == ids[-1]
    assert insert(store) == ids[-1] + 1


def test_the_newest_id_before_a_time(store: Store) -> None:
    ids = [store.insert(Kind.NORMAL, "jobs", b"x", created_at=NOW + second, expires_at=LATER) for second in (0, 1, 2)]
    assert store.newest_id_before(NOW) == 0
    assert store.newest_id_before(NOW + 1.5) == ids[1]
    assert store.newest_id_before(NOW + 9) == ids[2]


def test_the_data_version_changes_with_commits_of_others_alone(store: Store, tmp_path: Path) -> None:
    before = store.data_version()
    insert(store)
    assert store.data_version() == before
    with closing(sqlite3.connect(tmp_path / "channels.sqlite3", isolation_level=None)) as other:
        insert(Store(other, "asgi"))
    assert store.data_version() != before


# Normal channels


def test_claims_come_oldest_first_and_only_once(store: Store) -> None:
    ids = [insert(store, payload=b"%d" % number) for number in range(5)]
    first, more = store.claim("jobs", now=NOW, limit=2, delete=False)
    assert first == [(ids[0], LATER, b"0", None), (ids[1], LATER, b"1", None)]
    assert more
    second, more = store.claim("jobs", now=NOW, limit=3, delete=False)
    assert [row_id for row_id, *_ in second] == ids[2:]
    assert not more
    assert store.claim("jobs", now=NOW, limit=10, delete=False) == ([], False)


@pytest.mark.parametrize(("delete", "rows_left"), [(False, 1), (True, 0)])
def test_claimed_rows_stay_unless_told_otherwise(store: Store, delete: bool, rows_left: int) -> None:
    insert(store)
    store.claim("jobs", now=NOW, limit=1, delete=delete)
    assert len(store.oldest(0, 10)) == rows_left


def test_expired_messages_are_neither_claimed_nor_counted(store: Store) -> None:
    insert(store, expires_at=NOW)
    fresh = insert(store)
    assert store.count_waiting("jobs", now=NOW, limit=10) == 1
    assert [row_id for row_id, *_ in store.claim("jobs", now=NOW, limit=10, delete=False)[0]] == [fresh]


@pytest.mark.parametrize("deleted", [False, True])
def test_what_is_put_back_returns_to_its_place(store: Store, deleted: bool) -> None:
    ids = [insert(store, payload=b"%d" % number) for number in range(3)]
    claimed, _ = store.claim("jobs", now=NOW, limit=2, delete=deleted)
    store.unclaim("jobs", claimed[1:], now=NOW, deleted=deleted)
    rows, _ = store.claim("jobs", now=NOW, limit=10, delete=deleted)
    assert rows == [(ids[1], LATER, b"1", None), (ids[2], LATER, b"2", None)]


def test_putting_back_counts_as_new_rows_for_who_counts_by_ids(store: Store) -> None:
    insert(store)
    claimed, _ = store.claim("jobs", now=NOW, limit=1, delete=False)
    before = store.newest_id()
    store.unclaim("jobs", claimed, now=NOW, deleted=False)
    assert store.newest_id() == before + 1


def test_counting_stops_at_the_limit(store: Store) -> None:
    for _ in range(5):
        insert(store)
        insert_specific(store)
    assert store.count_waiting("jobs", now=NOW, limit=3) == 3
    assert store.count_waiting("jobs", now=NOW, limit=10) == 5
    assert store.count_addressed(QUEUE, after=0, now=NOW, limit=3) == 3
    assert store.count_addressed(QUEUE, after=0, now=NOW, limit=10) == 5


def test_channels_where_something_waits(store: Store) -> None:
    insert(store, "jobs")
    insert(store, "stale", expires_at=NOW)
    insert(store, 'quo"ted')
    assert set(store.channels_with_waiting('["jobs", "stale", "empty", "quo\\"ted"]', NOW)) == {"jobs", 'quo"ted'}


def test_retired_messages_leave_the_line_and_stay_in_the_log(store: Store) -> None:
    stale = insert(store, expires_at=NOW)
    insert(store)
    assert store.expired_waiting(NOW, 10) == [stale]
    store.retire([stale], LATER)
    assert store.expired_waiting(NOW, 10) == []
    assert len(store.oldest(0, 10)) == 2


# The log


def test_a_reader_sees_what_is_addressed_to_it_and_the_broadcasts_it_has_members_for(store: Store) -> None:
    store.join("room", CLIENT, f"{QUEUE}one", joined_id=0, expires_at=None, now=NOW)
    store.join("hall", "other", "specific.other!one", joined_id=0, expires_at=None, now=NOW)
    mine = insert_specific(store)
    insert(store)
    store.insert(Kind.SPECIFIC, "specific.other!", b"x", local="a", client="other", created_at=NOW, expires_at=LATER)
    room = store.insert(Kind.GROUP, "room", b"x", created_at=NOW, expires_at=LATER)
    store.insert(Kind.GROUP, "hall", b"x", created_at=NOW, expires_at=LATER)
    flush = store.insert(Kind.FLUSH, "", b"", created_at=NOW, expires_at=LATER)
    assert [row.id for row in log(store)] == [mine, room, flush]
    assert [row.id for row in log(store, after=mine)] == [room, flush]


def test_addressed_rows_are_counted_from_the_cursor_on(store: Store) -> None:
    first = insert_specific(store)
    insert_specific(store, "two")
    insert_specific(store, "three", expires_at=NOW)
    assert store.count_addressed(QUEUE, after=first, now=NOW, limit=10) == 1


# Groups


def test_members_are_listed_until_they_leave(store: Store) -> None:
    store.join("room", "", "jobs", joined_id=3, expires_at=None, now=NOW)
    store.join("room", CLIENT, f"{QUEUE}one", joined_id=4, expires_at=LATER, now=NOW)
    assert store.group_channels("room", NOW) == ["jobs", f"{QUEUE}one"]
    assert store.members("room", "", NOW) == [("jobs", 3, None)]
    assert store.member("room", CLIENT, f"{QUEUE}one") == (4, LATER)
    assert store.leave("room", CLIENT, f"{QUEUE}one") is True
    assert store.leave("room", CLIENT, f"{QUEUE}one") is False
    assert store.group_channels("room", NOW) == ["jobs"]


def test_a_renewed_membership_keeps_its_beginning_and_an_ended_one_begins_anew(store: Store) -> None:
    assert store.join("room", "", "jobs", joined_id=1, expires_at=NOW + 10, now=NOW) == 1
    assert store.join("room", "", "jobs", joined_id=5, expires_at=NOW + 20, now=NOW + 9) == 1
    assert store.join("room", "", "jobs", joined_id=9, expires_at=NOW + 40, now=NOW + 20) == 9
    assert store.member("room", "", "jobs") == (9, NOW + 40)


def test_expired_memberships_count_no_longer(store: Store) -> None:
    store.join("room", "", "jobs", joined_id=0, expires_at=NOW, now=NOW - 10)
    assert store.group_channels("room", NOW) == []
    assert store.members("room", "", NOW) == []
    expired = store.expired_memberships(NOW, 10)
    store.delete_memberships(expired, NOW)
    assert len(expired) == 1
    assert store.member("room", "", "jobs") is None


def test_what_has_changed_since_it_was_found_stays(store: Store) -> None:
    """Housekeeping looks without a lock, and changes by id."""
    store.join("room", "", "jobs", joined_id=0, expires_at=NOW, now=NOW - 10)
    expired = store.expired_memberships(NOW, 10)
    store.join("room", "", "jobs", joined_id=0, expires_at=LATER, now=NOW)
    store.delete_memberships(expired, NOW)
    assert store.member("room", "", "jobs") is not None
    # As where all tables were emptied meanwhile, and ids began anew.
    new = store.insert(Kind.NORMAL, "jobs", b"x", created_at=NOW + 1, expires_at=LATER)
    store.delete_messages([new], NOW)
    store.retire([new], NOW)
    assert store.count_waiting("jobs", now=NOW, limit=10) == 1


def test_the_clients_of_a_group_are_its_registered_processes(store: Store) -> None:
    store.join("room", CLIENT, f"{QUEUE}one", joined_id=0, expires_at=None, now=NOW)
    store.join("room", "", "jobs", joined_id=0, expires_at=None, now=NOW)
    assert store.clients_of_group("room") == []
    store.register(process(), NOW)
    assert store.clients_of_group("room") == [CLIENT]


# Processes


def test_a_registered_process_is_found_until_it_is_forgotten(store: Store) -> None:
    store.register(process(cursor=5), NOW)
    store.listen("jobs", CLIENT)
    store.join("room", CLIENT, f"{QUEUE}one", joined_id=0, expires_at=None, now=NOW)
    assert store.process(CLIENT) == process(cursor=5)
    assert store.listeners("jobs") == [CLIENT]
    assert store.lowest_cursor() == 5
    store.forget(CLIENT, 5)
    assert store.process(CLIENT) is None
    assert store.listeners("jobs") == []
    assert store.group_channels("room", NOW) == []
    assert store.lowest_cursor() is None


def test_forgetting_a_process_deletes_what_it_had_not_read_and_nothing_of_others(store: Store) -> None:
    read = insert_specific(store)
    insert_specific(store, "two")
    normal = insert(store)
    store.forget(CLIENT, read)
    assert [row[0] for row in store.oldest(0, 10)] == [read, normal]


def test_who_is_registered_can_be_seen_with_the_newest_id_and_with_the_log(store: Store) -> None:
    assert store.newest_id_and_registered(CLIENT) == (0, False)
    assert store.read_log(0, 10, CLIENT)[:2] == (0, False)
    newest = insert(store)
    assert not store.any_registered()
    store.register(process(), NOW)
    assert store.newest_id_and_registered(CLIENT) == (newest, True)
    assert store.read_log(newest, newest, CLIENT)[:2] == (newest, True)
    assert store.any_registered()
    assert store.unregistered([CLIENT, "other"]) == ["other"]


def test_ids_began_anew_where_all_rows_up_to_the_last_one_read_are_younger_than_the_reading(store: Store) -> None:
    assert not store.began_anew(10, NOW)
    ids = [store.insert(Kind.NORMAL, "jobs", b"x", created_at=NOW + second, expires_at=LATER) for second in (0, 5)]
    assert store.began_anew(ids[-1], NOW - 1)
    assert not store.began_anew(ids[-1], NOW + 1)
    store.delete_messages(ids[:1], LATER)
    assert store.began_anew(ids[-1], NOW + 1)
    assert not store.began_anew(ids[0], NOW)


def test_a_reader_publishes_how_far_it_has_come(store: Store) -> None:
    store.register(process(), NOW)
    store.publish(CLIENT, cursor=1, held={"specific.a!": 2}, channels=3)
    row = store.process(CLIENT)
    assert row is not None
    assert (row.cursor, row.held_in("specific.a!"), row.held_in("b!"), row.channels) == (1, 2, 0, 3)


def test_listening_twice_is_listening_once(store: Store) -> None:
    store.listen("jobs", CLIENT)
    store.listen("jobs", CLIENT)
    assert store.listeners("jobs") == [CLIENT]
    store.unlisten("jobs", CLIENT)
    assert store.listeners("jobs") == []


def test_listeners_are_woken_for_the_first_message_that_waits(store: Store) -> None:
    store.listen("jobs", CLIENT)
    assert store.listeners_of_empty("jobs", NOW) == [CLIENT]
    insert(store, expires_at=NOW)
    assert store.listeners_of_empty("jobs", NOW) == [CLIENT]
    insert(store)
    assert store.listeners_of_empty("jobs", NOW) == []
    assert store.listeners_of_empty("emails", NOW) == []
    store.claim("jobs", now=NOW, limit=1, delete=False)
    assert store.listeners_of_empty("jobs", NOW) == [CLIENT]


# Prefixes


def test_prefixes_keep_everything_apart(store: Store, connection: sqlite3.Connection) -> None:
    other = Store(connection, "other")
    insert(store)
    insert_specific(store)
    store.join("room", CLIENT, f"{QUEUE}one", joined_id=0, expires_at=None, now=NOW)
    store.listen("jobs", CLIENT)
    store.register(process(), NOW)
    assert other.count_waiting("jobs", now=NOW, limit=10) == 0
    assert other.claim("jobs", now=NOW, limit=10, delete=False) == ([], False)
    assert other.count_addressed(QUEUE, after=0, now=NOW, limit=10) == 0
    assert log(other) == []
    assert other.group_channels("room", NOW) == []
    assert other.clients_of_group("room") == []
    assert other.listeners("jobs") == []
    assert other.oldest(0, 10) == []
    assert other.lowest_cursor() is None


def test_a_flush_leaves_other_prefixes_alone(store: Store, connection: sqlite3.Connection) -> None:
    other = Store(connection, "other")
    for one in (store, other):
        insert(one)
        one.join("room", "", "jobs", joined_id=0, expires_at=None, now=NOW)
    store.flush()
    assert store.oldest(0, 10) == []
    assert store.group_channels("room", NOW) == []
    assert len(other.oldest(0, 10)) == 1
    assert other.group_channels("room", NOW) == ["jobs"]


# Transactions


def test_begin_takes_the_write_lock_at_once(store: Store, tmp_path: Path) -> None:
    store.begin()
    with (
        closing(sqlite3.connect(tmp_path / "channels.sqlite3", isolation_level=None, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        Store(other, "asgi").begin()
    store.rollback()


def test_a_rollback_without_a_transaction_does_nothing(store: Store) -> None:
    store.rollback()
    store.begin()
    insert(store)
    store.rollback()
    assert store.oldest(0, 10) == []


def test_probing_finds_missing_tables(store: Store, connection: sqlite3.Connection) -> None:
    store.probe()
    connection.execute("DROP TABLE channels_sqlite_listener")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        store.probe()


def test_probing_finds_missing_columns(store: Store, connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE channels_sqlite_process RENAME COLUMN held TO kept")
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        store.probe()
