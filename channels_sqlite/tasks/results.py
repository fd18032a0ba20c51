"""Rows to Django's TaskResult."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.tasks import TaskResult, TaskResultStatus
from django.tasks.base import Task, TaskError
from django.tasks.exceptions import TaskResultDoesNotExist
from django.utils.module_loading import import_string

from channels_sqlite.codec import Codec, UndecodableError
from channels_sqlite.kinds import TaskEnd, TaskState
from channels_sqlite.storage.tasks import TaskRow
from channels_sqlite.tasks import payloads

__all__ = ["errors_of", "moment", "resolve", "result_of", "status_of"]

if TYPE_CHECKING:
    AnyTask = Task[..., Any]
    AnyResult = TaskResult[..., Any]
else:  # Django's classes know no parameters when they run
    AnyTask = Task
    AnyResult = TaskResult

STATUSES = {
    TaskState.READY: TaskResultStatus.READY,
    TaskState.DELAYED: TaskResultStatus.READY,
    TaskState.RUNNING: TaskResultStatus.RUNNING,
    TaskState.FAILED: TaskResultStatus.FAILED,
    TaskState.SUCCESSFUL: TaskResultStatus.SUCCESSFUL,
}


def status_of(row: TaskRow) -> TaskResultStatus:
    """Return what users call the state of a task."""
    return STATUSES[TaskState(row.state)]


def moment(seconds: float | None) -> datetime | None:
    """Return seconds since 1970 as Django has times: aware with USE_TZ."""
    if seconds is None:
        return None
    aware = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return aware if settings.USE_TZ else aware.astimezone().replace(tzinfo=None)


def resolve(row: TaskRow) -> AnyTask:
    """Return the task that a row is of, as it was enqueued; raises whatever importing it does, or ImportError."""
    found: object = import_string(row.path)
    if not isinstance(found, Task):
        raise ImportError(  # noqa: TRY004  # as when it cannot be imported at all
            f"{row.path!r} is a {type(found).__name__}, and no task any more"
        )
    if (found.priority, found.queue_name, found.backend) == (row.priority, row.queue, row.backend):
        if found.run_after is None and row.run_after is None:
            return found
    return replace(
        found, priority=row.priority, queue_name=row.queue, backend=row.backend, run_after=moment(row.run_after)
    )


def result_of(row: TaskRow, codec: Codec, task: AnyTask | None = None) -> AnyResult:
    """Return the result as it stands.

    Raises TaskResultDoesNotExist where the function is gone, or where what is kept cannot be decrypted.
    """
    try:
        task = resolve(row) if task is None else task
    except Exception as error:
        raise TaskResultDoesNotExist(
            f"the task of result {row.key!r}, {row.path!r}, cannot be imported: {type(error).__name__}: {error}"
        ) from error
    try:
        given = payloads.decode(codec, row.payload)
        returned = None if row.outcome is None else payloads.decode(codec, row.outcome)
        errors = errors_of(row, codec)
    except UndecodableError as error:
        raise TaskResultDoesNotExist(
            f"the result {row.key!r} of {row.path!r} cannot be read ({error}); were the layer's keys changed?"
        ) from error
    result: AnyResult = TaskResult(
        task=task,
        id=row.key,
        status=status_of(row),
        enqueued_at=moment(row.enqueued_at),
        started_at=moment(row.started_at),
        finished_at=moment(row.finished_at),
        last_attempted_at=moment(row.last_attempted_at),
        args=given["args"],
        kwargs=given["kwargs"],
        backend=row.backend,
        errors=errors,
        worker_ids=json.loads(row.worker_ids),
    )
    object.__setattr__(result, "_return_value", returned)
    return result


def errors_of(row: TaskRow, codec: Codec) -> list[TaskError]:
    """Return what its starts raised, and what ended it where that was nothing of its own."""
    errors = payloads.decode_errors(codec, row.errors)
    if row.ended == TaskEnd.DIED:
        errors.append(
            TaskError(
                exception_class_path="channels_sqlite.tasks.WorkerDied",
                traceback=f"channels_sqlite.tasks.WorkerDied: the worker process died under this task {row.crashes} "
                f"times, and 'crash_attempts' allows {row.max_crashes} starts\n",
            )
        )
    elif row.ended == TaskEnd.CANCELLED:
        errors.append(
            TaskError(
                exception_class_path="channels_sqlite.tasks.TaskCancelled",
                traceback="channels_sqlite.tasks.TaskCancelled: the task was cancelled before it started\n",
            )
        )
    return errors
