"""TASKS over a test's database, and worker processes that run what is enqueued there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from django.conf import settings
from django.tasks import task_backends
from django.test import override_settings

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.tasks import SqliteTaskBackend
from channels_sqlite.tasks.results import AnyResult
from channels_sqlite.tasks.supervisor import run_child  # noqa: F401  # what workers import first, found here early
from tests.facade.setup import channel_layers
from tests.support.databases import ROOT, ChannelDatabase
from tests.support.waiting import eventually

DEADLINE_S = 30.0
CLOSE_DEADLINE_S = 5.0
SETTINGS_VARIABLE = "CHANNELS_SQLITE_TESTS_TASKS"


class TaskSettings:
    """What the settings say now."""

    def __init__(self, database: ChannelDatabase, tasks: dict[str, Any]) -> None:
        self.database = database
        self.tasks = tasks

    @property
    def backend(self) -> SqliteTaskBackend:
        backend = task_backends["default"]
        assert isinstance(backend, SqliteTaskBackend)
        return backend


def entry(**options: object) -> dict[str, Any]:
    return {
        "default": {
            "BACKEND": "channels_sqlite.tasks.SqliteTaskBackend",
            "QUEUES": ["default", "mail"],
            "OPTIONS": options,
        }
    }


@contextmanager
def task_settings(
    database: ChannelDatabase, config: dict[str, Any] | None = None, **options: object
) -> Iterator[TaskSettings]:
    tasks = entry(**options)
    with override_settings(CHANNEL_LAYERS=channel_layers(database.alias, **(config or {})), TASKS=tasks):
        try:
            yield TaskSettings(database, tasks)
        finally:
            get_sync_channel_layer().close()


class Worker:
    """One `manage.py channels_worker`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def children(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.pid).children()]

    def until_log(self, text: str, count: int = 1) -> None:
        eventually(lambda: self.log.count(text) >= count, DEADLINE_S, what=f"{text!r} in {self.log}")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code."""
        try:
            return self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker does not end: {self.log}") from None

    def stop(self) -> None:
        """SIGTERM; it must end well."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        assert code == 0, self.log

    def close(self) -> None:
        """End it, or kill what still runs."""
        if not self.running:
            return
        mine = psutil.Process(self.pid).children(recursive=True)
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_DEADLINE_S)
        if self.running:
            mine += psutil.Process(self.pid).children(recursive=True)
            self._process.kill()
            self._process.wait()
            for child in mine:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        psutil.wait_procs(mine, timeout=DEADLINE_S)


class WorkerFactory:
    """Starts workers."""

    def __init__(self, tasks: TaskSettings, folder: Path) -> None:
        self._tasks = tasks
        self._folder = folder
        self._workers: list[Worker] = []

    def __call__(
        self,
        *arguments: str,
        tasks: dict[str, Any] | None = None,
        ready: bool = True,
        apps: Sequence[str] = (),
        folder: Path | None = None,
        config: Mapping[str, object] | None = None,
        options: Mapping[str, object] | None = None,
        variables: Mapping[str, str] | None = None,
        terminal: int | None = None,
    ) -> Worker:
        """Start one.

        `ready`: wait until its first child works. `apps`: further INSTALLED_APPS, which may be in `folder`. `config`:
        beyond the CONFIG of the suite's layer. `options`: those of its database. `terminal`: the descriptor of one to
        print to, instead of the log.
        """
        log = self._folder / f"worker-{len(self._workers)}.log"
        path = [str(ROOT), *([] if folder is None else [str(folder)])]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "django", "channels_worker", *arguments, "--settings=tests.tasks.settings"],
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path),
                    SETTINGS_VARIABLE: self.settings(tasks, apps, config, options),
                    **(variables or {}),
                },
                stdout=output if terminal is None else terminal,
                stderr=output if terminal is None else terminal,
                stdin=subprocess.DEVNULL,
            )
        worker = Worker(process, log)
        self._workers.append(worker)
        if ready:
            worker.until_log("runs tasks of")
        return worker

    def settings(
        self,
        tasks: dict[str, Any] | None = None,
        apps: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> str:
        """What `tests.tasks.settings` takes from the environment."""
        return json.dumps(
            {
                "database": str(self._tasks.database.path),
                "default": str(settings.DATABASES["default"]["NAME"]),
                "tasks": tasks or settings.TASKS,
                "apps": list(apps),
                "config": dict(config or {}),
                "options": None if options is None else dict(options),
            }
        )

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


def fresh(result: AnyResult) -> AnyResult:
    """The same result as it is now."""
    result.refresh()
    return result
