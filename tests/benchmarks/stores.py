"""What a process needs to know to reach the layer under test, and the Django settings made of it."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Store", "configure_django"]


@dataclass(frozen=True, kw_only=True)
class Store:
    """One fresh store, as the Django settings that lead to it. Made of JSON types, since it travels to workers.

    ``backend`` and ``config`` are those of CHANNEL_LAYERS; ``database`` is the NAME of an SQLite file, None for layers
    without one.
    """

    backend: str
    # Any: CONFIG is each layer's own.
    config: dict[str, Any] = field(default_factory=dict)
    database: str | None = None
    apps: list[str] = field(default_factory=list)
    routers: list[str] = field(default_factory=list)


_SQLITE_OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": """
        PRAGMA journal_mode=WAL;
        PRAGMA synchronous=NORMAL;
        PRAGMA busy_timeout=20000;
        PRAGMA cache_size=-64000;
        PRAGMA temp_store=MEMORY;
        PRAGMA mmap_size=134217728;
    """,
}
"""The options that the README recommends."""


def configure_django(store: Store) -> None:
    """Set Django up in this process, with ``store`` behind the default channel layer. Once per process."""
    import django
    from django.conf import settings

    databases: dict[str, dict[str, object]] = {}
    if store.database is not None:
        databases["default"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        databases["channels"] = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": store.database,
            "OPTIONS": _SQLITE_OPTIONS,
        }
    settings.configure(
        INSTALLED_APPS=store.apps,
        DATABASES=databases,
        DATABASE_ROUTERS=store.routers,
        CHANNEL_LAYERS={"default": {"BACKEND": store.backend, "CONFIG": store.config}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()
