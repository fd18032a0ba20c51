"""Settings of worker processes: those of the suite, over the database and with the TASKS of one test."""

import json
import os
from typing import Any, cast

from tests.settings import *  # noqa: F403  # settings are names in a module
from tests.settings import CHANNEL_LAYERS, DATABASES, INSTALLED_APPS

_given: dict[str, Any] = json.loads(os.environ["CHANNELS_SQLITE_TESTS_TASKS"])
_layer = cast("dict[str, Any]", CHANNEL_LAYERS["default"])
DATABASES = {
    **DATABASES,
    "channels": {
        **DATABASES["channels"],
        "NAME": _given["database"],
        "OPTIONS": _given["options"] or DATABASES["channels"]["OPTIONS"],
    },
    "default": {**DATABASES["default"], "NAME": _given["default"]},
}
TASKS = _given["tasks"]
INSTALLED_APPS = [*INSTALLED_APPS, *_given["apps"]]
CHANNEL_LAYERS = {"default": {**_layer, "CONFIG": {**_layer["CONFIG"], **_given["config"]}}}
# What receivers of Django's signals raise, Django logs there.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"errors": {"class": "logging.StreamHandler"}},
    "loggers": {"django.dispatch": {"handlers": ["errors"], "level": "ERROR"}},
}
