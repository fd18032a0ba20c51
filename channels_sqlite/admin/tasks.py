"""Tasks in Django's admin: to look at, to start once more, and to cancel."""

from __future__ import annotations

import time
from typing import Any

import django
from django.contrib import admin, messages
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from channels_sqlite.admin import payloads
from channels_sqlite.admin.filters import (
    WINDOW_ROWS,
    DatabaseFilter,
    TaskBackendFilter,
    TaskQueueFilter,
    alias_of,
    newest_id,
)
from channels_sqlite.admin.pages import LookOnly, away, clock
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.kinds import TaskEnd
from channels_sqlite.task_models import QueuedTask

__all__ = ["TaskAdmin"]


@admin.register(QueuedTask)
class TaskAdmin(LookOnly):
    """Tasks, newest first. Who may change tasks may retry and cancel them."""

    actions = ("retry", "cancel")  # type: ignore[assignment]  # the others have none
    list_display = ("key", "path", "state", "queue", "priority", "enqueued", "attempts", "backend")
    list_filter = (DatabaseFilter, "state", TaskQueueFilter, TaskBackendFilter)
    search_fields = ("=key", "path")
    search_help_text = (
        f"The id of a result, however old, or part of a task's path. The list, its filters and a search for a path "
        f"look at the {WINDOW_ROWS:,} tasks that were enqueued last."
    )
    fields = readonly_fields = (
        "key",
        "path",
        "state",
        "backend",
        "queue",
        "priority",
        "enqueued",
        "due",
        "finished",
        "attempts",
        "failures",
        "crashes",
        "unique_key",
        "arguments",
        "result",
        "raised",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[QueuedTask]:
        """Return the rows of the chosen database, without what only their own pages show."""
        return QueuedTask.objects.using(alias_of(request)).defer("payload", "outcome", "errors", "progress")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[QueuedTask], search_term: str
    ) -> tuple[QuerySet[QueuedTask], bool]:
        """Return the task with the id that is searched for, or what matches among the newest rows.

        Every list comes through here, without a search too; the page of one task does not, so that it can be reached
        however old it is.
        """
        exact = queryset.filter(key=search_term.strip())
        if search_term and exact.exists():
            return exact, False
        oldest = newest_id(QueuedTask.objects.using(queryset.db)) - WINDOW_ROWS
        return super().get_search_results(request, queryset.filter(id__gt=oldest), search_term)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Nobody changes a row by its form; the actions look at the permission itself."""
        return False

    def has_act_permission(self, request: HttpRequest) -> bool:
        """Whether the user has the permission to change tasks."""
        return request.user.has_perm("channels_sqlite.change_queuedtask")

    @admin.action(description="Start selected failed tasks once more", permissions=["act"])
    def retry(self, request: HttpRequest, rows: QuerySet[QueuedTask]) -> None:
        """Start failed tasks again."""
        self._act(request, rows, "retry", "started once more")

    @admin.action(description="Cancel selected tasks that have not started", permissions=["act"])
    def cancel(self, request: HttpRequest, rows: QuerySet[QueuedTask]) -> None:
        """Cancel waiting tasks."""
        self._act(request, rows, "cancel", "cancelled")

    def _act(self, request: HttpRequest, rows: QuerySet[QueuedTask], what: str, done: str) -> None:
        if django.VERSION < (6, 0):
            messages.error(request, f"Tasks need Django 6.0 or newer, and this is {django.get_version()}.")
            return
        from channels_sqlite.tasks import changes
        from channels_sqlite.tasks.backend import backend_of

        act = changes.retry if what == "retry" else changes.cancel

        chosen = list(rows.values_list("backend", "key"))
        count = 0
        try:
            for backend, key in chosen:
                count += act(backend_of(backend).queue, key)
        except (ImproperlyConfigured, ChannelDatabaseError) as error:
            messages.error(request, str(error))
        left = len(chosen) - count
        messages.info(
            request, f"{count} {done}{f', {left} left alone: their status does not allow it' if left else ''}."
        )

    @admin.display(description="enqueued")
    def enqueued(self, row: QueuedTask) -> str:
        """Return when it was enqueued."""
        return f"{clock(row.enqueued_at)}, {away(row.enqueued_at, time.time())}"

    @admin.display(description="due")
    def due(self, row: QueuedTask) -> str:
        """Return when it may start, or might have."""
        return f"{clock(row.due_at)}, {away(row.due_at, time.time())}"

    @admin.display(description="finished", empty_value="not yet")
    def finished(self, row: QueuedTask) -> str | None:
        """Return when it finished."""
        if row.finished_at is None:
            return None
        return f"{clock(row.finished_at)}, {away(row.finished_at, time.time())}"

    @admin.display(description="arguments")
    def arguments(self, row: QueuedTask) -> str:
        """Return the arguments."""
        return _pretty(row.payload)

    @admin.display(description="result", empty_value="none")
    def result(self, row: QueuedTask) -> str | None:
        """Return what it returned."""
        return None if row.outcome is None else _pretty(row.outcome)

    @admin.display(description="errors", empty_value="none")
    def raised(self, row: QueuedTask) -> str | None:
        """Return what its starts raised, or what ended it."""
        if row.ended != TaskEnd.OWN:
            return TaskEnd(row.ended).label
        return None if row.errors is None else _pretty(row.errors)


def _pretty(data: Any) -> str:  # Any: bytes or a memoryview, as the driver has it
    return format_html("<pre>{}</pre>", payloads.pretty_json(data))
