"""`channels_status`: what it finds, how it says it, and how `--watch` goes on and ends."""

import asyncio
import json
import os
import re
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from channels_sqlite.counters import Counters
from channels_sqlite.kinds import Kind
from channels_sqlite.management import base
from channels_sqlite.management.base import Screen
from channels_sqlite.management.status import (
    ChannelStatus,
    GroupStatus,
    LayerStatus,
    PresenceStatus,
    ProcessStatus,
)
from channels_sqlite.management.status_table import Earlier, lines, size
from channels_sqlite.processes.liveness import machine_id
from channels_sqlite.storage.readers import ProcessRow
from channels_sqlite.storage.store import Store
from tests.settings import RUN_FOLDER_VARIABLE
from tests.support.databases import ROOT, ChannelDatabase, channel_database, fresh_file
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

DEADLINE_S = 30
OURS = "channels_sqlite.layers.SqliteChannelLayer"
MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
GONE_PID = 2**22 + 1  # more than Linux ever gives

nothing_opened = pytest.mark.leaks_allowed(reason="values in, text out; looking for leaks takes longer")


@pytest.fixture(autouse=True)
def django_connections(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The commands make connections of their own."""
    with django_db_blocker.unblock():
        yield


@contextmanager
def stored(path: Path, prefix: str = "asgi") -> Iterator[Store]:
    """The statements, in one transaction on a database file."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=DEADLINE_S)) as connection:
        store = Store(connection, prefix)
        store.begin()
        yield store
        store.commit()


def send(store: Store, channel: str, *, age_s: float = 0.0, expires_s: float = 60.0, client: str | None = None) -> None:
    now = time.time()
    kind, local = (Kind.NORMAL, None) if client is None else (Kind.SPECIFIC, "x")
    store.insert(
        kind, channel, b"x", local=local, client=client, created_at=now - age_s, expires_at=now - age_s + expires_s
    )


def status(*arguments: str) -> str:
    out = StringIO()
    call_command("channels_status", *arguments, stdout=out)
    return out.getvalue()


def status_json(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(status("--json", *arguments))
    return found


def layer_status(**changes: Any) -> LayerStatus:
    """A status with something in it."""
    values: dict[str, Any] = {
        "alias": "default",
        "database": "channels",
        "prefix": "asgi",
        "path": "/srv/channels.sqlite3",
        "rows": 1000,
        "scheduled": 0,
        "newest_id": 5000,
        "database_bytes": 4096,
        "wal_bytes": 0,
        "channels": (),
        "groups": (),
        "processes": (),
        "counters": Counters(),
    }
    return LayerStatus(**{**values, **changes})


# What is found


async def test_json_has_the_documented_shape(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.group_add("room", "log")
    await layer.presence_watch("lobby", "log")
    for _ in range(3):
        await layer.send("thumbnails", {"n": 1})
    await layer.send_later("thumbnails", {"n": 2}, delay=3600)
    receiver = asyncio.create_task(layer.receive("emails"))
    specific = asyncio.create_task(layer.receive(channel))

    async def published() -> dict[str, Any] | None:
        found = await asyncio.to_thread(status_json)
        processes = found["layers"][0]["processes"]
        if not processes or not processes[0]["channels"] or not processes[0]["listening"]:
            return None
        return found if found["layers"][0]["counters"]["sent"] == 3 else None

    found = await aeventually(published, DEADLINE_S)
    receiver.cancel()
    specific.cancel()
    assert found is not None
    assert set(found) == {"layers", "skipped", "errors"}
    [one] = found["layers"]
    assert one.pop("database_bytes") > 0
    assert one.pop("wal_bytes") > 0
    [thumbnails] = one.pop("channels")
    assert 0 <= thumbnails.pop("oldest_age_s") < 3600
    assert thumbnails == {"name": "thumbnails", "waiting": 3}
    [process] = one.pop("processes")
    assert 0 <= process.pop("uptime_s") < 3600
    client = channel.partition("!")[0].partition(".")[2]
    assert process.pop("counters").keys() == asdict(Counters()).keys()
    assert process == {"client": client, "pid": os.getpid(), "channels": 1, "held": 0, "listening": ["emails"]}
    assert one.pop("counters")["sent"] == 3
    assert one == {
        "alias": "default",
        "database": "channels",
        "prefix": "asgi",
        "path": os.path.realpath(database.path),
        "rows": 3,
        "scheduled": 1,
        "newest_id": 3,
        "groups": [{"name": "room", "members": 2, "kept": 0}],
        "queues": [],
        "workers": [],
        "presences": [{"name": "lobby", "present": 0, "watching": 1}],
    }


def test_only_what_waits_counts_and_the_oldest_gives_the_age(database: ChannelDatabase) -> None:
    with stored(database.path) as store:
        for age_s in (50, 20, 10):
            send(store, "jobs", age_s=age_s, expires_s=60)
        send(store, "jobs", age_s=100, expires_s=60)
        send(store, "gone", age_s=100, expires_s=60)
        send(store, "few")
        for _ in range(2):
            send(store, "read")
        store.claim("read", now=time.time(), limit=2, delete=False)
    with stored(database.path, "other") as store:
        send(store, "elsewhere")
    [one] = status_json()["layers"]
    assert one["rows"] == 8
    assert one["newest_id"] == 9
    assert [(channel["name"], channel["waiting"]) for channel in one["channels"]] == [("jobs", 3), ("few", 1)]
    assert 50 <= one["channels"][0]["oldest_age_s"] < 60


def test_what_a_process_has_not_read_waits_and_the_dead_are_not_shown(database: ChannelDatabase) -> None:
    with stored(database.path) as store:
        send(store, "specific.slow!", client="slow")
        for age_s in (40, 0):
            send(store, "specific.slow!", client="slow", age_s=age_s)
        for client in ("nobody", "dead"):
            send(store, f"specific.{client}!", client=client)
        for client, pid in (("slow", os.getpid()), ("dead", GONE_PID)):
            store.register(ProcessRow(client, pid, machine_id(), "", 1, "{}", 0), time.time() - 10)
        store.publish("slow", cursor=1, held={"specific.slow!": 4, "other.slow!": 3}, channels=4)
        store.join("room", "slow", "specific.slow!a", joined_id=0, expires_at=None, now=0)
        store.join("room", "slow", "specific.slow!b", joined_id=0, expires_at=time.time() + 60, now=0)
        store.join("room", "slow", "specific.slow!c", joined_id=0, expires_at=time.time() - 1, now=0)
    [one] = status_json()["layers"]
    waiting = {channel["name"]: channel["waiting"] for channel in one["channels"]}
    assert waiting["specific.slow!"] == 2
    assert "specific.nobody!" not in waiting
    assert 40 <= next(c["oldest_age_s"] for c in one["channels"] if c["name"] == "specific.slow!") < 60
    assert [(process["client"], process["held"], process["channels"]) for process in one["processes"]] == [
        ("slow", 7, 4)
    ]
    assert one["groups"] == [{"name": "room", "members": 2, "kept": 0}]


def test_who_is_present_is_counted_once_for_each_key(database: ChannelDatabase) -> None:
    with stored(database.path) as store:
        for group, channel, key in (("b", "1", "ann"), ("b", "2", "ann"), ("b", "3", "bob"), ("a", "1", "ann")):
            store.attend(group, "", channel, key, b"\x80", heard_id=0, expires_at=None, now=0)
        store.watch("a", "", "2", heard_id=0, expires_at=None)
    with stored(database.path, "other") as store:
        store.watch("a", "", "2", heard_id=0, expires_at=None)
    [one] = status_json()["layers"]
    assert one["presences"] == [
        {"name": "b", "present": 2, "watching": 0},
        {"name": "a", "present": 1, "watching": 1},
    ]
    shown = [line.split() for line in status().partition("Presence in")[2].splitlines()[:3]]
    assert shown == [["present", "watching"], ["b", "2", "0"], ["a", "1", "1"]]


def test_looking_changes_nothing(database: ChannelDatabase) -> None:
    with stored(database.path) as store:
        send(store, "jobs")
    first = status_json()
    second = status_json()
    for found in (first, second):
        found["layers"][0].pop("channels")
        # The last one to close a database in WAL mode empties the WAL.
        found["layers"][0].pop("wal_bytes")
        found["layers"][0].pop("database_bytes")
    assert first == second
    assert not Path(f"{database.path}.wake").exists()


def test_each_layer_is_shown_and_those_of_other_backends_are_named(tmp_path: Path, database: ChannelDatabase) -> None:
    with channel_database(tmp_path, alias="more") as more:
        with stored(more.path) as store:
            send(store, "jobs")
        configured: Mapping[str, object] = {
            "default": {"BACKEND": OURS},
            "second": {"BACKEND": OURS, "CONFIG": {"database": "more"}},
            "memory": MEMORY,
        }
        with override_settings(CHANNEL_LAYERS=configured):
            found = status_json()
            only_second = status_json("--layer", "second")
            table = status()
    assert [(one["alias"], one["rows"]) for one in found["layers"]] == [("default", 0), ("second", 1)]
    assert found["skipped"] == [{"alias": "memory", "backend": MEMORY["BACKEND"]}]
    assert [one["alias"] for one in only_second["layers"]] == ["second"]
    assert only_second["skipped"] == []
    assert "memory: skipped, its backend is 'channels.layers.InMemoryChannelLayer'" in table


def test_one_that_cannot_be_read_is_told_after_the_others_were_shown(tmp_path: Path, database: ChannelDatabase) -> None:
    configured = {"broken": {"BACKEND": OURS, "CONFIG": {"database": "more"}}, "default": {"BACKEND": OURS}}
    out = StringIO()
    with (
        channel_database(tmp_path, alias="more", migrated=False) as more,
        override_settings(CHANNEL_LAYERS=configured),
        pytest.raises(CommandError, match=r"broken: .*migrate --database=more") as raised,
    ):
        call_command("channels_status", "--json", stdout=out)
    assert raised.value.returncode == 1
    assert not more.path.exists()
    found = json.loads(out.getvalue())
    assert [one["alias"] for one in found["layers"]] == ["default"]
    assert [one["alias"] for one in found["errors"]] == ["broken"]


@pytest.mark.parametrize("command", ["channels_status", "channels_trim", "channels_flush"])
def test_without_such_a_layer_the_others_are_named(command: str) -> None:
    with pytest.raises(CommandError, match=r"has no 'nope'; it has: 'default'"):
        call_command(command, "--layer", "nope")
    with override_settings(CHANNEL_LAYERS={"memory": MEMORY}), pytest.raises(CommandError, match="InMemory"):
        call_command(command)
    with override_settings(CHANNEL_LAYERS={}), pytest.raises(CommandError, match="CHANNEL_LAYERS is empty"):
        call_command(command)


# The table


def test_what_is_kept_is_counted_for_each_group_also_without_members(database: ChannelDatabase) -> None:
    with stored(database.path) as store:
        for group, count in (("room.1", 2), ("room.2", 3)):
            for _ in range(count):
                store.insert(Kind.KEPT, group, b"\x80", created_at=time.time(), expires_at=time.time() + 60)
        store.join("room.1", "", "jobs", joined_id=0, expires_at=None, now=time.time())
    table = status()
    assert re.search(r"Groups +members +kept\n +room.1 +1 +2\n +room.2 +0 +3\n", table)
    [layer] = status_json()["layers"]
    assert layer["groups"] == [
        {"name": "room.1", "members": 1, "kept": 2},
        {"name": "room.2", "members": 0, "kept": 3},
    ]


@nothing_opened
def test_the_table_fits_80_columns_whatever_the_names() -> None:
    name = "n" * 99
    crowded = layer_status(
        path="/" + "very/" * 30 + "channels.sqlite3",
        database_bytes=3 * 1024**4,
        wal_bytes=10**9,
        rows=10**9,
        channels=(ChannelStatus(name, 10**7, 86400.0 * 30), ChannelStatus("jobs", 1, 0.5)),
        groups=(GroupStatus(name, 10**7, 10**7),),
        presences=(PresenceStatus(name, 10**7, 10**7),),
        processes=(ProcessStatus("a" * 16, 4_000_000, 10**6, 10**6, (name, name), 10**8, None),),
        counters=Counters(*[10**10] * 13),
    )
    before = layer_status(rows=5, newest_id=1)
    for table in (lines(crowded), lines(crowded, Earlier(before, 10.0))):
        assert max(map(len, table)) <= 80
        assert any(line.endswith("channels.sqlite3") for line in table)
        assert any("jobs" in line and "0.5 s" in line for line in table)


def test_long_lists_are_cut_and_say_so(database: ChannelDatabase) -> None:
    with stored(database.path) as store:
        for number in range(25):
            send(store, f"channel-{number:02}")
    table = status()
    assert "channel-19" in table
    assert "channel-20" not in table
    assert "and 5 more" in table
    everything = status("--all")
    assert "channel-24" in everything
    assert "more" not in everything


def test_an_empty_layer_says_so(database: ChannelDatabase) -> None:
    table = status()
    for text in ("No messages wait.", "No groups.", "No process uses it.", "0 rows", str(database.path.name)):
        assert text in table


@nothing_opened
def test_rates_are_per_second() -> None:
    before = layer_status(rows=900, newest_id=4000, channels=(ChannelStatus("jobs", 50, 1.0),))
    after = layer_status(channels=(ChannelStatus("jobs", 30, 1.0), ChannelStatus("new", 8, 1.0)))
    table = "\n".join(lines(after, Earlier(before, 2.0)))
    assert "1,000 rows (+50.0/s), 500/s written" in table
    jobs, new = (line.split() for line in table.splitlines() if "1.0 s" in line)
    assert jobs[:3] == ["jobs", "30", "-10.0/s"]
    assert new[:3] == ["new", "8", "+4.0/s"]


@nothing_opened
def test_counters_are_summed_up_and_have_rates() -> None:
    process = ProcessStatus("a" * 16, 1, 0, 0, (), 5.0, None)
    before = layer_status(processes=(process,), counters=Counters(sent=1000, dropped_full=2, received=9))
    after = layer_status(processes=(process,), counters=Counters(sent=1500, dropped_full=2, received=4, trim_s=0.25))
    table = "\n".join(lines(after, Earlier(before, 2.0)))
    shown = [line.split() for line in table.partition("Since these processes began")[2].splitlines()]
    assert shown == [
        ["total", "change"],
        ["sent", "1,500", "+250/s"],
        ["received", "4", "+0.0/s"],  # one of the processes has ended
        ["dropped:", "no", "room", "2", "+0.0/s"],
        ["time", "in", "trimming", "0.2", "s", "+0.1/s"],
    ]
    assert "Since" not in "\n".join(lines(layer_status(counters=Counters(sent=1))))


@nothing_opened
def test_sizes_are_readable() -> None:
    assert [size(number) for number in (0, 1023, 1024, 5 * 1024**2, 3 * 1024**4, 2048 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 TiB",
        "2048.0 TiB",
    ]


# Watching


class Terminal(StringIO):
    """Looks like a terminal to whoever asks."""

    def isatty(self) -> bool:
        return True


@nothing_opened
def test_on_a_terminal_lines_take_the_place_of_those_before_and_the_last_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "4")
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    with Screen(OutputWrapper(out)) as screen:
        screen.show(["one", "two", "three", "four", "five"])
        screen.show(["six", "seven", "eight", "nine"])
    before, _, drawn = out.getvalue().partition(base.ENTER_SCREEN)
    drawn, _, after = drawn.partition(base.LEAVE_SCREEN)
    first, second = drawn.split(base.HOME)[1:]
    assert before == ""
    assert "three" in first
    assert "four" not in first, "more than the terminal has lines"
    assert "eight" in second
    assert second.endswith(base.CLEAR_BELOW)
    assert after == "six\nseven\neight\nnine\n"


@nothing_opened
def test_elsewhere_they_follow_each_other() -> None:
    out = StringIO()
    with Screen(OutputWrapper(out)) as screen:
        screen.show(["one"])
        screen.show(["two"])
    assert out.getvalue() == "one\n\ntwo\n\n"


@nothing_opened
@pytest.mark.parametrize("interval", ["0", "-1", "nan", "soon", "1e9"])
def test_impossible_intervals_are_refused(interval: str) -> None:
    with pytest.raises(CommandError, match="not a number of seconds"):
        call_command("channels_status", "--watch", f"--interval={interval}")


@contextmanager
def watching(folder: Path, stdout: int) -> Iterator["subprocess.Popen[bytes]"]:
    """A `channels_status --watch` as users run it, over a database in `folder`."""
    command = [sys.executable, "-m", "django", "channels_status", "--watch", "--interval=0.1"]
    process = subprocess.Popen(
        [*command, "--settings=tests.settings"],
        env={**os.environ, RUN_FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(ROOT), "LINES": "50"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(DEADLINE_S)


class Reading:
    """What comes from a descriptor, read until it holds something."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.text = ""

    def until(self, wanted: str) -> None:
        """Read until `wanted` has come; what comes next is looked for after it."""
        end = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{wanted!r} did not come: {self.text}"
            self.text += os.read(self._descriptor, 65536).decode()
        self.text = self.text.partition(wanted)[2]

    def rest(self) -> str:
        """Everything that still comes."""
        try:
            while chunk := os.read(self._descriptor, 65536):
                self.text += chunk.decode()
        except OSError:  # the other end of a pty was closed
            pass
        return self.text


@pytest.mark.processes
def test_watching_on_a_terminal_refreshes_in_place_until_ctrl_c(no_leaks: None, tmp_path: Path) -> None:
    path = fresh_file(tmp_path)
    outer, inner = os.openpty()
    try:
        with watching(tmp_path, stdout=inner) as process:
            os.close(inner)
            screen = Reading(outer)
            screen.until(base.ENTER_SCREEN)
            screen.until("No messages wait.")
            with stored(path) as store:
                for _ in range(5):
                    send(store, "thumbnails")
            screen.until(base.HOME)
            screen.until("thumbnails")
            screen.until(base.HOME)
            screen.until("5 rows (+0.0/s), 0.0/s written")
            process.send_signal(signal.SIGINT)
            rest = screen.rest()
            assert process.wait(DEADLINE_S) == 0, rest
    finally:
        os.close(outer)
    shown = rest.partition(base.LEAVE_SCREEN)[2]
    assert "thumbnails" in shown
    assert "Traceback" not in rest


class Ending(StringIO):
    """Has this process told to end once it holds so many lines."""

    def __init__(self, most: int, number: signal.Signals) -> None:
        super().__init__()
        self._most = most
        self._number = number

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") == self._most and text:
            os.kill(os.getpid(), self._number)
        return written


@pytest.fixture
def usual_handlers() -> Iterator[None]:
    """Those of a process that has just started: another test's generator may not have been collected yet."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.usefixtures("usual_handlers")
def test_watching_as_json_prints_a_line_each_time_until_told_to_end(
    database: ChannelDatabase, number: signal.Signals
) -> None:
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
    out = Ending(3, number)
    call_command("channels_status", "--watch", "--json", "--interval=0.05", stdout=out)
    assert [json.loads(line)["layers"][0]["rows"] for line in out.getvalue().splitlines()] == [0, 0, 0]
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
