"""Settings of worker processes: those of the suite, over the database and with the TASKS of one test."""

import json
import os
from typing import Any

from tests.settings import *  # noqa: F403  # settings are names in a module
from tests.settings import DATABASES

_given: dict[str, Any] = json.loads(os.environ["CHANNELS_SQLITE_TESTS_TASKS"])
DATABASES = {
    **DATABASES,
    "channels": {**DATABASES["channels"], "NAME": _given["database"]},
    "default": {**DATABASES["default"], "NAME": _given["default"]},
}
TASKS = _given["tasks"]
