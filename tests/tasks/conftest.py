"""Tasks need Django 6.0; every test of theirs has a database, a layer and a TASKS entry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import django
import pytest

from tests.support.databases import ChannelDatabase

if django.VERSION < (6, 0):
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.tasks.setup import TaskSettings, WorkerFactory, task_settings

    @pytest.fixture
    def tasks(database: ChannelDatabase) -> Iterator[TaskSettings]:
        """TASKS with this package's backend over the fresh database."""
        with task_settings(database) as made:
            yield made

    @pytest.fixture
    def start_worker(tasks: TaskSettings, tmp_path: Path) -> Iterator[WorkerFactory]:
        """Starts `manage.py channels_worker`, and kills in the end what still runs."""
        factory = WorkerFactory(tasks, tmp_path)
        yield factory
        factory.close()
