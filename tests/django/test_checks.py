"""System checks: each fires for its fault, names the remedy, and is silent otherwise."""

import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.core.checks.registry import registry
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.core.management.commands import migrate
from django.db import connections
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from channels_sqlite.checks import filesystems, ids
from channels_sqlite.checks.database import check_databases
from channels_sqlite.checks.filesystems import Mount, mount_of
from channels_sqlite.checks.settings import check_settings
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.storage.database import has_wal_reset_bug
from channels_sqlite.sync import SyncChannelLayer
from tests.django.project import Project
from tests.support.databases import DOCUMENTED_OPTIONS, ChannelDatabase, channel_database, fresh_file, registered

OURS = "channels_sqlite.layers.SqliteChannelLayer"
ROUTER = "channels_sqlite.db_routers.ChannelsRouter"
SQLITE = "django.db.backends.sqlite3"
NOBODY = 65534
SECRET = "correct-horse-battery-staple"

LOCAL_DISK = "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"

AddDatabase = Callable[..., None]

nothing_opened = pytest.mark.leaks_allowed(reason="settings in, messages out; looking for leaks takes longer")


class Subclass(SqliteChannelLayer):
    """What a user might make of our layer."""


class PassingRouter:
    """A router with methods and no opinions."""

    def db_for_read(self, model: object, **hints: object) -> str | None:
        return None

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool | None:
        return True if app_label == "auth" and db == "default" else None


class GreedyRouter:
    """A router that sends everything to one database."""

    def db_for_read(self, model: object, **hints: object) -> str | None:
        return "default"


class HospitableRouter:
    """A router that lets everything into every database."""

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool | None:
        return True


class StrictRouter:
    """A router that lets nothing of ours in anywhere."""

    def allow_migrate(self, db: str, app_label: str, **hints: object) -> bool | None:
        return False if app_label == "channels_sqlite" else None


@dataclass(frozen=True, kw_only=True)
class RawDatabase(ChannelDatabase):
    """An entry of DATABASES exactly as it is given."""

    entry: Mapping[str, object]

    def settings(self) -> dict[str, object]:
        return dict(self.entry)


@pytest.fixture
def add_database(no_leaks: None, tmp_path: Path) -> Iterator[AddDatabase]:
    """Puts entries into DATABASES until the test ends: `add_database("channels", NAME=...)`."""
    with ExitStack() as stack:

        def add(alias: str, **entry: object) -> None:
            entry = {"ENGINE": SQLITE, "NAME": tmp_path / f"{alias}.sqlite3", **entry}
            stack.enter_context(
                registered(RawDatabase(alias=alias, path=Path(str(entry["NAME"])), options={}, entry=entry))
            )

        yield add


@pytest.fixture(autouse=True)
def django_connections(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Django may connect to what these tests put under its aliases."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(autouse=True)
def local_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Whatever the tests run on, its file systems look local; the file may be written anew."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(LOCAL_DISK)
    monkeypatch.setattr(filesystems, "MOUNTS", str(mounts))
    return mounts


def layers(*configs: Mapping[str, object], backend: str = OURS) -> dict[str, dict[str, Any]]:
    """CHANNEL_LAYERS of layers with these CONFIGs, under the names `layer-0`, `layer-1`, ..."""
    return {f"layer-{number}": {"BACKEND": backend, "CONFIG": dict(one)} for number, one in enumerate(configs)}


def settings_messages(**settings: object) -> list[CheckMessage]:
    """What the checks of the settings say with these settings."""
    with override_settings(**settings):
        return check_settings()


def only(messages: list[CheckMessage], check_id: str) -> CheckMessage:
    """The only message, which must have this id, an object and a hint."""
    assert [message.id for message in messages] == [check_id], messages
    [message] = messages
    assert message.obj
    assert message.hint
    assert message.hint.endswith((".", "walresetbug")) or "mkdir" in message.hint
    return message


def database_messages(alias: str = "channels", *, but: str = ids.WAL_RESET_BUG) -> list[CheckMessage]:
    """What the checks of the database say, without what depends on this machine's SQLite."""
    return [message for message in check_databases(databases=[alias]) if message.id != but]


# When checks run


def test_both_are_registered_and_the_database_is_left_alone_unless_asked_for(add_database: AddDatabase) -> None:
    assert {check_settings, check_databases} <= registry.registered_checks
    add_database("channels")
    ours = "channels_sqlite."
    assert [message for message in run_checks() if str(message.id).startswith(ours)] == []
    found = [message.id for message in run_checks(databases=["channels"]) if str(message.id).startswith(ours)]
    assert found == [ids.NOT_MIGRATED]


def test_only_the_databases_asked_for_are_looked_at(add_database: AddDatabase) -> None:
    add_database("channels")
    assert check_databases(databases=["default"]) == []
    assert check_databases(databases=None) == []
    assert check_databases() == []


# Silence


@nothing_opened
def test_the_documented_settings_are_in_order() -> None:
    assert settings_messages() == []


@nothing_opened
@pytest.mark.parametrize(
    "configured",
    [
        {},
        None,
        {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
        {"default": {"BACKEND": "no.such.Backend", "CONFIG": {"hosts": []}}},
        {"default": {}},
        {"default": None},
    ],
)
def test_without_a_layer_of_ours_nothing_is_said(configured: Any) -> None:
    assert settings_messages(CHANNEL_LAYERS=configured, DATABASE_ROUTERS=[]) == []
    with override_settings(CHANNEL_LAYERS=configured):
        assert check_databases(databases=["default", "channels"]) == []


@nothing_opened
def test_a_bare_alias_and_an_empty_config_are_in_order(add_database: AddDatabase) -> None:
    add_database("channels")
    assert settings_messages(CHANNEL_LAYERS=layers({})) == []
    assert settings_messages(CHANNEL_LAYERS={"default": {"BACKEND": OURS}}) == []


@nothing_opened
def test_a_test_database_in_memory_is_in_order(add_database: AddDatabase) -> None:
    add_database("channels", NAME="file:memorydb_channels?mode=memory&cache=shared")
    assert settings_messages() == []


# CHANNEL_LAYERS


@nothing_opened
def test_a_backend_of_ours_that_does_not_exist_is_named() -> None:
    wrong = "channels_sqlite.layer.SqliteChannelLayer"
    message = only(settings_messages(CHANNEL_LAYERS=layers({}, backend=wrong)), ids.BACKEND_MISSING)
    assert repr(wrong) in message.msg
    assert OURS in str(message.hint)


@nothing_opened
@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("hosts", "There is no server: remove it, and name the alias of an SQLite database in 'database'."),
        ("on_disconnect", "remove it"),
        ("on_reconnect", "remove it"),
        ("serializer_format", "remove it"),
        ("random_prefix_length", "remove it"),
        ("channel_layer", "remove it"),
        ("message_expiry", "It is called 'expiry' here."),
        ("capcity", "Perhaps 'capacity' is meant."),
        ("POLLING_INTERVAL", "Perhaps 'polling_interval' is meant."),
        ("zzz", "See "),
    ],
)
def test_an_unknown_option_is_named_with_what_it_is_here(option: str, said: str) -> None:
    message = only(settings_messages(CHANNEL_LAYERS=layers({option: [SECRET]})), ids.UNKNOWN_OPTION)
    assert repr(option) in message.msg
    assert said in str(message.hint)
    assert message.obj == "CHANNEL_LAYERS['layer-0']"
    assert SECRET not in str(message)


@nothing_opened
@pytest.mark.parametrize("option", ["prefix", "expiry", "group_expiry", "capacity", "channel_capacity"])
def test_options_that_channels_redis_has_too_are_taken(option: str) -> None:
    value: object = {"prefix": "x", "channel_capacity": {"a": 1}}.get(option, 5)
    assert settings_messages(CHANNEL_LAYERS=layers({option: value, "symmetric_encryption_keys": [SECRET]})) == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("capacity", 0, "to a whole number of messages"), ("polling_interval", -1, "seconds"), ("prefix", "", "string")],
)
def test_an_impossible_value_is_named_with_what_is_possible(option: str, value: object, said: str) -> None:
    message = only(settings_messages(CHANNEL_LAYERS=layers({option: value})), ids.IMPOSSIBLE_VALUE)
    assert f"{option!r} is {value!r}" in message.msg
    assert said in str(message.hint)


@nothing_opened
def test_every_fault_of_every_layer_is_a_message_of_its_own_and_keys_are_not_shown() -> None:
    messages = settings_messages(
        CHANNEL_LAYERS=layers(
            {"hosts": [], "capacity": 0, "symmetric_encryption_keys": SECRET}, {"prefix": "b", "expiry": True}
        )
    )
    assert [(message.id, message.obj) for message in messages] == [
        (ids.UNKNOWN_OPTION, "CHANNEL_LAYERS['layer-0']"),
        (ids.IMPOSSIBLE_VALUE, "CHANNEL_LAYERS['layer-0']"),
        (ids.IMPOSSIBLE_VALUE, "CHANNEL_LAYERS['layer-0']"),
        (ids.IMPOSSIBLE_VALUE, "CHANNEL_LAYERS['layer-1']"),
    ]
    assert SECRET not in "".join(map(str, messages))


@nothing_opened
def test_a_subclass_of_our_layer_is_checked_too() -> None:
    backend = f"{__name__}.Subclass"
    only(settings_messages(CHANNEL_LAYERS=layers({"hosts": []}, backend=backend)), ids.UNKNOWN_OPTION)


@nothing_opened
def test_encryption_without_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    configured = layers({"symmetric_encryption_keys": [SECRET]})
    assert settings_messages(CHANNEL_LAYERS=configured) == []
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    message = only(settings_messages(CHANNEL_LAYERS=configured), ids.NO_ENCRYPTION)
    assert "pip install" in str(message.hint)
    assert SECRET not in str(message)


@nothing_opened
def test_two_layers_in_one_place_are_named_and_prefixes_keep_them_apart() -> None:
    message = only(settings_messages(CHANNEL_LAYERS=layers({}, {"capacity": 5})), ids.SAME_PLACE)
    assert message.obj == "CHANNEL_LAYERS['layer-1']"
    assert "CHANNEL_LAYERS['layer-0']" in message.msg
    assert settings_messages(CHANNEL_LAYERS=layers({}, {"prefix": "b"})) == []


@nothing_opened
@pytest.mark.parametrize("pattern", ["room:*", "room/1", "räume.*", "room 1", "ws!*", "[:]x"])
def test_a_history_of_no_group_is_named(pattern: str) -> None:
    config = {"history": {"room.*": {"size": 1, "ttl": 1}, pattern: {"size": 1, "ttl": 1}}}
    if pattern == "[:]x":  # a set: what it matches is not looked into
        assert settings_messages(CHANNEL_LAYERS=layers(config)) == []
        return
    message = only(settings_messages(CHANNEL_LAYERS=layers(config)), ids.HISTORY_OF_NOTHING)
    assert repr(pattern) in message.msg
    assert message.obj == "CHANNEL_LAYERS['layer-0']"
    assert "['history']" in str(message.hint).replace('"', "'")


@nothing_opened
def test_histories_that_match_groups_are_passed_over() -> None:
    keep = {"size": 1, "ttl": 1}
    patterns: list[object] = ["*", "room.?", "room[0-9]*", "A-b_c.d", "[!x]*", "[]]*", re.compile("what:ever")]
    assert settings_messages(CHANNEL_LAYERS=layers({"history": dict.fromkeys(patterns, keep)})) == []
    assert settings_messages(CHANNEL_LAYERS=layers({"history": None})) == []


@nothing_opened
def test_a_bad_history_is_a_fault_of_its_option() -> None:
    message = only(
        settings_messages(CHANNEL_LAYERS=layers({"history": {"room": {"size": 0, "ttl": 1}}})), ids.IMPOSSIBLE_VALUE
    )
    assert "'history'" in message.msg
    assert "'size' for 'room'" in message.msg


# DATABASES, as written


@nothing_opened
def test_a_missing_alias_is_named() -> None:
    message = only(settings_messages(CHANNEL_LAYERS=layers({"database": "messages"})), ids.ALIAS_MISSING)
    assert "'messages'" in message.msg
    assert "'default', 'channels'" in message.msg
    assert message.obj == "CHANNEL_LAYERS['layer-0']"


@nothing_opened
@pytest.mark.parametrize("engine", ["django.db.backends.postgresql", "django.db.backends.dummy", "no.such.engine"])
def test_another_engine_is_named(add_database: AddDatabase, engine: str) -> None:
    add_database("channels", ENGINE=engine)
    message = only(settings_messages(), ids.NOT_SQLITE)
    assert engine in message.msg
    assert SQLITE in str(message.hint)
    assert check_databases(databases=["channels"]) == []


@pytest.mark.parametrize("name", [":memory:", "", "file:shared?mode=memory&cache=shared"])
def test_a_database_in_memory_is_named(add_database: AddDatabase, name: str) -> None:
    add_database("channels", NAME=name)
    message = only(settings_messages(), ids.IN_MEMORY)
    assert repr(name) in message.msg
    assert "path" in str(message.hint)


def test_an_sqlite_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    message = only(settings_messages(), ids.SQLITE_TOO_OLD)
    assert "3.35.0" in message.msg
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 35, 0))
    assert settings_messages() == []


def test_the_default_database_is_warned_about() -> None:
    message = only(
        settings_messages(CHANNEL_LAYERS=layers({"database": "default"}), DATABASE_ROUTERS=[]), ids.DEFAULT_USED
    )
    assert message.obj == "DATABASES['default']"


@pytest.mark.parametrize("key", ["init_command", "transaction_mode", "timeout"])
def test_options_beside_options_are_named(add_database: AddDatabase, key: str) -> None:
    add_database("channels", **{key: DOCUMENTED_OPTIONS[key]})
    message = only(settings_messages(), ids.OPTIONS_MISPLACED)
    assert repr(key) in message.msg
    assert "DATABASES['channels'][\"OPTIONS\"]" in str(message.hint)


def test_every_other_key_of_a_database_is_in_order(add_database: AddDatabase) -> None:
    add_database("channels", ATOMIC_REQUESTS=False, CONN_MAX_AGE=5, TEST={"NAME": "x"}, OPTIONS=DOCUMENTED_OPTIONS)
    assert settings_messages() == []


def test_databases_of_others_may_be_anything(add_database: AddDatabase) -> None:
    add_database("other", ENGINE="django.db.backends.dummy", init_command="?")
    assert settings_messages() == []


# DATABASE_ROUTERS


def test_a_missing_router_is_named() -> None:
    message = only(settings_messages(DATABASE_ROUTERS=[]), ids.ROUTER_MISSING)
    assert ROUTER in str(message.hint)


def test_the_default_database_alone_needs_no_router() -> None:
    found = settings_messages(CHANNEL_LAYERS=layers({"database": "default"}), DATABASE_ROUTERS=[])
    assert ids.ROUTER_MISSING not in {message.id for message in found}


@pytest.mark.parametrize(
    ("router", "said"),
    [
        (GreedyRouter, "db_for_read() sends the models of channels_sqlite to 'default'"),
        (HospitableRouter, "allow_migrate() lets migrate put the tables of 'admin' into 'channels'"),
        (StrictRouter, "does not let migrate put the tables of 'channels_sqlite' into 'channels'"),
    ],
)
def test_a_router_that_answers_for_ours_is_named_unless_it_comes_later(router: type, said: str) -> None:
    path = f"{__name__}.{router.__name__}"
    message = only(settings_messages(DATABASE_ROUTERS=[path, ROUTER]), ids.ROUTER_HIDDEN)
    assert path in message.msg
    assert said in message.msg
    assert settings_messages(DATABASE_ROUTERS=[ROUTER, path]) == []


@nothing_opened
def test_a_router_without_an_opinion_may_come_first() -> None:
    assert settings_messages(DATABASE_ROUTERS=[f"{__name__}.PassingRouter", ROUTER]) == []


# Files and folders


@contextmanager
def without_rights() -> Iterator[None]:
    """For root, who may do anything: be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public_folder(no_leaks: None) -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="channels-sqlite-checks-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_migrated_database_is_in_order_and_nothing_is_made_or_kept_open(database: ChannelDatabase) -> None:
    before = sorted(path.name for path in database.path.parent.iterdir())
    assert database_messages() == []
    assert connections["channels"].connection is None
    assert sorted(path.name for path in database.path.parent.iterdir()) == before


def test_a_connection_that_is_open_stays_open(database: ChannelDatabase) -> None:
    connections["channels"].ensure_connection()
    assert database_messages() == []
    assert connections["channels"].connection is not None


INTRUDE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


def test_the_locks_of_this_process_survive_a_check(database: ChannelDatabase) -> None:
    """Opening and closing one of the files by hand would drop them, which only another process sees."""
    with closing(sqlite3.connect(database.path, isolation_level=None, timeout=0)) as holder:
        holder.execute("PRAGMA journal_mode=WAL")
        holder.execute("BEGIN IMMEDIATE")
        check_databases(databases=["channels"])
        command = [sys.executable, "-c", INTRUDE, str(database.path)]
        intruder = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        holder.execute("ROLLBACK")
    assert intruder.stdout == "database is locked\n"


def test_a_missing_file_is_named_and_not_made(add_database: AddDatabase, tmp_path: Path) -> None:
    add_database("channels")
    message = only(database_messages(), ids.NOT_MIGRATED)
    assert "does not exist" in message.msg
    assert message.hint == 'Run "python manage.py migrate --database=channels".'
    assert not (tmp_path / "channels.sqlite3").exists()


def test_a_missing_file_of_a_uri_is_not_made_either(add_database: AddDatabase, tmp_path: Path) -> None:
    add_database("channels", NAME=f"file:{tmp_path}/a%20b.sqlite3?mode=rwc")
    message = only(database_messages(), ids.NOT_MIGRATED)
    assert "a b.sqlite3" in message.msg
    assert not (tmp_path / "a b.sqlite3").exists()


def test_a_missing_folder_is_named(add_database: AddDatabase, tmp_path: Path) -> None:
    add_database("channels", NAME=tmp_path / "var" / "channels.sqlite3")
    message = only(database_messages(), ids.NOT_WRITABLE)
    assert str(tmp_path / "var") in message.msg
    assert f"mkdir -p {tmp_path / 'var'}" in str(message.hint)


@pytest.mark.parametrize("what", ["folder", "file", "-wal"])
def test_what_this_user_may_not_write_is_named(public_folder: Path, what: str) -> None:
    home = public_folder / "home"
    home.mkdir()
    with channel_database(home) as database:
        wal = Path(f"{database.path}-wal")
        if what == "-wal":
            wal.touch()
        for path, name in ((database.path, "file"), (wal, "-wal"), (home, "folder")):
            if path.exists():
                path.chmod((0o555 if path is home else 0o444) if what == name else (0o777 if path is home else 0o666))
        with without_rights():
            message = only(check_databases(databases=["channels"]), ids.NOT_WRITABLE)
        home.chmod(0o755)
        assert repr(str({"folder": home, "file": database.path, "-wal": wal}[what])) in message.msg
        assert "permission" in str(message.hint)


def test_a_wake_up_folder_that_cannot_be_used_is_named(database: ChannelDatabase) -> None:
    folder = Path(f"{database.path}.wake")
    folder.mkdir()
    assert database_messages() == []
    folder.rmdir()
    folder.write_text("in the way")
    message = only(database_messages(), ids.WAKE_FOLDER_ELSEWHERE)
    assert repr(str(folder)) in message.msg
    assert "it is no folder" in message.msg


def test_no_wake_up_folder_at_all_is_an_error(
    database: ChannelDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Path(f"{database.path}.wake").write_text("in the way")
    only(database_messages(), ids.WAKE_FOLDER_ELSEWHERE)
    (tmp_path / f"channels_sqlite-{os.geteuid()}").write_text("in the way too")
    message = only(database_messages(), ids.NO_WAKE_FOLDER)
    assert message.msg.count("it is no folder") == 2


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "virtiofs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_named(database: ChannelDatabase, local_disk: Path, kind: str) -> None:
    point = os.path.realpath(database.path.parent)
    local_disk.write_text(f"{LOCAL_DISK}99 22 0:50 / {point} rw shared:1 - {kind} server:/export rw\n")
    message = only(database_messages(), ids.NETWORK_FILE_SYSTEM)
    assert kind in message.msg
    assert repr(point) in message.msg


def test_where_mounts_cannot_be_read_nothing_is_said(database: ChannelDatabase, local_disk: Path) -> None:
    local_disk.unlink()
    assert database_messages() == []
    local_disk.write_text("this is\nno - table\n\n")
    assert database_messages() == []


def test_the_mount_of_a_path_is_the_deepest_and_the_latest() -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:5 / /srv rw - nfs server:/ rw\n"
        "3 2 8:2 / /srv/local\\040disk rw - xfs /dev/sdb1 rw\n"
        "4 1 0:6 / /mnt rw - nfs server:/ rw\n"
        "5 1 8:3 / /mnt rw - btrfs /dev/sdc rw\n"
    )
    found = {path: mount_of(path, mounts) for path in ("/srv/a", "/srv/local disk/a", "/mnt/a", "/srvx/a", "/srv")}
    assert found == {
        "/srv/a": Mount("/srv", "nfs"),
        "/srv/local disk/a": Mount("/srv/local disk", "xfs"),
        "/mnt/a": Mount("/mnt", "btrfs"),
        "/srvx/a": Mount("/", "ext4"),
        "/srv": Mount("/srv", "nfs"),
    }


# In the database


def test_missing_tables_are_named(add_database: AddDatabase, tmp_path: Path) -> None:
    add_database("channels", OPTIONS=DOCUMENTED_OPTIONS)
    (tmp_path / "channels.sqlite3").touch()
    message = only(database_messages(), ids.NOT_MIGRATED)
    assert "0001_initial" in message.msg
    assert message.hint == 'Run "python manage.py migrate --database=channels".'


def test_tables_that_are_gone_though_migrated_are_named(database: ChannelDatabase) -> None:
    with closing(sqlite3.connect(database.path)) as connection:
        connection.execute("DROP TABLE channels_sqlite_listener")
    message = only(database_messages(), ids.NOT_MIGRATED)
    assert "channels_sqlite_listener" in message.msg
    assert "zero --fake" in str(message.hint)


def test_a_file_that_is_no_database_is_named(database: ChannelDatabase) -> None:
    database.path.write_bytes(b"no database" * 1000)
    message = only(database_messages(), ids.UNUSABLE_DATABASE)
    assert repr(str(database.path)) in message.msg
    assert "is damaged or is no SQLite database" in str(message.hint)
    assert connections["channels"].connection is None


@pytest.mark.parametrize("options", [{"init_command": "PRAGMA nonsense("}, {"transaction_mode": "SOMETIMES"}])
def test_options_that_django_or_sqlite_refuse_are_named(tmp_path: Path, options: Mapping[str, object]) -> None:
    with channel_database(tmp_path, options=options):
        only(database_messages(), ids.UNUSABLE_DATABASE)


def test_a_journal_mode_of_the_users_own_is_warned_about(tmp_path: Path) -> None:
    with channel_database(tmp_path, options={"init_command": "PRAGMA journal_mode = TRUNCATE"}):
        message = only(database_messages(), ids.NOT_WAL)
    assert "'truncate'" in message.msg


def test_a_database_that_no_layer_has_opened_yet_is_mentioned(tmp_path: Path) -> None:
    with channel_database(tmp_path, options={}) as database:
        with closing(sqlite3.connect(database.path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        message = only(database_messages(), ids.NOT_WAL_YET)
        assert message.level < 30
        with closing(sqlite3.connect(database.path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        assert database_messages() == []


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ((3, 35, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
    ],
)
def test_an_sqlite_with_the_wal_reset_bug_is_mentioned(
    database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int], affected: bool
) -> None:
    assert has_wal_reset_bug(version) is affected
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    found = [message.id for message in check_databases(databases=["channels"])]
    assert found == ([ids.WAL_RESET_BUG] if affected else [])


class OwnMigrate(migrate.Command):
    """What a project might make of the command."""


@pytest.mark.parametrize("command", ["migrate", OwnMigrate()], ids=["migrate", "a subclass"])
def test_migrate_hears_of_what_would_stop_it_alone(
    add_database: AddDatabase, tmp_path: Path, command: str | OwnMigrate
) -> None:
    def run_migrate() -> str:
        told = StringIO()
        with override_settings(DATABASE_ROUTERS=[ROUTER]):
            call_command(command, "channels_sqlite", database="channels", skip_checks=False, verbosity=0, stderr=told)
        return told.getvalue()

    add_database("channels", OPTIONS={"init_command": "PRAGMA journal_mode = TRUNCATE"})
    only(database_messages(), ids.NOT_MIGRATED)
    assert "channels_sqlite.W" not in run_migrate()
    only(database_messages(), ids.NOT_WAL)
    assert "channels_sqlite.W" not in run_migrate()
    add_database("channels", NAME=tmp_path / "var" / "channels.sqlite3")
    with pytest.raises(SystemCheckError, match=ids.NOT_WRITABLE):
        run_migrate()


def test_a_migrate_in_another_thread_keeps_nothing_from_being_said(add_database: AddDatabase) -> None:
    add_database("channels")
    seen: list[CheckMessage] = []

    class Migrate(migrate.Command):
        def handle(self, *args: object, **options: object) -> None:
            with ThreadPoolExecutor(1) as executor:
                seen.extend(executor.submit(database_messages).result())

    call_command(Migrate())
    only(seen, ids.NOT_MIGRATED)


# As a user sees them


@pytest.mark.processes
def test_manage_py_names_faults_and_migrate_is_not_held_up(project: Project) -> None:
    project.settings(
        """
        CHANNEL_LAYERS["default"]["CONFIG"]["hosts"] = [("localhost", 6379)]
        DATABASES["channels"]["timeout"] = 20
        """
    )
    printed = project.manage("check", "--database=channels", expected=1)
    assert "CHANNEL_LAYERS['default']: (channels_sqlite.E004) CONFIG has 'hosts'" in printed
    assert "HINT: There is no server" in printed
    assert "DATABASES['channels']: (channels_sqlite.W004)" in printed
    assert "DATABASES['channels']: (channels_sqlite.W006)" in printed
    project.settings('CHANNEL_LAYERS["default"]["CONFIG"].pop("hosts"); DATABASES["channels"].pop("timeout")\n')
    assert not re.search(r"channels_sqlite\.(?!\d{4}_)", project.manage("migrate", "--database=channels"))


# Pragmas with which no layer works

REFUSED = {
    "PRAGMA query_only=1": "query_only",
    "PRAGMA journal_mode=WAL; pragma main.query_only (ON);": "query_only",
    "PRAGMA query_only = 'yes'": "query_only",
    "PRAGMA locking_mode=EXCLUSIVE": "locking_mode",
    "PRAGMA locking_mode = exclusive; PRAGMA journal_mode=WAL": "locking_mode",
    "PRAGMA locking_mode /* for speed */ = 'EXCLUSIVE'": "locking_mode",
}
TAKEN = [
    "PRAGMA query_only=0",
    "PRAGMA query_only=1; PRAGMA query_only=OFF",
    "PRAGMA locking_mode=NORMAL",
    "-- PRAGMA query_only=1\nPRAGMA synchronous=NORMAL",
    "/* PRAGMA locking_mode=EXCLUSIVE */",
]


@pytest.mark.parametrize("init_command", REFUSED)
def test_a_pragma_that_keeps_connections_from_working_is_named_by_the_check_and_at_first_use(
    add_database: AddDatabase, init_command: str
) -> None:
    add_database("channels", OPTIONS={"init_command": init_command})
    fresh_file(Path(connections.settings["channels"]["NAME"]).parent)
    message = only(settings_messages(), ids.PRAGMA_REFUSED)
    assert check_databases(databases=["channels"]) == []
    with pytest.raises(ImproperlyConfigured) as raised, closing(SyncChannelLayer(SqliteChannelLayer())) as layer:
        layer.send("jobs", {"type": "x"})
    for text in (message.msg, str(raised.value)):
        assert f"PRAGMA {REFUSED[init_command]}" in text
        assert 'DATABASES[\'channels\']["OPTIONS"]["init_command"]' in text
    assert "Remove that pragma" in str(message.hint)
    assert "remove that pragma" in str(raised.value)


@pytest.mark.parametrize("init_command", TAKEN)
def test_a_pragma_with_another_value_is_in_order(add_database: AddDatabase, init_command: str) -> None:
    add_database("channels", OPTIONS={"init_command": init_command})
    fresh_file(Path(connections.settings["channels"]["NAME"]).parent)
    assert settings_messages() == []
    with closing(SyncChannelLayer(SqliteChannelLayer())) as layer:
        layer.send("jobs", {"type": "x"})


class QueryOnly(sqlite3.Connection):
    """A connection with which no setting shows that it cannot write."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("PRAGMA query_only=1")


def test_an_open_connection_is_asked_as_well(add_database: AddDatabase) -> None:
    add_database("channels", OPTIONS={"factory": QueryOnly})
    fresh_file(Path(connections.settings["channels"]["NAME"]).parent)
    with (
        pytest.raises(ImproperlyConfigured, match="PRAGMA query_only"),
        closing(SyncChannelLayer(SqliteChannelLayer())) as layer,
    ):
        layer.send("jobs", {"type": "x"})
