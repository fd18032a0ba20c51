"""The layers and task queues that are compared, and how each gets a fresh store.

Capacity and expiry are the scenario's (``Limits``) and the same for all; everything else is each layer's default.

Of the task queues, all keep results and log each task, as they do by default. What is set, and why:

- Those that poll do so every 0.1 s: ten times as often as django-tasks-db does by default, and the shortest of huey's
  default pauses, which it would let grow to 10 s.
- SQLite is set as the README recommends, for django-tasks-db too. huey has no option for ``synchronous=NORMAL``, so it
  is measured twice: as it is by default, with SQLite's default (a sync at each commit: more than the others promise),
  and with ``fsync=False`` (``synchronous=OFF``: less than they do). It deletes a task before it runs: a killed worker
  loses what it has begun.
- PostgreSQL's ``synchronous_commit`` is off, as for the layers.
- django-tasks-db runs one task at a time in each process. huey's documentation has processes for what needs the CPU,
  each with one task at a time. Ours has its four threads.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import django

from tests.support.redis_server import find_redis_server, running_redis

from .postgres_server import (
    find_postgres,
    make_cluster,
    missing_user,
    postgres_database,
    running_postgres,
)
from .stores import Limits, Store, copy_tree, sqlite_database

__all__ = ["CANDIDATES", "OURS", "Candidate"]

_MIGRATION_LIMIT_S = 60.0
_DATABASE = "channels.sqlite3"
_CLUSTER = "cluster"
_TASK_CLUSTER = "task-cluster"
_THREADS = 4  # our worker's default
_POLL_S = "0.1"
_MEMORY_BACKEND = "channels.layers.InMemoryChannelLayer"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layer to measure.

    ``fresh_store`` is given an empty folder, makes a store, and takes it down after the block; what is made once for
    all runs goes beside that folder. ``remains`` is the name, in that folder, of what holds the unread messages of a
    store that was taken down, if anything does: where it is there beforehand, ``fresh_store`` starts from it.
    ``missing`` says what would have to be installed, None when all is there. A layer that does not cross processes
    plays all roles in one. One that keeps no unread messages cannot have a backlog. ``is_layer`` is false for what
    runs tasks alone.
    """

    key: str
    title: str
    fresh_store: Callable[[Path, Limits], AbstractContextManager[Store]]
    missing: Callable[[], str | None]
    remains: str | None = None
    crosses_processes: bool = True
    keeps_unread: bool = True
    is_layer: bool = True


def _sqlite_store(folder: Path, limits: Limits, *, apps: list[str], make: Callable[[str], Store]) -> Store:
    """Return what ``make`` says about a fresh file: a copy of one that was migrated once for the whole program run."""
    database = folder / _DATABASE
    if not database.exists():
        template = folder.parent / f"{apps[-1]}.sqlite3"
        if not template.exists():
            _migrate(make(str(template)), "channels")
        shutil.copyfile(template, database)
    return make(str(database))


@contextmanager
def _our_store(folder: Path, limits: Limits) -> Iterator[Store]:
    # Any: values of CONFIG are of several types.
    config: dict[str, Any] = {"database": "channels", "capacity": limits.capacity, "expiry": limits.expiry_s}
    if limits.retention_s is not None:
        config["message_retention"] = limits.retention_s
    if limits.history is not None:
        config["history"] = limits.history
    apps = ["channels", "channels_sqlite"]

    def make(database: str) -> Store:
        return Store(
            backend="channels_sqlite.layers.SqliteChannelLayer",
            config=config,
            databases={"channels": sqlite_database(database)},
            apps=apps,
            routers=["channels_sqlite.db_routers.ChannelsRouter"],
            lockable=database,
            files={"file": database, "wal": f"{database}-wal"},
            library="channels_sqlite" if django.VERSION >= (6, 0) else None,
            settings={"TASKS": {"default": {"BACKEND": "channels_sqlite.tasks.SqliteTaskBackend"}}},
            worker=["channels_worker", "--processes", "{processes}", "--threads", str(_THREADS)],
            threads=_THREADS,
        )

    yield _sqlite_store(folder, limits, apps=apps, make=make)


def _lite_store(backend: str) -> Callable[[Path, Limits], AbstractContextManager[Store]]:
    @contextmanager
    def fresh_store(folder: Path, limits: Limits) -> Iterator[Store]:
        apps = ["channels", "channels_lite"]

        def make(database: str) -> Store:
            return Store(
                backend=backend,
                config={"database": "channels", "capacity": limits.capacity, "expiry": limits.expiry_s},
                databases={"channels": sqlite_database(database)},
                apps=apps,
                routers=["channels_lite.router.ChannelsRouter"],
                files={"file": database, "wal": f"{database}-wal"},
            )

        yield _sqlite_store(folder, limits, apps=apps, make=make)

    return fresh_store


def _migrate(store: Store, alias: str) -> None:
    """Make the tables, in a process of its own; RuntimeError with its last words when that fails."""
    migration = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.migrate", alias],
        input=json.dumps(asdict(store)),
        capture_output=True,
        text=True,
        timeout=_MIGRATION_LIMIT_S,
        check=False,
    )
    if migration.returncode:
        raise RuntimeError(f"migrating the database failed: {migration.stderr.strip()[-500:]}")


@contextmanager
def _memory_store(folder: Path, limits: Limits) -> Iterator[Store]:
    config = {"capacity": limits.capacity, "expiry": limits.expiry_s}
    yield Store(backend="channels.layers.InMemoryChannelLayer", config=config)


@contextmanager
def _redis_core_store(folder: Path, limits: Limits) -> Iterator[Store]:
    with running_redis(folder) as port:
        yield Store(
            backend="channels_redis.core.RedisChannelLayer",
            config={"hosts": [["127.0.0.1", port]], "capacity": limits.capacity, "expiry": limits.expiry_s},
        )


@contextmanager
def _redis_pubsub_store(folder: Path, limits: Limits) -> Iterator[Store]:
    with running_redis(folder) as port:
        # It has neither capacity nor expiry: every subscriber's buffer is unlimited.
        yield Store(backend="channels_redis.pubsub.RedisPubSubChannelLayer", config={"hosts": [["127.0.0.1", port]]})


@contextmanager
def _postgres_store(folder: Path, limits: Limits) -> Iterator[Store]:
    with _postgres(folder, _CLUSTER, "channels_postgres", lambda cluster: _describe_postgres(cluster, limits)) as store:
        yield store


@contextmanager
def _postgres(folder: Path, name: str, alias: str, describe: Callable[[Path], Store]) -> Iterator[Store]:
    """A cluster of its own, copied from one that was made and migrated once for the whole program run."""
    cluster = folder / name
    if not cluster.exists():
        template = folder.parent / name
        if not template.exists():
            making = folder / "making"
            make_cluster(making)
            with running_postgres(making, folder):
                _migrate(describe(making), alias)
            making.rename(template)
        copy_tree(template, cluster)
    with running_postgres(cluster, folder):
        yield describe(cluster)


def _describe_postgres(cluster: Path, limits: Limits) -> Store:
    database = postgres_database(cluster)
    return Store(
        backend="channels_postgres.core.PostgresChannelLayer",
        # It makes a DatabaseWrapper of this, which asks for a time zone since Django 6.1. It has no capacity.
        config={**database, "TIME_ZONE": None, "expiry": limits.expiry_s},
        databases={"channels_postgres": database},
        apps=["channels", "channels_postgres"],
    )


def _describe_django_tasks(database: dict[str, Any]) -> Store:
    return Store(
        backend=_MEMORY_BACKEND,
        databases={"default": database},
        apps=["channels", "django_tasks_db"],
        library="django_tasks_db",
        settings={"TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}},
        worker=["db_worker", "--interval", _POLL_S, "--no-startup-delay", "--no-reload"],
    )


@contextmanager
def _django_tasks_sqlite_store(folder: Path, limits: Limits) -> Iterator[Store]:
    database = folder / _DATABASE
    template = folder.parent / "django_tasks_db.sqlite3"
    if not template.exists():
        _migrate(_describe_django_tasks(sqlite_database(str(template))), "default")
    shutil.copyfile(template, database)
    yield _describe_django_tasks(sqlite_database(str(database)))


@contextmanager
def _django_tasks_postgres_store(folder: Path, limits: Limits) -> Iterator[Store]:
    def describe(cluster: Path) -> Store:
        return _describe_django_tasks(postgres_database(cluster))

    with _postgres(folder, _TASK_CLUSTER, "default", describe) as store:
        yield store


def _huey_store(connection: dict[str, Any]) -> Callable[[Path, Limits], AbstractContextManager[Store]]:
    @contextmanager
    def fresh_store(folder: Path, limits: Limits) -> Iterator[Store]:
        huey = {
            "huey_class": "huey.SqliteHuey",
            "name": "benchmarks",
            "immediate": False,
            "connection": {"filename": str(folder / "huey.sqlite3"), "timeout": 20, **connection},
        }
        yield Store(
            backend=_MEMORY_BACKEND,
            apps=["channels", "huey.contrib.djhuey"],
            library="huey",
            settings={"HUEY": huey},
            worker=["run_huey", "--workers", "{processes}", "--worker-type", "process", "--max-delay", _POLL_S],
        )

    return fresh_store


def _missing_packages(*names: str) -> str | None:
    """Return which packages (by the names they are imported by) are not installed; None when all are."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


def _missing_for_redis() -> str | None:
    return _missing_packages("channels_redis") or (None if find_redis_server() else "not installed: redis-server")


def _missing_for_postgres() -> str | None:
    packages = _missing_packages("channels_postgres", "psycopg", "psycopg_pool")
    if packages is not None:
        return packages
    return missing_user() if find_postgres() else "not installed: PostgreSQL's server"


def _missing_for_django_tasks_on_postgres() -> str | None:
    packages = _missing_packages("django_tasks_db", "psycopg")
    if packages is not None:
        return packages
    return missing_user() if find_postgres() else "not installed: PostgreSQL's server"


OURS = Candidate(
    key="sqlite",
    title="channels_sqlite",
    fresh_store=_our_store,
    missing=lambda: _missing_packages("channels_sqlite"),
    remains=_DATABASE,
)

CANDIDATES = {
    candidate.key: candidate
    for candidate in (
        OURS,
        Candidate(
            key="memory",
            title="InMemory (all in one process)",
            fresh_store=_memory_store,
            missing=lambda: _missing_packages("channels"),
            crosses_processes=False,
        ),
        Candidate(
            key="redis-core",
            title="channels_redis core",
            fresh_store=_redis_core_store,
            missing=_missing_for_redis,
            remains="dump.rdb",
        ),
        Candidate(
            key="redis-pubsub",
            title="channels_redis pubsub",
            fresh_store=_redis_pubsub_store,
            missing=_missing_for_redis,
            keeps_unread=False,
        ),
        Candidate(
            key="lite-aio",
            title="channels-lite aio",
            fresh_store=_lite_store("channels_lite.layers.aio.AIOSQLiteChannelLayer"),
            missing=lambda: _missing_packages("channels_lite", "aiosqlite", "aiosqlitepool", "msgspec"),
            remains=_DATABASE,
        ),
        Candidate(
            key="lite-orm",
            title="channels-lite ORM",
            fresh_store=_lite_store("channels_lite.layers.core.SQLiteChannelLayer"),
            missing=lambda: _missing_packages("channels_lite"),
            remains=_DATABASE,
        ),
        Candidate(
            key="postgres",
            title="channels_postgres",
            fresh_store=_postgres_store,
            missing=_missing_for_postgres,
            remains=_CLUSTER,
        ),
        Candidate(
            key="django-tasks-sqlite",
            title="django-tasks-db, SQLite",
            fresh_store=_django_tasks_sqlite_store,
            missing=lambda: _missing_packages("django_tasks_db"),
            is_layer=False,
        ),
        Candidate(
            key="django-tasks-postgres",
            title="django-tasks-db, PostgreSQL",
            fresh_store=_django_tasks_postgres_store,
            missing=_missing_for_django_tasks_on_postgres,
            is_layer=False,
        ),
        Candidate(
            key="huey",
            title="huey, SQLite",
            fresh_store=_huey_store({}),
            missing=lambda: _missing_packages("huey"),
            is_layer=False,
        ),
        Candidate(
            key="huey-unsynced",
            title="huey, SQLite unsynced",
            fresh_store=_huey_store({"fsync": False}),
            missing=lambda: _missing_packages("huey"),
            is_layer=False,
        ),
    )
}
"""By the name that the command line uses, in the order of the report."""
