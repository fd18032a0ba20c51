"""Settings of the example. What makes channels_sqlite work is in the last four sections."""

import os
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
# Both database files and the uploaded pictures live here; tests point it at a folder of their own.
DATA_DIR = Path(os.environ.get("EXAMPLE_DATA_DIR", BASE_DIR))

DEVELOPMENT_KEY = "only-for-development-and-known-to-everybody"
DEBUG = os.environ.get("EXAMPLE_DEBUG", "1") == "1"
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY", DEVELOPMENT_KEY)
if not DEBUG and SECRET_KEY == DEVELOPMENT_KEY:
    raise ImproperlyConfigured("Set EXAMPLE_SECRET_KEY to a long random string when EXAMPLE_DEBUG is not 1.")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

# Thumbnails are tasks of Django's, which came with Django 6.0. With an older one that app stays out; the rest works.
HAS_TASKS = django.VERSION >= (6, 0)

INSTALLED_APPS = [
    "daphne",  # first: its runserver, which speaks WebSocket, replaces Django's
    "django.contrib.humanize",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "channels_sqlite",
    "activity",
    "chat",
    *(["thumbnails"] if HAS_TASKS else []),
    "demo",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.messages.context_processors.messages",
                "config.context_processors.server_process",
            ],
        },
    },
]
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
MEDIA_ROOT = DATA_DIR / "media"
# A worker rests so many seconds after each thumbnail, so that there is something to watch.
THUMBNAIL_PAUSE_S = float(os.environ.get("EXAMPLE_PAUSE", "0"))
# What a page says once, after a form was sent. There are no sessions here.
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "db.sqlite3",
        # Several processes write: each waits for its turn at the beginning of its transaction.
        "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL;"},
    },
    "channels": {  # a database of its own, for messages and tasks only
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "channels.sqlite3",
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
            "database": "channels",  # an alias in DATABASES
            "polling_interval": 0.05,
            "message_retention": 86400,
            "capacity": 100,
            "expiry": 30,
            "trim_batch_size": 100,
            "auto_trim": True,
            "history": {
                "chat.*": {"size": 100, "ttl": 3600},  # for pages that come, or come back
                "activity": {"size": 100, "ttl": 86400},  # for the feed
            },
        },
    },
}

# Run by "manage.py channels_worker". Django before 6.0 knows no such setting.
TASKS = {
    "default": {
        "BACKEND": "channels_sqlite.tasks.SqliteTaskBackend",
        "OPTIONS": {
            "layer": "default",  # whose groups are told of progress
            "schedule": {"forgotten": {"task": "thumbnails.tasks.hand_over_forgotten", "every": 60.0}},
        },
    },
}

DATABASE_ROUTERS = ["channels_sqlite.db_routers.ChannelsRouter"]
