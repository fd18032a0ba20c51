"""What a process needs to know to reach the layer under test, and the Django settings made of it."""

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Limits", "Store", "configure_django", "copy_tree", "sqlite_database"]

_COPYING_LIMIT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a scenario wants the layers to be configured with; all other options keep each layer's default.

    A capacity that no scenario reaches, so that speed is compared and not the handling of full channels. ``expiry_s``
    is the default of all of them. ``retention_s`` is for layers that keep what was read; None is their default.
    """

    capacity: int = 1_000_000
    expiry_s: int = 60
    retention_s: int | None = None


@dataclass(frozen=True, kw_only=True)
class Store:
    """One fresh store, as the Django settings that lead to it. Made of JSON types, since it travels to workers.

    ``backend`` and ``config`` are those of CHANNEL_LAYERS; ``databases`` is added to DATABASES. ``lockable`` is an
    SQLite file whose write lock another process may take in a scenario about that, and ``files`` are those whose sizes
    are watched: what is stored, and its write-ahead log.
    """

    backend: str
    # Any: CONFIG and DATABASES are each layer's own.
    config: dict[str, Any] = field(default_factory=dict)
    databases: dict[str, dict[str, Any]] = field(default_factory=dict)
    apps: list[str] = field(default_factory=lambda: ["channels"])
    routers: list[str] = field(default_factory=list)
    lockable: str | None = None
    files: dict[str, str] = field(default_factory=dict)


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


def configure_django(store: Store) -> None:
    """Set Django up in this process, with ``store`` behind the default channel layer. Once per process."""
    import django
    from django.conf import settings
    from django.db import connections

    # channels-lite aio stores local time, where Django reads UTC.
    os.environ["TZ"] = "UTC"
    time.tzset()
    settings.configure(
        INSTALLED_APPS=store.apps,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}, **store.databases},
        DATABASE_ROUTERS=store.routers,
        CHANNEL_LAYERS={"default": {"BACKEND": store.backend, "CONFIG": store.config}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
        TIME_ZONE="UTC",
    )
    django.setup()
    # Loads the backend: a Django project has a database, whatever its channel layer, and memory is compared, too.
    connections["default"]
