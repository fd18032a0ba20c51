"""An app for workers: receivers of Django's signals that use the ORM, write down what they see, and raise."""

from __future__ import annotations

import os
from pathlib import Path

from django.apps import AppConfig
from django.tasks import TaskResult
from django.tasks.signals import task_enqueued, task_finished, task_started

from channels_sqlite.kinds import TaskState

FILE_VARIABLE = "CHANNELS_SQLITE_TESTS_RECEIVERS"
SIGNALS_VARIABLE = "CHANNELS_SQLITE_TESTS_SIGNALS"


class ReceiversConfig(AppConfig):
    """Connects them."""

    name = "tests.tasks"
    label = "receivers"

    def ready(self) -> None:
        for signal, receiver in (
            (task_enqueued, enqueued),
            (task_started, started),
            (task_finished, finished),
            (task_finished, held),
        ):
            if receiver.__name__ in os.environ[SIGNALS_VARIABLE].split():
                signal.connect(receiver)


def enqueued(task_result: TaskResult[..., object], **kwargs: object) -> None:
    _note("enqueued", task_result)


def started(task_result: TaskResult[..., object], **kwargs: object) -> None:
    _note("started", task_result)


def finished(task_result: TaskResult[..., object], **kwargs: object) -> None:
    _note("finished", task_result)


def held(task_result: TaskResult[..., object], **kwargs: object) -> None:
    """Say that it is here, and stay until told to go."""
    from tests.tasks import functions

    functions.note(os.environ[FILE_VARIABLE], f"{task_result.id} held")
    functions.wait_for(f"{os.environ[FILE_VARIABLE]}.go")


def _note(signal: str, result: TaskResult[..., object]) -> None:
    from channels_sqlite.task_models import QueuedTask

    row = QueuedTask.objects.using("channels").get(key=result.id)
    with Path(os.environ[FILE_VARIABLE]).open("a", encoding="utf-8") as file:
        file.write(f"{result.id} {signal} {result.status.value} {TaskState(row.state).label}\n")
    raise RuntimeError(f"a receiver's own, of {signal}")
