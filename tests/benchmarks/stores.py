"""What a process needs to know to reach the layer under test, and the Django settings made of it."""

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["STORE_VARIABLE", "Limits", "Store", "configure_django", "copy_tree", "django_settings", "sqlite_database"]

STORE_VARIABLE = "CHANNELS_SQLITE_BENCHMARKS_STORE"
"""The environment variable that tells workers of tasks of the store, as JSON."""

_COPYING_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a scenario wants the layers to be configured with; all other options keep each layer's default.

    A capacity that no scenario reaches, so that speed is compared and not the handling of full channels. ``expiry_s``
    is the default of all of them. ``retention_s`` is for layers that keep what was read; None is their default.
    ``history`` is for ours: groups and what is kept of them.
    """

    capacity: int = 1_000_000
    expiry_s: int = 60
    retention_s: int | None = None
    history: dict[str, dict[str, int]] | None = None


@dataclass(frozen=True, kw_only=True)
class Store:
    """One fresh store, as the Django settings that lead to it. Made of JSON types, since it travels to workers.

    ``backend`` and ``config`` are those of CHANNEL_LAYERS; ``databases`` is added to DATABASES. ``lockable`` is an
    SQLite file whose write lock another process may take in a scenario about that, and ``files`` are those whose sizes
    are watched: what is stored, and its write-ahead log.

    The others are for scenarios about tasks. ``library`` is the one that the tasks are written for, ``settings`` are
    its own, and ``worker`` is the command after ``manage.py`` that starts its workers: ``{processes}`` in it stands for
    their number; without that, it is started once for each. ``threads`` is how many tasks each process runs at once.
    """

    backend: str
    # Any: CONFIG and DATABASES are each layer's own.
    config: dict[str, Any] = field(default_factory=dict)
    databases: dict[str, dict[str, Any]] = field(default_factory=dict)
    apps: list[str] = field(default_factory=lambda: ["channels"])
    routers: list[str] = field(default_factory=list)
    lockable: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    library: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    worker: list[str] = field(default_factory=list)
    threads: int = 1


_SQLITE_OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": """
        PRAGMA journal_mode=WAL;
        PRAGMA synchronous=NORMAL;
        PRAGMA busy_timeout=20000;
        PRAGMA cache_size=-64000;
        PRAGMA temp_store=MEMORY;
    """,
}
"""The options that the README recommends."""


def sqlite_database(name: str) -> dict[str, Any]:
    """Return the entry of DATABASES for an SQLite file."""
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": _SQLITE_OPTIONS}


def copy_tree(source: Path, target: Path) -> None:
    """Copy a file or a folder that nobody writes to, with its owner, to the new path ``target``."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=_COPYING_LIMIT_S)


# Any: settings are of several types.
def django_settings(store: Store) -> dict[str, Any]:
    """Return the settings with ``store`` behind the default channel layer, and behind the tasks."""
    tasks = {"BENCHMARK_LIBRARY": store.library, **store.settings} if store.library else {}
    return {
        "SECRET_KEY": "only for benchmarks",
        "INSTALLED_APPS": [*store.apps, *(["tests.benchmarks.task_app"] if store.library else [])],
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, **store.databases},
        "DATABASE_ROUTERS": store.routers,
        "CHANNEL_LAYERS": {"default": {"BACKEND": store.backend, "CONFIG": store.config}},
        "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
        "USE_TZ": True,
        "TIME_ZONE": "UTC",
        **tasks,
    }


def configure_django(store: Store) -> None:
    """Set Django up in this process, with ``django_settings``. Once per process."""
    import django
    from django.conf import settings
    from django.db import connections

    # channels-lite aio stores local time, where Django reads UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    settings.configure(**django_settings(store))
    django.setup()
    # Loads the backend: a Django project has a database, whatever its channel layer, and memory is compared, too.
    connections["default"]
