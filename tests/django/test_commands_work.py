"""`channels_trim`, `channels_flush`, `channels_send`: what they do, what they print, and how they fail."""

import asyncio
import builtins
import json
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.layers import channel_layers
from django.core.management import CommandError, call_command
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from channels_sqlite.kinds import Kind
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.management import maintenance
from channels_sqlite.processes.liveness import machine_id
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.storage.store import Store
from tests.support.databases import DOCUMENTED_OPTIONS, ChannelDatabase, channel_database
from tests.support.layers import LayerFactory

OURS = "channels_sqlite.layers.SqliteChannelLayer"
MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
GONE_PID = 2**22 + 1  # more than Linux ever gives
HOUR_S = 3600.0
DEADLINE_S = 30


@pytest.fixture(autouse=True)
def django_connections(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The commands make connections of their own."""
    with django_db_blocker.unblock():
        yield


def configured(**config: object) -> dict[str, Any]:
    """CHANNEL_LAYERS with one layer of ours."""
    return {"default": {"BACKEND": OURS, "CONFIG": config}}


def run(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=DEADLINE_S)) as connection:
        yield connection


def fill(path: Path, count: int, *, age_s: float = 0.0, size_bytes: int = 1, prefix: str = "asgi") -> None:
    """Messages that are so old, and expire a minute after they were sent."""
    with opened(path) as connection:
        store = Store(connection, prefix)
        sent_at = time.time() - age_s
        store.begin()
        for _ in range(count):
            store.insert(Kind.NORMAL, "jobs", b"x" * size_bytes, created_at=sent_at, expires_at=sent_at + 60)
        store.commit()


def query(path: Path, statement: str) -> list[Any]:
    with opened(path) as connection:
        return connection.execute(statement).fetchall()


def rows(path: Path) -> int:
    count: int = query(path, "SELECT count(*) FROM channels_sqlite_message")[0][0]
    return count


class Terminal(StringIO):
    """Looks like a terminal to whoever asks."""

    def isatty(self) -> bool:
        return True


# Trim


@pytest.mark.parametrize("auto_trim", [True, False])
def test_trim_deletes_what_is_past_its_retention_alone(database: ChannelDatabase, auto_trim: bool) -> None:
    fill(database.path, 12, age_s=2 * HOUR_S)
    fill(database.path, 5, age_s=2 * HOUR_S, prefix="other")
    fill(database.path, 3)
    with override_settings(CHANNEL_LAYERS=configured(message_retention=HOUR_S, trim_batch_size=5, auto_trim=auto_trim)):
        assert run("channels_trim") == "default: 12 messages deleted.\n"
        assert rows(database.path) == 8
        assert run("channels_trim") == "default: 0 messages deleted.\n"


def keep(path: Path, count: int, *, age_s: float = 0.0, group: str = "room") -> None:
    """Messages of a group with history, so old."""
    with opened(path) as connection:
        store = Store(connection, "asgi")
        sent_at = time.time() - age_s
        store.begin()
        for _ in range(count):
            store.insert(Kind.KEPT, group, b"\x80", created_at=sent_at, expires_at=sent_at + 60)
        store.commit()


@pytest.mark.parametrize("auto_trim", [True, False])
def test_trim_deletes_what_histories_have_no_place_for(database: ChannelDatabase, auto_trim: bool) -> None:
    keep(database.path, 5, age_s=2 * HOUR_S)
    keep(database.path, 7, age_s=HOUR_S / 2)
    keep(database.path, 4, age_s=2 * HOUR_S, group="news")
    fill(database.path, 3, age_s=HOUR_S / 2)
    history = {"room": {"size": 4, "ttl": HOUR_S}}
    config = {"history": history, "message_retention": HOUR_S, "trim_batch_size": 2, "auto_trim": auto_trim}
    with override_settings(CHANNEL_LAYERS=configured(**config)):
        assert run("channels_trim") == "default: 9 messages deleted.\n"
        assert rows(database.path) == 10
        assert query(database.path, "SELECT count(*) FROM channels_sqlite_message WHERE kind = 6 AND state = 2") == [
            (4,)
        ]
        assert run("channels_trim") == "default: 0 messages deleted.\n"
    with override_settings(CHANNEL_LAYERS=configured(**{**config, "message_retention": 0})):
        assert run("channels_trim") == "default: 6 messages deleted.\n"
        assert rows(database.path) == 4


def test_trim_without_retention_deletes_what_is_done(database: ChannelDatabase) -> None:
    fill(database.path, 1, age_s=HOUR_S)
    fill(database.path, 4)
    with opened(database.path) as connection:
        store = Store(connection, "asgi")
        store.claim("jobs", now=time.time(), limit=3, delete=False)
    with override_settings(CHANNEL_LAYERS=configured(message_retention=0, trim_batch_size=2)):
        assert run("channels_trim") == "default: 4 messages deleted.\n"
    assert rows(database.path) == 1


def test_trim_ends_expired_memberships_and_what_the_dead_left(database: ChannelDatabase) -> None:
    with opened(database.path) as connection:
        store = Store(connection, "asgi")
        for channel, expires_at in (("old", time.time() - 1), ("new", time.time() + 60)):
            store.join("room", "", channel, joined_id=0, expires_at=expires_at, now=0)
        store.register(ProcessRow("dead", GONE_PID, machine_id(), "", 0, "{}", 0), 0)
        store.join("room", "dead", "specific.dead!x", joined_id=0, expires_at=None, now=0)
        store.insert(
            Kind.SPECIFIC, "specific.dead!", b"x", local="x", client="dead", created_at=time.time(), expires_at=2**40
        )
    run("channels_trim")
    assert query(database.path, "SELECT channel FROM channels_sqlite_membership") == [("new",)]
    assert query(database.path, "SELECT count(*) FROM channels_sqlite_process") == [(0,)]
    assert rows(database.path) == 0


def test_trim_shows_a_bar_on_a_terminal_and_takes_it_away(
    database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "ROUND_S", 0.0)
    fill(database.path, 10, age_s=2 * HOUR_S)
    terminal = Terminal()
    with override_settings(CHANNEL_LAYERS=configured(message_retention=HOUR_S, trim_batch_size=1)):
        call_command("channels_trim", stdout=terminal, no_color=True)
    shown = terminal.getvalue()
    assert "Trimming default [" in shown
    assert "50%" in shown
    assert shown.endswith("\r\x1b[Kdefault: 10 messages deleted.\n")
    fill(database.path, 10, age_s=2 * HOUR_S)
    with override_settings(CHANNEL_LAYERS=configured(message_retention=HOUR_S, trim_batch_size=1)):
        assert run("channels_trim") == "default: 10 messages deleted.\n"


def test_trim_goes_on_with_the_others_when_one_fails(tmp_path: Path, database: ChannelDatabase) -> None:
    layers = {
        "broken": {"BACKEND": OURS, "CONFIG": {"database": "more"}},
        "memory": MEMORY,
        "default": {"BACKEND": OURS},
    }
    out = StringIO()
    with (
        channel_database(tmp_path, alias="more", migrated=False),
        override_settings(CHANNEL_LAYERS=layers),
        pytest.raises(CommandError, match=r"broken: .*migrate --database=more"),
    ):
        call_command("channels_trim", stdout=out)
    assert "default: 0 messages deleted." in out.getvalue()
    assert "CHANNEL_LAYERS['memory'] is skipped" in out.getvalue()


def test_who_holds_the_lock_for_long_is_hinted_at(tmp_path: Path) -> None:
    options: Mapping[str, object] = {"timeout": 0.2, "init_command": "PRAGMA busy_timeout=200"}
    with channel_database(tmp_path, options=options) as database:
        fill(database.path, 3, age_s=2 * HOUR_S)
        with (
            opened(database.path) as holder,
            override_settings(CHANNEL_LAYERS=configured(message_retention=HOUR_S)),
        ):
            holder.execute("PRAGMA journal_mode=WAL")
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(CommandError, match="a long transaction"):
                run("channels_trim")
            holder.execute("ROLLBACK")
            assert run("channels_trim") == "default: 3 messages deleted.\n"


# Vacuum


def free_pages(path: Path) -> int:
    count: int = query(path, "PRAGMA freelist_count")[0][0]
    return count


def test_vacuum_gives_space_back_at_once_the_first_time_and_in_steps_from_then_on(database: ChannelDatabase) -> None:
    with override_settings(CHANNEL_LAYERS=configured(message_retention=HOUR_S)):
        for auto_vacuum in (0, 2):
            fill(database.path, 700, age_s=2 * HOUR_S, size_bytes=4000)
            assert query(database.path, "PRAGMA auto_vacuum") == [(auto_vacuum,)]
            printed = run("channels_trim", "--vacuum")
            assert "default: 700 messages deleted." in printed
            assert "MiB before" in printed
            assert "ms at a time" in printed
            assert free_pages(database.path) == 0
            assert database.path.stat().st_size < 400_000
        assert "nothing to give back" in run("channels_trim", "--vacuum")
    assert query(database.path, "PRAGMA auto_vacuum") == [(2,)]
    assert query(database.path, "PRAGMA integrity_check") == [("ok",)]


def test_a_database_that_others_share_keeps_its_auto_vacuum(
    database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "DEFAULT_DB_ALIAS", "channels")
    fill(database.path, 300, age_s=2 * HOUR_S, size_bytes=4000)
    with override_settings(CHANNEL_LAYERS=configured(message_retention=HOUR_S)):
        assert "ms at a time" in run("channels_trim", "--vacuum")
    assert query(database.path, "PRAGMA auto_vacuum") == [(0,)]
    assert free_pages(database.path) == 0


def test_one_database_is_vacuumed_once(database: ChannelDatabase) -> None:
    layers = {
        "default": {"BACKEND": OURS, "CONFIG": {"message_retention": HOUR_S}},
        "second": {"BACKEND": OURS, "CONFIG": {"prefix": "second"}},
    }
    fill(database.path, 300, age_s=2 * HOUR_S, size_bytes=4000)
    with override_settings(CHANNEL_LAYERS=layers):
        printed = run("channels_trim", "--vacuum")
    assert printed.count("channels: ") == 1


async def test_vacuum_does_not_keep_live_processes_waiting_for_long_unless_allowed(
    make_layer: LayerFactory, database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "QUICK_BYTES", 0)
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    # Too young to be trimmed by the layer itself; deleted by hand.
    await asyncio.to_thread(fill, database.path, 300, size_bytes=4000)
    await asyncio.to_thread(query, database.path, "DELETE FROM channels_sqlite_message")
    with pytest.raises(CommandError, match=r"1 live processes .* --may-block"):
        await asyncio.to_thread(run, "channels_trim", "--vacuum")
    assert await asyncio.to_thread(free_pages, database.path) > 0
    printed = await asyncio.to_thread(run, "channels_trim", "--vacuum", "--may-block")
    assert "ms at a time" in printed
    # The live process goes on in the file that was written anew.
    await layer.group_send("room", {"n": 1})
    assert await asyncio.wait_for(layer.receive(channel), DEADLINE_S) == {"n": 1}


# Flush


async def test_flush_deletes_everything_in_every_process(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send("jobs", {"n": 1})
    await layer.send(channel, {"n": 2})
    assert await asyncio.to_thread(run, "channels_flush", "--yes") == "default: flushed.\n"
    assert await layer.group_count("room") == 0
    await layer.send("jobs", {"n": 3})
    await layer.send(channel, {"n": 4})
    received = [await asyncio.wait_for(layer.receive(name), DEADLINE_S) for name in ("jobs", channel)]
    assert received == [{"n": 3}, {"n": 4}]


def test_flush_leaves_the_layer_of_its_own_process_open(database: ChannelDatabase) -> None:
    layer = channel_layers["default"]
    assert isinstance(layer, SqliteChannelLayer)

    async def name() -> str:
        return await layer.new_channel()

    before = async_to_sync(name)()
    run("channels_flush", "--yes")
    after = async_to_sync(name)()
    async_to_sync(layer.close)()
    assert before.partition("!")[0] == after.partition("!")[0]


@pytest.mark.parametrize(("answer", "left"), [("yes", 1), (" YES ", 1), ("no", 3), ("", 3), ("y", 3)])
def test_flush_asks_and_takes_yes_alone_for_yes(
    database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    fill(database.path, 3)
    monkeypatch.setattr(builtins, "input", lambda prompt: answer)
    out = StringIO()
    if left == 3:
        with pytest.raises(CommandError, match="Nothing was deleted"):
            call_command("channels_flush", stdout=out)
    else:
        call_command("channels_flush", stdout=out)
        assert "default: flushed." in out.getvalue()
    assert "default: 3 messages and 0 memberships will be deleted." in out.getvalue()
    assert rows(database.path) == left  # a row that tells the other processes stays


def test_flush_needs_yes_where_nobody_can_be_asked(database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO())
    with pytest.raises(CommandError, match="--yes"):
        run("channels_flush")


@pytest.mark.parametrize("arguments", [[], ["--yes"]])
def test_flush_says_what_is_missing(tmp_path: Path, arguments: list[str]) -> None:
    with (
        channel_database(tmp_path, options=DOCUMENTED_OPTIONS, migrated=False) as database,
        pytest.raises(CommandError, match="migrate --database=channels"),
    ):
        run("channels_flush", *arguments)
    assert not database.path.exists()


# Send


@pytest.fixture
def sending(database: ChannelDatabase) -> Iterator[ChannelDatabase]:
    """The layer of this process, which the command uses, is closed in the end."""
    yield database
    for layer in channel_layers.backends.values():
        if isinstance(layer, SqliteChannelLayer):
            async_to_sync(layer.close)()


def receive(channel: str) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        return await asyncio.wait_for(channel_layers["default"].receive(channel), DEADLINE_S)

    return async_to_sync(first)()


def test_send_sends_to_a_channel(sending: ChannelDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    message = {"type": "thumbnail.make", "id": 7, "tags": ["ä", None, 1.5]}
    printed = run("channels_send", "thumbnails", json.dumps(message))
    assert printed == "Sent to the channel 'thumbnails' of layer 'default'.\n"
    assert receive("thumbnails") == message
    monkeypatch.setattr(sys, "stdin", StringIO('{"id": 8}'))
    run("channels_send", "thumbnails", "-")
    assert receive("thumbnails") == {"id": 8}


def test_send_sends_to_a_group(sending: ChannelDatabase) -> None:
    async_to_sync(channel_layers["default"].group_add)("room", "log")
    assert "group 'room'" in run("channels_send", "room", '{"n": 1}', "--group")
    assert receive("log") == {"n": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jobs", "{'type': 'x'}"], "no JSON.*double quotes"),
        (["jobs", "[1]"], "must be a JSON object"),
        (["jobs", "{}", "--layer", "nope"], "has no alias 'nope'; it has: 'default'"),
        (["not a name", "{}"], "name must be"),
        (["not a name", "{}", "--group"], "name must be"),
        (["jobs", '{"__asgi_channel__": 1}'], "__asgi_channel__"),
        (["jobs", '{"n": 99999999999999999999}'], "message"),
    ],
)
def test_send_says_what_is_wrong(sending: ChannelDatabase, arguments: list[str], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run("channels_send", *arguments)


def test_send_to_a_full_channel_says_so(sending: ChannelDatabase) -> None:
    with override_settings(CHANNEL_LAYERS=configured(capacity=1)):
        run("channels_send", "jobs", "{}")
        with pytest.raises(CommandError, match="holds 1 of 1 unread messages"):
            run("channels_send", "jobs", "{}")
        async_to_sync(channel_layers["default"].close)()  # type: ignore[attr-defined]  # it is ours


def test_send_works_over_any_backend() -> None:
    with override_settings(CHANNEL_LAYERS={"default": MEMORY}):
        run("channels_send", "jobs", '{"n": 1}')
        assert receive("jobs") == {"n": 1}


def test_send_to_a_database_that_is_missing_says_what_to_do(tmp_path: Path) -> None:
    with channel_database(tmp_path, migrated=False), pytest.raises(CommandError, match="migrate --database=channels"):
        run("channels_send", "jobs", "{}")
    async_to_sync(channel_layers["default"].close)()  # type: ignore[attr-defined]  # it is ours
