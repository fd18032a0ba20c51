"""`manage.py channels_tasks`: look at tasks, start failed ones again, cancel those that wait."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.kinds import TaskState

__all__ = ["Command"]

STATES = {
    "READY": (TaskState.READY.value, TaskState.DELAYED.value),
    "RUNNING": (TaskState.RUNNING.value,),
    "FAILED": (TaskState.FAILED.value,),
    "SUCCESSFUL": (TaskState.SUCCESSFUL.value,),
}


class Command(BaseCommand):
    """Lists, retries, cancels."""

    help = (
        "Lists the tasks of a TASKS backend of this package, starts a failed one once more, or cancels one that has "
        "not started. Exit status: 0; 1 when it could not be done, with the reason; 2 for wrong arguments."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument("--backend", default="default", help="alias in TASKS (default: default)")
        common = [option for option in parser._actions if not isinstance(option, _ONCE)]  # noqa: SLF001  # no other way
        actions = parser.add_subparsers(dest="action", required=True)
        listing = actions.add_parser("list", help="the tasks, in the order of their enqueueing")
        listing.add_argument("--status", choices=list(STATES), help="only those with this status")
        listing.add_argument("--json", action="store_true", help="as a JSON list of objects")
        listing.add_argument("--limit", type=int, default=-1, help="at most so many")
        for action, what in (
            ("retry", "start a failed task once more"),
            ("cancel", "fail a task that has not started"),
        ):
            actions.add_parser(action, help=what).add_argument("id", help="the id of its result")
        for action_parser in actions.choices.values():
            _add_common(action_parser, common)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        if django.VERSION < (6, 0):
            raise CommandError(f"tasks need Django 6.0 or newer, and this is {django.get_version()}")
        from channels_sqlite.tasks.backend import backend_of

        try:
            queue = backend_of(options["backend"]).queue
            if options["action"] == "list":
                states = STATES.get(options["status"] or "", ())
                rows = queue.read(lambda store: store.tasks(queue.alias, states, options["limit"]))
                self._list([_shown(row) for row in rows], as_json=options["json"])
            else:
                self._change(queue, options["action"], options["id"])
        except (ImproperlyConfigured, ChannelDatabaseError) as error:
            raise CommandError(str(error)) from error

    def _list(self, rows: list[dict[str, object]], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(rows))
            return
        for row in rows:
            self.stdout.write(
                f"{row['id']}  {row['status']:<10}  {row['queue']}  {row['task']}  {row['attempts']} starts, enqueued "
                f"{row['enqueued_at']}"
            )

    def _change(self, queue: Any, action: str, key: str) -> None:  # Any: a class that Django 5.2 cannot import
        from channels_sqlite.tasks import changes

        if changes.retry(queue, key) if action == "retry" else changes.cancel(queue, key):
            self.stdout.write(f"{key}: {'starts once more' if action == 'retry' else 'cancelled'}.")
            return
        rows = queue.read(lambda store: [row for row in (store.task(queue.alias, key),) if row is not None])
        if not rows:
            raise CommandError(f"{key}: TASKS[{queue.alias!r}] has no such task.")
        needed = "FAILED" if action == "retry" else "READY"
        raise CommandError(f"{key}: it is {_status(rows[0])}, and only a {needed} task can be {PAST[action]}.")


_ONCE = (argparse._HelpAction, argparse._VersionAction)  # noqa: SLF001  # as above


def _add_common(parser: argparse.ArgumentParser, options: Sequence[argparse.Action]) -> None:
    """Have options of the command, Django's own included, be taken after the action as well as before it."""
    for option in options:
        same = copy.copy(option)
        same.default = argparse.SUPPRESS  # what was given before stands
        parser._add_action(same)  # noqa: SLF001  # as above


PAST = {"retry": "retried", "cancel": "cancelled"}


def _status(row: Any) -> str:
    return next(name for name, states in STATES.items() if row.state in states)


def _shown(row: Any) -> dict[str, object]:
    from channels_sqlite.tasks.results import moment

    times = {
        name: None if seconds is None else moment(seconds)
        for name, seconds in (("enqueued_at", row.enqueued_at), ("run_after", row.run_after))
    }
    return {
        "id": row.key,
        "status": _status(row),
        "task": row.path,
        "queue": row.queue,
        "priority": row.priority,
        **{name: None if time is None else time.isoformat() for name, time in times.items()},
        "attempts": row.attempts,
    }
