"""`manage.py channels_worker`: run tasks."""

from __future__ import annotations

import sys
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import autoreload

__all__ = ["Command"]


class Command(BaseCommand):
    """Runs tasks in worker processes until SIGTERM or SIGINT, which let the tasks under way finish."""

    help = "Run the tasks of a TASKS backend of channels_sqlite. A second SIGTERM or SIGINT ends at once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--queue", action="append", default=[], help="a queue to serve; again for more (default: all)"
        )
        parser.add_argument("--backend", default="default", help="alias in TASKS (default: default)")
        parser.add_argument("--processes", type=_count, default=1, help="worker processes (default: 1)")
        parser.add_argument("--threads", type=_count, default=4, help="tasks at once in each (default: 4)")
        parser.add_argument("--burst", action="store_true", help="end when nothing is due")
        parser.add_argument("--max-tasks", type=_count, help="replace a process after so many tasks")
        parser.add_argument("--reload", action="store_true", help="start anew when code changes, for development")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run."""
        if django.VERSION < (6, 0):
            raise CommandError(f"tasks need Django 6.0 or newer, and this is {django.get_version()}")
        if options["reload"]:
            autoreload.run_with_reloader(self._run, **options)
        else:
            self._run(**options)

    def _run(self, **options: Any) -> None:
        from channels_sqlite.tasks.backend import backend_of
        from channels_sqlite.tasks.schedules import Schedules
        from channels_sqlite.tasks.supervisor import Supervisor, set_up_logging
        from channels_sqlite.tasks.worker import Plan, queues_of

        try:
            backend = backend_of(options["backend"])
            Schedules(backend, backend.queue)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error
        unknown = sorted(set(options["queue"]) - backend.queues) if backend.queues else []
        if unknown:
            raise CommandError(
                f"TASKS[{backend.alias!r}] has no queue {unknown[0]!r}; it has: {sorted(backend.queues)}"
            )
        set_up_logging()
        plan = Plan(
            backend=backend.alias,
            queues=queues_of(backend, options["queue"]),
            threads=options["threads"],
            burst=options["burst"],
            max_tasks=options["max_tasks"],
        )
        code = Supervisor(backend, plan, options["processes"]).run()
        if code:
            sys.exit(code)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
