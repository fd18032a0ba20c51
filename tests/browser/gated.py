"""Settings of the example's workers whose pictures wait for the test: each thumbnail until the test lets it be made.

The folder is told by the environment: a file there named after a size lets thumbnails of that size pass.
"""

import os
import time
from pathlib import Path
from typing import Any

from django.apps import AppConfig

from config.settings import *  # type: ignore[import-not-found]  # noqa: F403  # the example's; settings are names
from config.settings import INSTALLED_APPS

GATE_VARIABLE = "CHANNELS_SQLITE_TESTS_GATE"
LOOK_EVERY_S = 0.005


class GatedConfig(AppConfig):
    """Has the task wait before each thumbnail."""

    name = "tests.browser"
    label = "gated"

    def ready(self) -> None:
        from thumbnails import tasks  # type: ignore[import-not-found]  # the example's

        folder = Path(os.environ[GATE_VARIABLE])
        save = tasks.save_thumbnail

        def save_once_it_may(picture: Any, size: int, path: Path) -> Any:  # Any: the example's
            while not (folder / str(size)).exists():
                time.sleep(LOOK_EVERY_S)
            return save(picture, size, path)

        tasks.save_thumbnail = save_once_it_may


INSTALLED_APPS = [*INSTALLED_APPS, "tests.browser.gated.GatedConfig"]
