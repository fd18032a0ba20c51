"""The documented settings in a project of its own: every line works as written."""

import sqlite3
from contextlib import closing

import pytest

from channels_sqlite.kinds import Kind
from channels_sqlite.storage.store import Store
from tests.django.project import BARE, ROUND_TRIP, ROUND_TRIP_OUTPUT, Project

pytestmark = pytest.mark.processes

OURS = {
    "channels_sqlite_message",
    "channels_sqlite_membership",
    "channels_sqlite_process",
    "channels_sqlite_scheduled",
    "channels_sqlite_listener",
    "channels_sqlite_queuedtask",
    "channels_sqlite_taskschedule",
    "channels_sqlite_lastid",
    "channels_sqlite_presence",
    "channels_sqlite_historyepoch",
    "channels_sqlite_historyfloor",
}


def test_migrate_puts_nothing_of_ours_into_default_and_nothing_else_into_channels(project: Project) -> None:
    project.manage("migrate")
    default = project.tables("db.sqlite3")
    assert "auth_user" in default
    assert not {table for table in default if table.startswith("channels_sqlite")}
    assert project.tables("channels.sqlite3") == set()

    project.manage("migrate", "--database=channels")
    assert project.tables("channels.sqlite3") == OURS | {"django_migrations"}
    assert project.tables("db.sqlite3") == default
    assert project.query("channels.sqlite3", "PRAGMA journal_mode") == [("wal",)]


def test_the_layer_works_as_configured(project: Project) -> None:
    project.migrated()
    assert ROUND_TRIP_OUTPUT in project.shell(ROUND_TRIP)
    assert project.tables("db.sqlite3") == set(), "the default database was touched"


def test_the_checks_of_django_find_nothing(project: Project) -> None:
    project.migrated()
    # What depends on the SQLite and the disk of this machine.
    project.settings('SILENCED_SYSTEM_CHECKS = ["channels_sqlite.I001", "channels_sqlite.W008"]\n')
    assert "no issues" in project.manage("check", "--fail-level=INFO", "--database=channels", "--database=default")


def test_an_alias_without_options_works_and_ends_in_wal(project: Project) -> None:
    project.settings(BARE)
    project.manage("migrate", "--database=channels")
    # Django alone leaves SQLite's default.
    assert project.query("channels.sqlite3", "PRAGMA journal_mode") == [("delete",)]
    assert ROUND_TRIP_OUTPUT in project.shell(ROUND_TRIP)
    assert project.query("channels.sqlite3", "PRAGMA journal_mode") == [("wal",)]


def test_what_the_user_sets_in_options_wins(project: Project) -> None:
    project.settings(
        """
        DATABASES["channels"]["OPTIONS"] = {
            "timeout": 3,
            "init_command": "PRAGMA synchronous=FULL; PRAGMA cache_size=-123",
        }
        """
    )
    project.migrated()
    printed = project.shell(
        """
        from channels_sqlite.storage.connections import Connections

        opened = Connections("channels", "asgi")
        print(opened.busy_timeout_s)
        for connection in (opened.inline, opened.reader, opened.patient):
            values = [connection.raw.execute(f"PRAGMA {name}").fetchone()[0]
                      for name in ("synchronous", "cache_size", "journal_mode", "wal_autocheckpoint")]
            print(values)
        opened.close()
        """
    )
    assert printed.split("\n")[:4] == ["3.0", *["[2, -123, 'wal', 0]"] * 3]


def test_a_journal_mode_of_the_users_own_is_left_alone(project: Project) -> None:
    project.settings('DATABASES["channels"]["OPTIONS"] = {"init_command": "PRAGMA journal_mode=DELETE"}\n')
    project.migrated()
    assert ROUND_TRIP_OUTPUT in project.shell(ROUND_TRIP)
    assert project.query("channels.sqlite3", "PRAGMA journal_mode") == [("delete",)]


def test_the_default_database_may_be_shared(project: Project) -> None:
    project.settings('CHANNEL_LAYERS["default"]["CONFIG"]["database"] = "default"\nDATABASES.pop("channels")\n')
    project.manage("migrate")
    tables = project.tables("db.sqlite3")
    assert tables >= OURS
    assert "auth_user" in tables
    assert ROUND_TRIP_OUTPUT in project.shell(ROUND_TRIP)
    # The user's own tables are used as ever, beside it.
    project.shell('from django.contrib.auth.models import User; User.objects.create_user("ann")')
    assert project.query("db.sqlite3", "SELECT username FROM auth_user") == [("ann",)]


def test_several_layers_may_share_an_alias_or_have_their_own(project: Project) -> None:
    project.settings(
        """
        CHANNEL_LAYERS["second"] = {
            "BACKEND": "channels_sqlite.layers.SqliteChannelLayer",
            "CONFIG": {"prefix": "second"},
        }
        CHANNEL_LAYERS["third"] = {
            "BACKEND": "channels_sqlite.layers.SqliteChannelLayer",
            "CONFIG": {"database": "more"},
        }
        DATABASES["more"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "more.sqlite3"}
        """
    )
    project.migrated()
    project.manage("migrate", "--database=more")
    assert project.tables("more.sqlite3") == OURS | {"django_migrations"}
    printed = project.shell(
        """
        import asyncio
        from channels_sqlite import get_channel_layer

        async def main():
            layers = [get_channel_layer(alias) for alias in ("default", "second", "third")]
            for number, layer in enumerate(layers):
                await layer.send("jobs", {"n": number})
            print([(await layer.receive("jobs"))["n"] for layer in layers])
            for layer in layers:
                await layer.close()

        asyncio.run(main())
        """
    )
    assert "[0, 1, 2]" in printed


def test_no_migration_is_missing(project: Project) -> None:
    # What a project chooses for its own models is nothing to ours.
    project.settings('DEFAULT_AUTO_FIELD = "django.db.models.AutoField"\n')
    assert "No changes detected" in project.manage("makemigrations", "--check", "--dry-run")


def test_migrations_can_be_undone_and_done_again(project: Project) -> None:
    project.migrated()
    project.manage("migrate", "--database=channels", "channels_sqlite", "zero")
    assert project.tables("channels.sqlite3") == {"django_migrations"}
    project.manage("migrate", "--database=channels")
    assert ROUND_TRIP_OUTPUT in project.shell(ROUND_TRIP)


def test_what_processes_hold_is_counted_anew_after_the_migration(project: Project) -> None:
    project.migrated()
    for migration, held in (("0001", 0), ("0002", "{}")):
        with closing(sqlite3.connect(project.folder / "channels.sqlite3")) as connection, connection:
            connection.execute("DELETE FROM channels_sqlite_process")
            connection.execute(
                "INSERT INTO channels_sqlite_process "
                "(client, prefix, pid, machine, address, cursor, held, channels, started_at) "
                "VALUES ('c', 'asgi', 1, '', '', 0, ?, 0, 0)",
                ['{"a.c!": 3}' if migration == "0001" else 7],
            )
        project.manage("migrate", "--database=channels", "channels_sqlite", migration)
        assert project.query("channels.sqlite3", "SELECT held FROM channels_sqlite_process") == [(held,)]


INSERT = (
    "INSERT INTO channels_sqlite_message (prefix, kind, state, queue, created_at, expires_at, payload)"
    " VALUES ('asgi', 0, 0, 'work', 0, 0, x'')"
)


def test_ids_go_on_over_the_migrations(project: Project) -> None:
    newest = 0
    for migration in ("0003", "0004", "0003", "0004"):
        project.manage("migrate", "--database=channels", "channels_sqlite", migration)
        with closing(sqlite3.connect(project.folder / "channels.sqlite3")) as connection, connection:
            if migration == "0003":  # as the layer did it then
                ids = [connection.execute(INSERT).lastrowid or 0 for _ in range(3)]
            else:
                store = Store(connection, "asgi")
                ids = [store.insert(Kind.NORMAL, "work", b"", created_at=0, expires_at=0) for _ in range(3)]
            assert ids == [newest + 1, newest + 2, newest + 3]
            newest += 3
            connection.execute("DELETE FROM channels_sqlite_message")


def test_ids_are_kept_in_a_database_that_is_made_without_migrations(project: Project) -> None:
    """As pytest-django's --nomigrations does it."""
    project.settings('MIGRATION_MODULES = {"channels_sqlite": None}\n')
    project.manage("migrate", "--database=channels", "--run-syncdb")
    names = project.query("channels.sqlite3", "SELECT tbl_name FROM sqlite_master WHERE type = 'trigger'")
    assert names == [("channels_sqlite_message",)] * 2, "ids do not come back, and histories know what is gone"
    assert ROUND_TRIP_OUTPUT in project.shell(ROUND_TRIP)


# Other routers and databases

SHOP = {
    "shop/__init__.py": "",
    "shop/models.py": """
        from django.db import models

        class Item(models.Model):
            name = models.CharField(max_length=10)
    """,
    "shop/migrations/__init__.py": "",
    "shop/routers.py": """
        class ShopRouter:
            '''Shop lives in "archive", and nothing else does.'''

            def db_for_read(self, model, **hints):
                return "archive" if model._meta.app_label == "shop" else None

            db_for_write = db_for_read

            def allow_migrate(self, db, app_label, **hints):
                if app_label == "shop" or db == "archive":
                    return (app_label == "shop") == (db == "archive")
                return None
    """,
}


def test_the_users_own_router_and_databases_are_not_disturbed(project: Project) -> None:
    for path, text in SHOP.items():
        project.write(path, text)
    project.settings(
        """
        INSTALLED_APPS = [*INSTALLED_APPS, "shop"]
        DATABASES["archive"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "archive.sqlite3"}
        DATABASES["spare"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "spare.sqlite3"}
        # Ours comes first: where it has no opinion, the next one is asked.
        DATABASE_ROUTERS = [*DATABASE_ROUTERS, "shop.routers.ShopRouter"]
        """
    )
    project.shell(
        """
        from django.core.management import call_command

        call_command("makemigrations", "shop", verbosity=0)
        for alias in ("default", "channels", "archive", "spare"):
            call_command("migrate", database=alias, verbosity=0)
        """
    )
    assert project.tables("archive.sqlite3") == {"django_migrations", "shop_item"}
    assert project.tables("channels.sqlite3") == OURS | {"django_migrations"}
    assert "shop_item" not in project.tables("db.sqlite3")
    # No router says anything about this one: it gets what Django puts everywhere.
    assert "auth_user" in project.tables("spare.sqlite3")
    assert not {table for table in project.tables("spare.sqlite3") if table.startswith("channels_sqlite")}
    printed = project.shell(
        """
        from shop.models import Item
        from channels_sqlite.models import Message
        Item.objects.create(name="tea")
        print(Item.objects.get().name, Item.objects.all().db, Message.objects.all().db, Message.objects.count())
        """
    )
    assert "tea archive channels 0" in printed


def test_only_aliases_of_our_layers_are_ours(project: Project) -> None:
    project.settings(
        """
        CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
        """
    )
    project.manage("migrate", "--database=channels", "--verbosity=0")
    tables = project.tables("channels.sqlite3")
    assert "auth_user" in tables
    assert not {table for table in tables if table.startswith("channels_sqlite")}
