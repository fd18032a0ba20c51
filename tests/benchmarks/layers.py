"""The layers that are compared, and how each gets a fresh store.

A capacity that no scenario reaches is given to all of them, so that speed is compared and not the handling of full
channels; everything else is each layer's default.
"""

import dataclasses
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.redis_server import find_redis_server, running_redis

from .stores import Store

__all__ = ["CANDIDATES", "OURS", "Candidate"]

_CAPACITY = 1_000_000
_MIGRATION_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A layer to measure.

    ``fresh_store`` is given an empty folder, makes a store, and takes it down after the block. ``missing`` says what
    would have to be installed, None when all is there. A layer that does not cross processes plays all roles in one.
    """

    key: str
    title: str
    fresh_store: Callable[[Path], AbstractContextManager[Store]]
    missing: Callable[[], str | None]
    crosses_processes: bool = True


@contextmanager
def _sqlite_store(folder: Path) -> Iterator[Store]:
    """A file of its own, copied from one that was migrated once for the whole program run."""
    database = folder / "channels.sqlite3"
    store = Store(
        backend="channels_sqlite.layers.SqliteChannelLayer",
        config={"database": "channels", "capacity": _CAPACITY},
        database=str(database),
        apps=["channels", "channels_sqlite"],
        routers=["channels_sqlite.db_routers.ChannelsRouter"],
    )
    template = folder.parent / "migrated.sqlite3"
    if not template.exists():
        _migrate(dataclasses.replace(store, database=str(template)))
    shutil.copyfile(template, database)
    yield store


def _migrate(store: Store) -> None:
    """Make the tables, in a process of its own; RuntimeError with its last words when that fails."""
    migration = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.migrate"],
        input=json.dumps(dataclasses.asdict(store)),
        capture_output=True,
        text=True,
        timeout=_MIGRATION_LIMIT_S,
        check=False,
    )
    if migration.returncode:
        raise RuntimeError(f"migrating the database failed: {migration.stderr.strip()[-500:]}")


@contextmanager
def _memory_store(folder: Path) -> Iterator[Store]:
    yield Store(backend="channels.layers.InMemoryChannelLayer", config={"capacity": _CAPACITY})


@contextmanager
def _redis_core_store(folder: Path) -> Iterator[Store]:
    with running_redis(folder) as port:
        yield Store(
            backend="channels_redis.core.RedisChannelLayer",
            config={"hosts": [["127.0.0.1", port]], "capacity": _CAPACITY},
        )


@contextmanager
def _redis_pubsub_store(folder: Path) -> Iterator[Store]:
    with running_redis(folder) as port:
        # It has no capacity: every subscriber's buffer is unlimited.
        yield Store(backend="channels_redis.pubsub.RedisPubSubChannelLayer", config={"hosts": [["127.0.0.1", port]]})


def _missing_package(name: str) -> str | None:
    return None if importlib.util.find_spec(name) else f"the package {name}"


def _missing_for_redis() -> str | None:
    return _missing_package("channels_redis") or (None if find_redis_server() else "redis-server")


OURS = Candidate(
    key="sqlite",
    title="channels_sqlite",
    fresh_store=_sqlite_store,
    missing=lambda: _missing_package("channels_sqlite"),
)

CANDIDATES = {
    candidate.key: candidate
    for candidate in (
        OURS,
        Candidate(
            key="memory",
            title="InMemory (all in one process)",
            fresh_store=_memory_store,
            missing=lambda: _missing_package("channels"),
            crosses_processes=False,
        ),
        Candidate(
            key="redis-core",
            title="channels_redis core",
            fresh_store=_redis_core_store,
            missing=_missing_for_redis,
        ),
        Candidate(
            key="redis-pubsub",
            title="channels_redis pubsub",
            fresh_store=_redis_pubsub_store,
            missing=_missing_for_redis,
        ),
    )
}
"""By the name that the command line uses, in the order of the report."""
