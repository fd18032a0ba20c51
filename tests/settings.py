"""Django settings of the test suite, in the shape that the README asks of users.

The databases live in a folder of their own for each run. Processes that a test starts inherit it through the
environment, so that they see the same files.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

RUN_FOLDER_VARIABLE = "CHANNELS_SQLITE_TESTS_FOLDER"


def _run_folder() -> Path:
    """The folder of this run: the one that a parent process made, or a new one, removed when this process ends."""
    inherited = os.environ.get(RUN_FOLDER_VARIABLE)
    if inherited is not None:
        return Path(inherited)
    folder = Path(tempfile.mkdtemp(prefix="channels-sqlite-tests-"))
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)
    owner = os.getpid()

    def remove() -> None:
        # A forked child runs this too; the folder is not its own.
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


RUN_FOLDER = _run_folder()

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
USE_TZ = True
ROOT_URLCONF = "tests.urls"
ASGI_APPLICATION = "tests.asgi.application"
STATIC_URL = "/static/"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "channels",
    "channels_sqlite",
]

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": RUN_FOLDER / "db.sqlite3"},
    "channels": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": RUN_FOLDER / "channels.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": """
                PRAGMA journal_mode=WAL;
                PRAGMA synchronous=NORMAL;
                PRAGMA busy_timeout=20000;
                PRAGMA cache_size=-64000;
                PRAGMA temp_store=MEMORY;
            """,
        },
    },
}

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_sqlite.layers.SqliteChannelLayer",
        "CONFIG": {
            "database": "channels",
            "polling_interval": 0.05,
            "message_retention": 86400,
            "capacity": 100,
            "expiry": 30,
            "trim_batch_size": 100,
            "auto_trim": True,
        },
    },
}

DATABASE_ROUTERS = ["channels_sqlite.db_routers.ChannelsRouter"]

# Django before 6.0 knows no tasks, and looks at none of this.
TASKS: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "channels_sqlite.tasks.SqliteTaskBackend", "QUEUES": ["default", "mail"]},
}
