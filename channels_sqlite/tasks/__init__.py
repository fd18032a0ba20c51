"""Django's task framework (https://docs.djangoproject.com/en/stable/topics/tasks/) on the file of a channel layer.

TASKS = {"default": {"BACKEND": "channels_sqlite.tasks.SqliteTaskBackend"}}

Needs Django 6.0 or newer; importing this with an older one raises ImproperlyConfigured.
"""

from __future__ import annotations

import django
from django.core.exceptions import ImproperlyConfigured

if django.VERSION < (6, 0):
    raise ImproperlyConfigured(
        f"channels_sqlite.tasks needs django.tasks, which came with Django 6.0, and this is Django "
        f"{django.get_version()}; upgrade Django, or leave tasks alone: everything else of channels_sqlite works"
    )

from channels_sqlite.tasks.backend import SqliteTaskBackend
from channels_sqlite.tasks.context import Progress, TaskContext
from channels_sqlite.tasks.definitions import Task, task
from channels_sqlite.tasks.endings import TaskCancelled, WorkerDied
from channels_sqlite.tasks.waiting import await_result, progress_of, wait

__all__ = [
    "Progress",
    "SqliteTaskBackend",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "WorkerDied",
    "await_result",
    "progress_of",
    "task",
    "wait",
]
