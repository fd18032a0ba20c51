"""The backend that TASKS names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.tasks import TaskResult, task_backends
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.base import Task as DjangoTask
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from typing_extensions import ParamSpec, TypeVar

from channels_sqlite.channel_layers import layer_of
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.tasks import NewTask, TaskRow
from channels_sqlite.tasks.abilities import Abilities, Calls, require_abilities
from channels_sqlite.tasks.definitions import Task
from channels_sqlite.tasks.options import TaskOptions
from channels_sqlite.tasks.queue import TaskQueue
from channels_sqlite.tasks.results import AnyResult, AnyTask, result_of

__all__ = ["SqliteTaskBackend", "backend_of", "require_ours"]

P = ParamSpec("P")
R = TypeVar("R")


class SqliteTaskBackend(BaseTaskBackend, Abilities):
    """Django's tasks in the database of a channel layer; `manage.py channels_worker` runs them."""

    task_class: type[DjangoTask[..., Any]] = Task
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        """Raises ImproperlyConfigured that names every fault in OPTIONS at once."""
        options = TaskOptions.from_params(alias, params)
        super().__init__(alias, params)
        self.task_options = options

    @property
    def queue(self) -> TaskQueue:
        """The tasks, in the layer that OPTIONS name."""
        layer = layer_of(self.task_options.layer)
        if not isinstance(layer, SqliteChannelLayer):
            raise ImproperlyConfigured(
                f"TASKS[{self.alias!r}] uses the channel layer {self.task_options.layer!r}, which is a "
                f"{type(layer).__qualname__}; its BACKEND must be channels_sqlite.layers.SqliteChannelLayer"
            )
        return TaskQueue(layer, self.alias, self.task_options)

    # Enqueueing

    def enqueue(self, task: DjangoTask[P, R], args: list[Any], kwargs: dict[str, Any]) -> TaskResult[P, R]:
        """Enqueue a task; see `Task.enqueue`."""
        return cast("TaskResult[P, R]", self.prepare(task, args, kwargs)())

    async def aenqueue(self, task: DjangoTask[P, R], args: list[Any], kwargs: dict[str, Any]) -> TaskResult[P, R]:
        """Enqueue a task, on an event loop."""
        [result] = await self.aenqueue_many(task, [(args, kwargs)])
        return cast("TaskResult[P, R]", result)

    def prepare(self, task: AnyTask, args: Sequence[object], kwargs: Mapping[str, object]) -> Callable[[], AnyResult]:
        """Check and copy a call of a task; return what enqueues it. Errors as `Task.enqueue`."""
        queue = self.queue
        [new] = self._new(queue, task, [(args, kwargs)])

        def enqueue() -> AnyResult:
            [(row, is_new)] = queue.write(queue.enqueue([new]))
            return self._enqueued(queue, task, row, is_new=is_new)

        return enqueue

    def enqueue_many(self, task: AnyTask, calls: Calls) -> list[AnyResult]:
        """Enqueue several calls of a task in one transaction."""
        queue = self.queue
        new = self._new(queue, task, calls)
        return [
            self._enqueued(queue, task, row, is_new=is_new)
            for row, is_new in (queue.write(queue.enqueue(new)) if new else ())
        ]

    async def aenqueue_many(self, task: AnyTask, calls: Calls) -> list[AnyResult]:
        """Likewise, on an event loop."""
        queue = self.queue
        new = self._new(queue, task, calls)
        results = []
        for row, is_new in await queue.awrite(queue.enqueue(new)) if new else ():
            result = result_of(row, queue.codec, task if is_new else None)
            if is_new:
                await task_enqueued.asend_robust(type(self), task_result=result)
            results.append(result)
        return results

    def _new(self, queue: TaskQueue, task: AnyTask, calls: Calls) -> list[NewTask]:
        self.validate_task(task)
        return [queue.prepare(task, args, kwargs) for args, kwargs in calls]

    def _enqueued(self, queue: TaskQueue, task: AnyTask, row: TaskRow, *, is_new: bool) -> AnyResult:
        result = result_of(row, queue.codec, task if is_new else None)
        if is_new:
            task_enqueued.send_robust(type(self), task_result=result)
        return result

    # Results

    def get_result(self, result_id: str) -> AnyResult:
        """Return a result; raises TaskResultDoesNotExist where there is none, or its function is gone."""
        queue = self.queue
        return self._result(queue, result_id, queue.read(self._rows(result_id)))

    async def aget_result(self, result_id: str) -> AnyResult:
        """Likewise, on an event loop."""
        queue = self.queue
        return self._result(queue, result_id, await queue.aread(self._rows(result_id)))

    def row(self, result_id: str) -> TaskRow:
        """Return what is stored; raises TaskResultDoesNotExist."""
        return self._row(result_id, self.queue.read(self._rows(result_id)))

    def _rows(self, result_id: str) -> Callable[[Store], list[TaskRow]]:
        def query(store: Store) -> list[TaskRow]:
            row = store.task(self.alias, str(result_id))
            return [] if row is None else [row]

        return query

    def _row(self, result_id: str, rows: list[TaskRow]) -> TaskRow:
        if not rows:
            raise TaskResultDoesNotExist(
                f"TASKS[{self.alias!r}] has no result {result_id!r}: it was never enqueued, or rolled back, or is past "
                f"its retention"
            )
        return rows[0]

    def _result(self, queue: TaskQueue, result_id: str, rows: list[TaskRow]) -> AnyResult:
        return result_of(self._row(result_id, rows), queue.codec)


def require_ours(backend: BaseTaskBackend, what: str) -> SqliteTaskBackend:
    """Return a backend of this package; raises NotImplementedError that names any other."""
    require_abilities(backend, what)
    return cast("SqliteTaskBackend", backend)


def backend_of(alias: str) -> SqliteTaskBackend:
    """Return the backend of an alias in TASKS; raises ImproperlyConfigured where it is another's, or has faults."""
    if alias not in task_backends.settings:
        known = ", ".join(map(repr, task_backends.settings)) or "none"
        raise ImproperlyConfigured(f"TASKS has no alias {alias!r}; it has: {known}")
    backend = task_backends[alias]
    if not isinstance(backend, SqliteTaskBackend):
        raise ImproperlyConfigured(
            f"TASKS[{alias!r}] is a {type(backend).__module__}.{type(backend).__qualname__}; its BACKEND must be "
            f"channels_sqlite.tasks.SqliteTaskBackend"
        )
    return backend
