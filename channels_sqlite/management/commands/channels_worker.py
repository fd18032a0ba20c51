"""`manage.py channels_worker`: run tasks."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import partial
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import autoreload

__all__ = ["Command"]


class Command(BaseCommand):
    """Runs tasks in worker processes until SIGTERM or SIGINT, which let the tasks under way finish."""

    help = (
        "Run the tasks of a TASKS backend of channels_sqlite. A second SIGTERM or SIGINT ends at once. --verbosity 0 "
        "logs troubles alone, 1 the start and end of each task, 2 also how much waits, runs, is done and has failed: "
        "on a terminal in one line that is kept up to date, in place of the lines of tasks."
    )

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
            autoreload.autoreload_started.connect(_watch_apps)
            autoreload.run_with_reloader(self._run, **options)
        else:
            self._run(**options)

    def _run(self, **options: Any) -> None:
        from channels_sqlite.tasks.backend import backend_of
        from channels_sqlite.tasks.schedules import Schedules
        from channels_sqlite.tasks.status_line import Ends, StatusLine, look_at_queues
        from channels_sqlite.tasks.supervisor import Logging, Supervisor, set_up_logging
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
        queues = queues_of(backend, options["queue"])
        status = None
        if options["verbosity"] >= 2:
            # Windows hands no descriptors down: there nothing is said of what has ended.
            ends = Ends() if os.name == "posix" else None
            status = StatusLine(partial(look_at_queues, backend, queues), ends)
        over_status = status is not None and status.on_terminal
        log = Logging(quiet=over_status or not options["verbosity"], over_status=over_status)
        set_up_logging(log)
        plan = Plan(
            backend=backend.alias,
            queues=queues,
            threads=options["threads"],
            burst=options["burst"],
            max_tasks=options["max_tasks"],
            ends=None if status is None else status.descriptor,
        )
        code = Supervisor(backend, plan, options["processes"], log, status).run()
        if code:
            sys.exit(code)


def _watch_apps(sender: autoreload.BaseReloader, **_: object) -> None:
    """Watch all code of the project's apps: worker processes import the tasks, and the reloader's process does not."""
    installed = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))
    for app in apps.get_app_configs():
        folder = Path(app.path)
        if not any(place in folder.parents for place in installed):
            sender.watch_dir(folder, "**/*.py")


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
