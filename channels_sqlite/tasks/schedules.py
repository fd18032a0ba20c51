"""Enqueueing what is scheduled: each due time once, by whichever worker comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.tasks.base import Task
from django.utils.module_loading import import_string

from channels_sqlite.engine.engine import Engine
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.tasks.backend import SqliteTaskBackend
from channels_sqlite.tasks.queue import TaskQueue
from channels_sqlite.tasks.results import AnyTask
from channels_sqlite.tasks.rules import Rule

__all__ = ["Schedules", "faults_of"]


class Entry(NamedTuple):
    """A rule, and the task that it is for."""

    rule: Rule
    task: AnyTask


class Schedules:
    """The schedule of one backend, in one worker."""

    def __init__(self, backend: SqliteTaskBackend, queue: TaskQueue) -> None:
        """Raises ImproperlyConfigured where a path leads to no task of this backend."""
        self._queue = queue
        self._entries: list[Entry] = []
        faults = []
        for rule in backend.task_options.schedule.values():
            try:
                self._entries.append(Entry(rule, _task_of(rule, backend)))
            except ValueError as error:
                faults.append(f"{rule.name!r}: {error}")
        if faults:
            raise ImproperlyConfigured(f"the schedule of TASKS[{backend.alias!r}] has faults: {'; '.join(faults)}.")

    def next_at(self, store: Store) -> tuple[float, ...]:
        """Return when the next is due (seconds since 1970); () where there is none, 0 where one is new."""
        times = []
        for rule, _ in self._entries:
            known = store.task_schedule(self._queue.alias, rule.name)
            times.append(known[1] if known is not None and known[0] == rule.text else 0.0)
        return (min(times),) if times else ()

    def enqueue_due(self, engine: Engine) -> Callable[[Transaction], None]:
        """Enqueue what is due, and note what is new; in one transaction, so that nobody else does it too."""

        def apply(transaction: Transaction) -> None:
            store, now, alias = transaction.store, transaction.now, self._queue.alias
            for rule, task in self._entries:
                known = store.task_schedule(alias, rule.name)
                if known is None or known[0] != rule.text:
                    store.set_task_schedule(alias, rule.name, rule.text, rule.due.first_after(now))
                elif known[1] <= now:
                    new = self._queue.prepare(task, rule.args, rule.kwargs)
                    self._queue.enqueue([new])(engine)(transaction)
                    store.set_task_schedule(alias, rule.name, rule.text, rule.due.next_after(known[1], now))

        return apply


def _task_of(rule: Rule, backend: SqliteTaskBackend) -> AnyTask:
    """Return the task of a rule; raises ValueError."""
    try:
        found: object = import_string(rule.path)
    except Exception as error:  # whatever importing it raises
        raise ValueError(f"{rule.path!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, Task):
        raise ValueError(f"{rule.path!r} is a {type(found).__name__}, and no task")  # noqa: TRY004  # one kind of fault
    task: AnyTask = found.using(backend=backend.alias)
    try:
        backend.validate_task(task)
    except Exception as error:
        raise ValueError(f"{rule.path!r} is refused by the backend: {error}") from error
    return task


def faults_of(backend: SqliteTaskBackend) -> list[str]:
    """Return what is wrong with the paths of a backend's schedule."""
    faults = []
    for rule in backend.task_options.schedule.values():
        try:
            _task_of(rule, backend)
        except ValueError as error:
            faults.append(f"{rule.name!r}: {error}")
    return faults
