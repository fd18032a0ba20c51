"""The Django project of a storm: one channels database in a folder of its own, two layers over it."""

from pathlib import Path

from tests.endurance.plan import MAIN, MAIN_EXPIRY_S, SHORT, SHORT_EXPIRY_S

LOCK_TIMEOUT_S = 40
"""More than what a process is stopped for, maybe within a transaction, and all that others do afterwards."""

BACKEND = "channels_sqlite.layers.SqliteChannelLayer"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s [%(process)d]: %(message)s"


def database_path(folder: Path) -> Path:
    return folder / "channels.sqlite3"


def wake_folder(folder: Path) -> Path:
    return folder / "channels.sqlite3.wake"


def housekeeping_lock(folder: Path) -> Path:
    return wake_folder(folder) / "housekeeping.lock"


def configure(folder: Path) -> None:
    """Set Django up in this process; what is logged goes to stderr, and that into each process's own file."""
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="only for tests",
        USE_TZ=True,
        INSTALLED_APPS=["channels", "channels_sqlite"],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"},
            "channels": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": database_path(folder),
                "OPTIONS": {"timeout": LOCK_TIMEOUT_S, "transaction_mode": "IMMEDIATE"},
            },
        },
        DATABASE_ROUTERS=["channels_sqlite.db_routers.ChannelsRouter"],
        CHANNEL_LAYERS={
            MAIN: {
                "BACKEND": BACKEND,
                # Enough for what comes while a reader is stopped: nothing may be dropped for want of room.
                "CONFIG": {"capacity": 20_000, "expiry": MAIN_EXPIRY_S, "message_retention": MAIN_EXPIRY_S},
            },
            SHORT: {
                "BACKEND": BACKEND,
                "CONFIG": {"prefix": "short", "capacity": 50, "expiry": SHORT_EXPIRY_S, "message_retention": 0},
            },
        },
        LOGGING={
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"storm": {"format": LOG_FORMAT}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "storm"}},
            "root": {"handlers": ["stderr"], "level": "WARNING"},
        },
    )
    django.setup()


def migrate() -> None:
    from django.core.management import call_command

    call_command("migrate", database="channels", verbosity=0)
