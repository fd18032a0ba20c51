"""The tables of tasks, for migrations and the admin; whatever runs tasks speaks SQL (`storage.tasks`)."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from channels_sqlite.kinds import TaskEnd, TaskState

__all__ = ["QueuedTask", "TaskSchedule"]


class QueuedTask(models.Model):
    """One task that was enqueued, with its result once it has finished. Times are in seconds since 1970."""

    id = models.BigAutoField(primary_key=True)
    key = models.CharField(max_length=32, unique=True, help_text="the id of its result")
    prefix = models.CharField(max_length=100)
    backend = models.CharField(max_length=100, help_text="alias in TASKS")
    queue = models.CharField(max_length=100)
    is_async = models.BooleanField(help_text="a coroutine function")
    state = models.SmallIntegerField(choices=TaskState.choices)
    priority = models.SmallIntegerField()
    due_at = models.FloatField(help_text="when it may start")
    path = models.CharField(max_length=500, help_text="dotted path of the task")
    payload = models.BinaryField(help_text="its arguments")
    unique_key = models.CharField(max_length=500, null=True)
    enqueued_at = models.FloatField()
    run_after = models.FloatField(null=True)
    started_at = models.FloatField(null=True, help_text="its first start")
    last_attempted_at = models.FloatField(null=True)
    finished_at = models.FloatField(null=True)
    kept_until = models.FloatField(null=True, help_text="when the row of a finished task goes")
    failure_retention = models.FloatField(help_text="seconds that it is kept where it fails")
    worker = models.CharField(max_length=100, null=True, help_text="client of the process that runs it")
    worker_ids = models.TextField(default="[]", help_text="of all its starts: JSON array")
    attempts = models.IntegerField(default=0, help_text="its starts")
    failures = models.IntegerField(default=0, help_text="starts that raised")
    crashes = models.IntegerField(default=0, help_text="starts whose worker died")
    max_crashes = models.IntegerField()
    last_start = models.BooleanField(default=False, help_text="what raises now is tried no more")
    ended = models.SmallIntegerField(choices=TaskEnd.choices, default=TaskEnd.OWN)
    # A number: Django 5.2 and 6.0 write conditions on booleans each in their own way.
    untold = models.SmallIntegerField(default=0, help_text="1: taken from a dead worker, and nobody told yet")
    progress = models.BinaryField(null=True)
    outcome = models.BinaryField(null=True, help_text="what it returned")
    errors = models.BinaryField(null=True, help_text="what it raised, start by start")

    class Meta:
        verbose_name = "task"
        # Each is partial, so that what waits, is delayed, runs or has finished costs the others nothing.
        indexes = (
            models.Index(
                fields=["prefix", "backend", "queue", "is_async", "-priority", "due_at", "id"],
                condition=Q(state=TaskState.READY.value),
                name="channels_sqlite_task_ready",
            ),
            models.Index(
                fields=["prefix", "backend", "due_at"],
                condition=Q(state=TaskState.DELAYED.value),
                name="channels_sqlite_task_delayed",
            ),
            models.Index(
                fields=["prefix", "backend", "queue", "worker"],
                condition=Q(state=TaskState.RUNNING.value),
                name="channels_sqlite_task_running",
            ),
            models.Index(
                fields=["kept_until"],
                condition=Q(kept_until__isnull=False),
                name="channels_sqlite_task_finished",
            ),
            models.Index(
                fields=["prefix", "backend", "unique_key"],
                condition=Q(unique_key__isnull=False),
                name="channels_sqlite_task_unique",
            ),
            models.Index(fields=["prefix", "backend"], condition=Q(untold=1), name="channels_sqlite_task_untold"),
        )

    def __str__(self) -> str:
        return f"task {self.key}"


class TaskSchedule(models.Model):
    """How far one entry of "schedule" has come. Times are in seconds since 1970."""

    id = models.BigAutoField(primary_key=True)
    prefix = models.CharField(max_length=100)
    backend = models.CharField(max_length=100, help_text="alias in TASKS")
    name = models.CharField(max_length=200)
    rule = models.CharField(max_length=500, help_text="what it is due by; another one begins anew")
    next_at = models.FloatField(help_text="when it is due next")

    class Meta:
        constraints = (models.UniqueConstraint(fields=["prefix", "backend", "name"], name="channels_sqlite_schedule"),)

    def __str__(self) -> str:
        return f"schedule {self.name}"
