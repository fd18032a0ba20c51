"""Messages and transactions: what is sent on commit, and what joins a transaction on the layer's own database."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge
from django.db import connections, transaction
from django.test import TestCase
from pytest_django import DjangoDbBlocker

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sync import SyncChannelLayer
from tests.facade.setup import (
    DEADLINE_S,
    NEVER_S,
    answer_what_comes,
    facade_over,
    in_thread,
    is_empty,
    until_heard_of,
)
from tests.facade.threads import own_layer
from tests.faults.support import write_lock
from tests.processes.evidence import query
from tests.support.databases import DOCUMENTED_OPTIONS, ChannelDatabase, channel_database
from tests.support.processes import ProcessFactory


class UndoneError(Exception):
    """What goes wrong in the user's code."""


@contextmanager
def rolled_back(using: str = "default") -> Iterator[None]:
    """An atomic block that ends with an error."""
    with suppress(UndoneError), transaction.atomic(using=using):
        yield
        raise UndoneError


@pytest.fixture
def default(no_leaks: None, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[ChannelDatabase]:
    """The database `default`: a new file, which is not the layer's."""
    folder = tmp_path / "default"
    folder.mkdir()
    with channel_database(folder, alias="default", options={}, migrated=False) as database, django_db_blocker.unblock():
        yield database


@pytest.fixture
def layer(default: ChannelDatabase, database: ChannelDatabase) -> Iterator[SyncChannelLayer]:
    """The facade of a layer with a database of its own, which nothing finds by polling."""
    with facade_over(database, polling_interval=NEVER_S) as layer:
        yield layer


def message(number: int) -> dict[str, object]:
    return {"type": "test.message", "number": number}


def numbers(layer: SyncChannelLayer, channel: str) -> list[object]:
    """The numbers of all messages that wait on `channel`."""
    found: list[object] = []
    while True:
        try:
            found.append(layer.receive(channel, timeout=0)["number"])
        except TimeoutError:
            return found


# On commit


def test_a_message_on_commit_waits_for_the_outermost_block(layer: SyncChannelLayer) -> None:
    with transaction.atomic():
        with transaction.atomic():
            layer.send_on_commit("jobs", message(1))
        assert numbers(layer, "jobs") == []
    assert numbers(layer, "jobs") == [1]


def test_what_a_savepoint_takes_back_is_never_sent(layer: SyncChannelLayer) -> None:
    with transaction.atomic():
        layer.send_on_commit("jobs", message(1))
        with rolled_back():
            layer.send_on_commit("jobs", message(2))
            with transaction.atomic():
                layer.send_on_commit("jobs", message(3))
        layer.send_on_commit("jobs", message(4))
    assert numbers(layer, "jobs") == [1, 4]


def test_nothing_is_sent_when_the_outermost_block_rolls_back(layer: SyncChannelLayer) -> None:
    layer.group_add("room", "jobs")
    with rolled_back():
        layer.send_on_commit("jobs", message(1))
        with transaction.atomic():
            layer.group_send_on_commit("room", message(2))
    assert numbers(layer, "jobs") == []


def test_without_a_transaction_a_message_on_commit_is_sent_at_once(layer: SyncChannelLayer) -> None:
    layer.group_add("room", "jobs")
    layer.send_on_commit("jobs", message(1))
    layer.group_send_on_commit("room", message(2))
    assert numbers(layer, "jobs") == [1, 2]


def test_a_broadcast_on_commit_reaches_those_who_are_members_then(layer: SyncChannelLayer) -> None:
    layer.group_add("room", "early")
    layer.group_add("room", "gone")
    with transaction.atomic():
        layer.group_send_on_commit("room", message(1))
        layer.group_add("room", "late")
        layer.group_discard("room", "gone")
        assert numbers(layer, "early") == []
    assert [numbers(layer, channel) for channel in ("early", "late", "gone")] == [[1], [1], []]


def test_using_names_the_transaction_that_counts(layer: SyncChannelLayer, tmp_path: Path) -> None:
    layer.group_add("room", "jobs")
    with channel_database(tmp_path, alias="other", options={}, migrated=False):
        with transaction.atomic():
            with transaction.atomic(using="other"):
                layer.send_on_commit("jobs", message(1), using="other")
                layer.group_send_on_commit("room", message(2), using="other")
                layer.send_on_commit("jobs", message(3))
                assert numbers(layer, "jobs") == []
            assert numbers(layer, "jobs") == [1, 2]
        assert numbers(layer, "jobs") == [3]


def test_a_message_on_commit_is_copied_when_it_is_given(layer: SyncChannelLayer) -> None:
    layer.group_add("room", "rooms")
    given: dict[str, Any] = {"type": "test.message", "items": [{"n": 1}]}
    with transaction.atomic():
        layer.send_on_commit("jobs", given)
        layer.group_send_on_commit("room", given)
        given["items"][0]["n"] = 2
        given["items"].append(object())
        given["more"] = True
    for channel in ("jobs", "rooms"):
        assert layer.receive(channel, timeout=0) == {"type": "test.message", "items": [{"n": 1}]}


def test_a_wrong_message_on_commit_is_refused_when_it_is_given(default: ChannelDatabase, tmp_path: Path) -> None:
    with (
        channel_database(tmp_path) as database,
        facade_over(database, max_message_size=1000) as layer,
        transaction.atomic(),
    ):
        for name, send in (("jobs", layer.send_on_commit), ("room", layer.group_send_on_commit)):
            with pytest.raises(TypeError, match=r"message\['when'\]: set"):
                send(name, {"type": "t", "when": {1}})
            with pytest.raises(ValueError, match="__asgi_channel__"):
                send(name, {"type": "t", "__asgi_channel__": "x"})
            with pytest.raises(MessageTooLarge):
                send(name, {"type": "t", "text": "x" * 2000})
            with pytest.raises(TypeError, match="name"):
                send("not a name", {"type": "t"})


@pytest.mark.parametrize("in_transaction", [True, False])
def test_a_channel_that_is_full_at_the_commit_is_logged_and_the_rest_is_sent(
    default: ChannelDatabase, database: ChannelDatabase, caplog: pytest.LogCaptureFixture, *, in_transaction: bool
) -> None:
    with facade_over(database, capacity=2) as layer:
        layer.send("jobs", message(1))

        def send() -> None:
            layer.send_on_commit("jobs", message(2))
            layer.send_on_commit("jobs", message(3))
            layer.send_on_commit("others", message(4))

        if in_transaction:
            with transaction.atomic():
                send()
        else:
            send()
        assert numbers(layer, "jobs") == [1, 2]
        assert numbers(layer, "others") == [4]
    told = [record for record in caplog.records if "'jobs'" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert told[0].name.startswith("channels_sqlite")
    assert "test.message" not in caplog.text, "payloads are nobody's business"


@pytest.mark.parametrize("in_transaction", [True, False])
def test_a_database_that_fails_at_the_commit_is_logged(
    default: ChannelDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, in_transaction: bool
) -> None:
    with channel_database(tmp_path, options={"timeout": 0.1}) as database, facade_over(database) as layer:
        layer.send("jobs", message(1))
        with write_lock(database.path):
            if in_transaction:
                with transaction.atomic():
                    layer.send_on_commit("jobs", message(2))
            else:
                layer.send_on_commit("jobs", message(2))
        assert numbers(layer, "jobs") == [1]
    assert "'jobs'" in caplog.text
    assert "stayed locked" in caplog.text


def test_messages_on_commit_keep_their_order(layer: SyncChannelLayer) -> None:
    with transaction.atomic():
        for number in range(20):
            layer.send_on_commit("jobs", message(number))
    assert numbers(layer, "jobs") == list(range(20))


# Other transactions


def test_a_message_is_seen_at_once_while_a_transaction_on_another_database_is_open(
    layer: SyncChannelLayer, database: ChannelDatabase
) -> None:
    with rolled_back():
        with connections["default"].cursor() as cursor:
            cursor.execute("CREATE TABLE note (text TEXT)")
        layer.send("jobs", message(1))
        layer.group_add("room", "jobs")
        layer.group_send("room", message(2))
        assert in_thread(lambda: numbers(layer, "jobs"))() == [1, 2]
        layer.send("jobs", message(3))
    assert numbers(layer, "jobs") == [3]


# A transaction on the layer's own database


@pytest.fixture(params=["channels", "default"])
def own(request: pytest.FixtureRequest, default: ChannelDatabase, tmp_path: Path) -> Iterator[ChannelDatabase]:
    """The layer's own database, under an alias of its own or as `default` with the user's tables, here `note`.

    The first has immediate transactions; without options they are deferred, as Django has them.
    """
    alias, _, remark = request.param.partition(", ")
    options = DOCUMENTED_OPTIONS if alias == "channels" and not remark else {}
    with channel_database(tmp_path, alias=alias, options=options) as database:
        with closing(sqlite3.connect(database.path)) as connection:
            connection.execute("CREATE TABLE note (text TEXT)")
        yield database


without_options = pytest.mark.parametrize("own", ["channels, no options", "default"], indirect=True)


def write_note(database: ChannelDatabase, text: str) -> None:
    """What the user does in the transaction."""
    with connections[database.alias].cursor() as cursor:
        cursor.execute("INSERT INTO note VALUES (%s)", [text])


def notes(database: ChannelDatabase) -> list[str]:
    """The notes that are committed."""
    return [text for (text,) in query(database, "SELECT text FROM note ORDER BY rowid")]


def waiting(database: ChannelDatabase) -> int:
    """How many messages are committed and wait on normal channels."""
    return int(query(database, "SELECT count(*) FROM channels_sqlite_message WHERE kind = 0 AND state = 0")[0][0])


def test_a_message_commits_with_the_transaction_that_it_joins(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        with transaction.atomic(using=own.alias):
            write_note(own, "before")
            layer.send("jobs", message(1))
            with transaction.atomic(using=own.alias):
                layer.send("jobs", message(2))
            write_note(own, "after")
            assert waiting(own) == 0
            assert in_thread(lambda: waiting(own))() == 0
        assert notes(own) == ["before", "after"]
        assert numbers(layer, "jobs") == [1, 2]


def test_a_message_is_gone_with_the_transaction_that_it_joined(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        layer.send("jobs", message(0))
        with rolled_back(own.alias):
            layer.send("jobs", message(1))
        layer.send("jobs", message(2))
        assert numbers(layer, "jobs") == [0, 2]


def test_what_joined_is_counted_when_it_is_committed(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        assert isinstance(layer.layer, SqliteChannelLayer)
        with transaction.atomic(using=own.alias):
            layer.send("jobs", message(1))
            assert layer.layer.counters.sent == 0
        assert layer.layer.counters.sent == 1
        with rolled_back(own.alias):
            layer.group_send("room", message(2))
        assert layer.layer.counters.sent == 1
        assert numbers(layer, "jobs") == [1]
        assert layer.layer.counters.received == 1


def test_a_message_is_gone_with_the_savepoint_that_it_joined(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        with transaction.atomic(using=own.alias):
            layer.send("jobs", message(1))
            with rolled_back(own.alias):
                layer.send("jobs", message(2))
            layer.send("jobs", message(3))
        assert numbers(layer, "jobs") == [1, 3]


def test_readers_that_wait_in_this_process_are_woken_by_the_commit(own: ChannelDatabase) -> None:
    with facade_over(own, polling_interval=NEVER_S) as layer:
        mine = layer.new_channel()
        results = {
            channel: in_thread(partial(layer.receive, channel, timeout=DEADLINE_S))
            for channel in ("jobs", "others", mine)
        }
        for channel in ("jobs", "others"):
            until_heard_of(own, channel)
        layer.group_add("room", "others")
        with transaction.atomic(using=own.alias):
            layer.send("jobs", message(1))
            layer.group_send("room", message(2))
            layer.send(mine, message(3))
        assert {channel: result()["number"] for channel, result in results.items()} == {"jobs": 1, "others": 2, mine: 3}


@pytest.mark.processes
def test_readers_that_wait_in_another_process_are_woken_by_the_commit(
    own: ChannelDatabase, start_process: ProcessFactory
) -> None:
    reader = start_process(answer_what_comes, database=own, config={"polling_interval": NEVER_S})
    assert reader.hear(DEADLINE_S) == "ready"
    with facade_over(own, polling_interval=NEVER_S) as layer:
        reader.say(["jobs", DEADLINE_S])
        until_heard_of(own, "jobs")
        with transaction.atomic(using=own.alias):
            layer.send("jobs", message(1))
            layer.group_add("room", "jobs")
        assert reader.hear(DEADLINE_S) == message(1)
        reader.say(["jobs", DEADLINE_S])
        with transaction.atomic(using=own.alias):
            write_note(own, "mine")
            layer.group_send("room", message(2))
        assert reader.hear(DEADLINE_S) == message(2)
        with rolled_back(own.alias):
            layer.send("jobs", message(3))
        reader.say(["jobs", 0])
        assert reader.hear(DEADLINE_S) is None
    reader.finish_input()
    reader.wait()


def test_other_threads_send_when_the_transaction_has_ended(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        layer.send("jobs", message(0))
        with transaction.atomic(using=own.alias):
            layer.send("jobs", message(1))
            sent = in_thread(lambda: layer.send("jobs", message(2)))
        sent()
        assert numbers(layer, "jobs") == [0, 1, 2]


def test_a_refused_send_counts_once_its_transaction_commits(own: ChannelDatabase) -> None:
    with facade_over(own, capacity=1) as layer:
        layer.send("jobs", {"n": 0})
        counters = own_layer(layer)

        def refuse() -> None:
            with pytest.raises(ChannelFull):
                layer.send("jobs", {"n": 1})

        with rolled_back(own.alias):
            refuse()
        assert counters.counters.refused == 0
        with transaction.atomic(using=own.alias):
            refuse()
            assert counters.counters.refused == 0
        assert counters.counters.refused == 1
        refuse()
        assert counters.counters.refused == 2


def test_a_full_channel_leaves_the_transaction_usable(own: ChannelDatabase) -> None:
    with facade_over(own, capacity=1) as layer:
        with transaction.atomic(using=own.alias):
            write_note(own, "before")
            layer.send("jobs", message(1))
            with pytest.raises(ChannelFull):
                layer.send("jobs", message(2))
            write_note(own, "after")
            layer.send("others", message(3))
        assert notes(own) == ["before", "after"]
        assert [numbers(layer, channel) for channel in ("jobs", "others")] == [[1], [3]]


def test_capacity_stays_exact_whatever_rolls_back(own: ChannelDatabase) -> None:
    with facade_over(own, capacity=5) as layer:
        layer.send("jobs", message(0))
        for _ in range(3):
            with rolled_back(own.alias):
                for number in range(4):
                    layer.send("jobs", message(number))
                with pytest.raises(ChannelFull):
                    layer.send("jobs", message(4))
        with transaction.atomic(using=own.alias):
            with rolled_back(own.alias):
                layer.send("jobs", message(10))
            layer.send("jobs", message(1))
        for number in (2, 3, 4):
            layer.send("jobs", message(number))
        with pytest.raises(ChannelFull):
            layer.send("jobs", message(5))
        with transaction.atomic(using=own.alias), pytest.raises(ChannelFull):
            layer.send("jobs", message(5))
        assert numbers(layer, "jobs") == [0, 1, 2, 3, 4]


def test_memberships_join_the_transaction(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        mine = layer.new_channel()
        for channel in (mine, "old"):
            layer.group_add("room", channel)
        with rolled_back(own.alias):
            layer.group_add("room", "new")
            layer.group_discard("room", "old")
            layer.group_discard("room", mine)
            assert layer.group_channels("room") == ["new"]
            assert layer.group_count("room") == 1
        assert layer.group_channels("room") == sorted(["old", mine])
        layer.group_send("room", message(1))
        assert [numbers(layer, channel) for channel in (mine, "old", "new")] == [[1], [1], []]
        with transaction.atomic(using=own.alias):
            layer.group_add("room", "new")
            layer.group_discard("room", "old")
            layer.group_discard("room", mine)
        layer.group_send("room", message(2))
        assert [numbers(layer, channel) for channel in (mine, "old", "new")] == [[], [], [2]]


def test_a_broadcast_reaches_who_became_a_member_in_the_same_transaction(own: ChannelDatabase) -> None:
    with facade_over(own, polling_interval=NEVER_S) as layer:
        mine = layer.new_channel()
        with transaction.atomic(using=own.alias):
            layer.group_send("room", message(1))
            layer.group_add("room", mine)
            layer.group_add("room", "normal")
            layer.group_send("room", message(2))
        layer.group_send("room", message(3))
        assert [layer.receive(mine, timeout=DEADLINE_S)["number"] for _ in range(2)] == [2, 3]
        assert numbers(layer, "normal") == [2, 3]
        assert is_empty(layer, mine)


def test_a_membership_that_was_rolled_back_gets_no_broadcast(own: ChannelDatabase) -> None:
    with facade_over(own, polling_interval=NEVER_S) as layer:
        mine = layer.new_channel()
        with rolled_back(own.alias):
            layer.group_add("room", mine)
        layer.group_send("room", message(1))
        layer.send(mine, message(2))
        assert layer.receive(mine, timeout=DEADLINE_S)["number"] == 2
        assert is_empty(layer, mine)


def test_receiving_joins_the_transaction_and_what_rolls_back_waits_again(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        for number in range(3):
            layer.send("jobs", message(number))
        with rolled_back(own.alias):
            assert layer.receive("jobs", timeout=DEADLINE_S)["number"] == 0
            assert layer.receive("jobs")["number"] == 1
        with transaction.atomic(using=own.alias):
            assert layer.receive("jobs")["number"] == 0
        assert numbers(layer, "jobs") == [1, 2]


@pytest.mark.parametrize("timeout", [0, 10 * DEADLINE_S, None])
def test_receiving_in_a_transaction_does_not_wait_for_what_cannot_come(
    own: ChannelDatabase, timeout: float | None
) -> None:
    with facade_over(own) as layer:
        with transaction.atomic(using=own.alias):
            with pytest.raises(TimeoutError, match="'jobs'"):
                layer.receive("jobs", timeout=timeout)
            layer.send("jobs", message(1))
            assert layer.receive("jobs", timeout=timeout)["number"] == 1
            write_note(own, "still usable")
        assert notes(own) == ["still usable"]
        assert is_empty(layer, "jobs")


def test_a_process_becomes_a_receiver_outside_of_the_transaction(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        with transaction.atomic(using=own.alias):
            write_note(own, "before")
            with pytest.raises(ChannelDatabaseError, match="outside of it"):
                layer.new_channel()
            write_note(own, "after")
        assert notes(own) == ["before", "after"]
        first = layer.new_channel()
        with transaction.atomic(using=own.alias):
            second = layer.new_channel()
            layer.send(second, message(2))
            layer.send(first, message(1))
        assert [numbers(layer, channel) for channel in (first, second)] == [[1], [2]]


@without_options
def test_the_first_use_may_be_in_a_transaction_on_a_database_that_is_not_in_wal_mode(own: ChannelDatabase) -> None:
    with closing(sqlite3.connect(own.path)) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    with facade_over(own) as layer:
        with transaction.atomic(using=own.alias):
            write_note(own, "mine")
            layer.send("jobs", message(1))
            layer.group_add("room", "jobs")
            layer.group_send("room", message(2))
            assert layer.group_channels("room") == ["jobs"]
        assert notes(own) == ["mine"]
        assert numbers(layer, "jobs") == [1, 2]
        assert query(own, "PRAGMA journal_mode") == [("wal",)]


def test_a_commit_does_not_wait_for_wal_mode_while_the_same_thread_reads(default: None, tmp_path: Path) -> None:
    """As in a loop over `iterator()`: SQLite cannot switch a file that is being read."""
    options = {"timeout": 10 * DEADLINE_S}
    with channel_database(tmp_path, alias="default", options=options) as own, facade_over(own) as layer:
        query_and_commit(own, "PRAGMA journal_mode=DELETE")
        query_and_commit(own, "CREATE TABLE note (text TEXT)")
        for number in range(3):
            query_and_commit(own, f"INSERT INTO note VALUES ('{number}')")
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT text FROM note")
            while row := cursor.fetchone():
                with transaction.atomic():
                    layer.send("jobs", message(int(row[0])))
        assert numbers(layer, "jobs") == [0, 1, 2]
        assert query(own, "PRAGMA journal_mode") == [("wal",)]


@without_options
def test_a_deferred_transaction_that_read_before_others_wrote_is_told_clearly(own: ChannelDatabase) -> None:
    """SQLite refuses it whatever the time-out: what the transaction has read is out of date."""
    with facade_over(own) as layer:
        with transaction.atomic(using=own.alias):
            with connections[own.alias].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM note")
                cursor.fetchall()
            query_and_commit(own, "INSERT INTO note VALUES ('of another process')")
            for call in (
                lambda: layer.send("jobs", message(1)),
                lambda: layer.group_add("room", "jobs"),
                lambda: layer.receive("jobs", timeout=0),
            ):
                with pytest.raises(ChannelDatabaseError, match="transaction_mode"):
                    call()
        assert is_empty(layer, "jobs")
        layer.send("jobs", message(2))
        assert numbers(layer, "jobs") == [2]


def query_and_commit(database: ChannelDatabase, statement: str) -> None:
    """Write behind everybody's back."""
    with closing(sqlite3.connect(database.path, isolation_level=None, timeout=10)) as connection:
        connection.execute(statement)


@without_options
def test_a_deferred_transaction_that_begins_with_a_send_waits_for_the_lock(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        layer.send("jobs", message(0))
        for number, call in enumerate(("send", "group_send", "group_add", "receive"), 1):
            with write_lock(own.path) as other:
                other.execute("INSERT INTO note VALUES ('of another process')")
                ended = in_thread(partial(in_a_transaction, layer, own, call, number))
                holds_still(own)
                other.execute("COMMIT")
                ended()
        assert numbers(layer, "jobs") == [1]
        assert layer.group_channels("room") == ["members"]


def in_a_transaction(layer: SyncChannelLayer, own: ChannelDatabase, call: str, number: int) -> None:
    """The first statement of a transaction is this call's."""
    try:
        with transaction.atomic(using=own.alias):
            if call == "send":
                layer.send("jobs", message(number))
            elif call == "group_send":
                layer.group_send("room", message(number))
            elif call == "group_add":
                layer.group_add("room", "members")
            else:
                assert layer.receive("jobs", timeout=0)["number"] == 0
    finally:
        connections[own.alias].close()


def holds_still(own: ChannelDatabase) -> None:
    """Look at the file a few times, while another thread waits for its lock."""
    for _ in range(20):
        query(own, "SELECT count(*) FROM note")


def test_a_message_on_commit_of_the_own_database_is_sent_after_the_commit(own: ChannelDatabase) -> None:
    with facade_over(own, capacity=1) as layer:
        with transaction.atomic(using=own.alias):
            write_note(own, "mine")
            layer.send_on_commit("jobs", message(1), using=own.alias)
            layer.send_on_commit("jobs", message(2), using=own.alias)
            assert waiting(own) == 0
        assert notes(own) == ["mine"]
        assert numbers(layer, "jobs") == [1]


def test_flushing_joins_the_transaction(own: ChannelDatabase) -> None:
    with facade_over(own) as layer:
        layer.group_add("room", "jobs")
        layer.send("jobs", message(1))
        with rolled_back(own.alias):
            layer.flush()
            assert layer.group_count("room") == 0
        assert layer.group_count("room") == 1
        with transaction.atomic(using=own.alias):
            layer.flush()
        assert layer.group_count("room") == 0
        assert is_empty(layer, "jobs")


# In Django's TestCase


class OnCommitTests(TestCase):
    """As users test code that sends on commit. The layer has a database of its own, the one in memory here."""

    databases: set[str] | Literal["__all__"] = {"default", "channels"}  # noqa: RUF012  # as Django has it

    def setUp(self) -> None:
        self.layer = get_sync_channel_layer()
        self.addCleanup(self.layer.close)

    def test_callbacks_that_were_captured_send(self) -> None:
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            with transaction.atomic():
                self.layer.send_on_commit("jobs", message(1))
            with rolled_back():
                self.layer.send_on_commit("jobs", message(2))
            assert is_empty(self.layer, "jobs")
        assert len(callbacks) == 1
        assert numbers(self.layer, "jobs") == [1]

    def test_callbacks_that_were_only_captured_do_not_send(self) -> None:
        with self.captureOnCommitCallbacks() as callbacks:
            self.layer.send_on_commit("jobs", message(1))
        assert len(callbacks) == 1
        assert is_empty(self.layer, "jobs")


class JoinedTests(TestCase):
    """The facade joins the transaction that the test case keeps open, and leaves nothing to the next test."""

    databases: set[str] | Literal["__all__"] = {"default", "channels"}  # noqa: RUF012  # as Django has it

    def setUp(self) -> None:
        self.layer = get_sync_channel_layer()
        self.addCleanup(self.layer.close)

    def send_and_receive(self) -> None:
        """Fails where another test has left something."""
        assert is_empty(self.layer, "jobs")
        assert self.layer.group_channels("room") == []
        self.layer.group_add("room", "jobs")
        self.layer.send("jobs", message(1))
        self.layer.group_send("room", message(2))
        self.layer.send("jobs", message(3))
        assert self.layer.receive("jobs", timeout=5)["number"] == 1
        assert self.layer.receive("jobs")["number"] == 2
        with rolled_back("channels"):
            assert self.layer.receive("jobs")["number"] == 3

    def test_sending_and_receiving(self) -> None:
        self.send_and_receive()
        assert self.layer.receive("jobs")["number"] == 3

    def test_nothing_is_left_by_the_other(self) -> None:
        self.send_and_receive()
        assert self.layer.receive("jobs")["number"] == 3

    def test_becoming_a_receiver_is_refused_clearly(self) -> None:
        with pytest.raises(ChannelDatabaseError, match="transaction open"):
            self.layer.new_channel()
