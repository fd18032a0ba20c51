"""`task`: Django's decorator, typed, with retries, unique tasks, and enqueueing on commit.

The tasks that it makes work over any TASKS backend, by that backend's rules.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, Generic, Literal, Protocol, TypeGuard, cast, overload

from django.db import DEFAULT_DB_ALIAS, transaction
from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, DEFAULT_TASK_QUEUE_NAME, TaskResult, base
from django.tasks.base import DEFAULT_TASK_PRIORITY
from django.tasks.exceptions import InvalidTask
from django.utils.json import normalize_json
from typing_extensions import ParamSpec, TypeVar

from channels_sqlite.tasks.abilities import Abilities, require_abilities
from channels_sqlite.tasks.context import TaskContext, context_over

if TYPE_CHECKING:
    from django.tasks.base import Task as DjangoTask

__all__ = ["Task", "task"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

if not TYPE_CHECKING:

    class DjangoTask(base.Task, Generic[P, R]):
        """Django's class, which knows no parameters when it runs."""

        __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Task(DjangoTask[P, R]):  # type: ignore[misc, unused-ignore]  # older stubs do not say that it is frozen
    """A task: Django's, and what `using` and `task` take beyond. None: as the backend's OPTIONS say."""

    unique: str | None = None
    on_commit: str = DEFAULT_DB_ALIAS
    max_attempts: int | None = None
    backoff: float | None = None
    retry_on: tuple[type[BaseException], ...] = (Exception,)

    def __post_init__(self) -> None:
        """Refuse what no backend could run; raises InvalidTask."""
        for problem in _problems(self):
            raise InvalidTask(f"{problem} (task {self.module_path!r})")
        DjangoTask.__post_init__(self)

    def using(
        self,
        *,
        priority: int | None = None,
        queue_name: str | None = None,
        run_after: datetime | None = None,
        backend: str | None = None,
        unique: str | None = None,
        on_commit: str | None = None,
    ) -> Task[P, R]:
        """Return a task with other defaults.

        `unique`: while a task of this backend with that key waits, enqueueing returns its result and adds nothing.
        `on_commit`: the alias in DATABASES whose transaction `enqueue_on_commit` waits for.
        """
        given = {
            "priority": priority,
            "queue_name": queue_name,
            "run_after": run_after,
            "backend": backend,
            "unique": unique,
            "on_commit": on_commit,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **changes)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[P, R]:
        """Have a worker run the task; in an open transaction on the layer's own database, once that commits.

        Raises:
            InvalidTask: the backend refuses the task.
            TypeError, ValueError: an argument is no JSON, as Django normalises it.
            MessageTooLarge: the arguments need more than the layer's "max_message_size" bytes.
            NotImplementedError: it is `unique`, and the backend is not of channels_sqlite.
            ChannelDatabaseError: the database cannot be written; the text says why.
        """
        if self.unique is not None:
            _ours(self, "unique")
        return DjangoTask.enqueue(self, *args, **kwargs)

    async def aenqueue(self, *args: P.args, **kwargs: P.kwargs) -> TaskResult[P, R]:
        """Like `enqueue`, on an event loop."""
        if self.unique is not None:
            _ours(self, "unique")
        return await DjangoTask.aenqueue(self, *args, **kwargs)

    def enqueue_on_commit(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Enqueue once the transaction open on the database `on_commit` commits; never, if it rolls back.

        The task and its arguments are checked and copied now, with the errors of `enqueue`. What goes wrong at the
        commit is logged and not raised: the transaction is done. Without a transaction it is enqueued at once, in the
        same way.
        """
        backend = self.get_backend()
        enqueue: Callable[[], object]
        if isinstance(backend, Abilities):
            enqueue = backend.prepare(self, list(args), kwargs)
        else:
            if self.unique is not None:
                _ours(self, "unique")
            backend.validate_task(self)
            copied: Any = normalize_json([list(args), kwargs])
            given, named = copied
            enqueue = lambda: backend.enqueue(self, given, named)  # noqa: E731  # beside the other one

        def enqueue_and_tell() -> None:
            try:
                enqueue()
            except Exception:
                logger.exception("task %s, to be enqueued on commit, could not be enqueued", self.module_path)

        transaction.on_commit(enqueue_and_tell, using=self.on_commit)

    def enqueue_many(self, calls: Iterable[tuple[Sequence[object], Mapping[str, object]]]) -> list[TaskResult[P, R]]:
        """Enqueue once for each (args, kwargs), in one transaction, all or none; returns the results in that order.

        Raises what `enqueue` raises, before anything is written, and NotImplementedError over another backend.
        """
        return cast("list[TaskResult[P, R]]", _ours(self, "enqueue_many").enqueue_many(self, calls))

    async def aenqueue_many(
        self, calls: Iterable[tuple[Sequence[object], Mapping[str, object]]]
    ) -> list[TaskResult[P, R]]:
        """Like `enqueue_many`, on an event loop."""
        return cast("list[TaskResult[P, R]]", await _ours(self, "aenqueue_many").aenqueue_many(self, calls))

    # With the context of a backend that knows no progress, Django's own or another's.

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return DjangoTask.call(self, *_with_context(self, args), **kwargs)  # type: ignore[arg-type]  # P, and a context

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, on an event loop."""
        return await DjangoTask.acall(self, *_with_context(self, args), **kwargs)  # type: ignore[arg-type]  # as above


def _with_context(task: Task[..., Any], args: Sequence[object]) -> Sequence[object]:
    first = args[0] if args and task.takes_context else None
    if isinstance(first, base.TaskContext) and not isinstance(first, TaskContext):
        return (context_over(first.task_result), *args[1:])
    return args


def _ours(task: Task[..., Any], what: str) -> Abilities:
    return require_abilities(task.get_backend(), what)


def _problems(task: Task[..., Any]) -> Iterable[str]:
    # Code without types may give anything.
    unique: object = task.unique
    if unique is not None and not (isinstance(unique, str) and 0 < len(unique) <= MAX_KEY):
        yield f"unique must be a str of 1 to {MAX_KEY} characters, not {unique!r}"
    on_commit: object = task.on_commit
    if not isinstance(on_commit, str):
        yield f"on_commit must be an alias in DATABASES, not {on_commit!r}"
    attempts: object = task.max_attempts
    if attempts is not None and not (_is_number(attempts, int) and attempts >= 1):
        yield f"max_attempts must be a whole number from 1, not {attempts!r}"
    backoff: object = task.backoff
    if backoff is not None and not (_is_number(backoff, (int, float)) and 0 <= backoff < math.inf):
        yield f"backoff must be a finite number of seconds of at least 0, not {backoff!r}"
    kinds: object = task.retry_on
    if not isinstance(kinds, tuple) or not all(_is_exception(kind) for kind in kinds):
        yield f"retry_on must be a tuple of exception classes, not {kinds!r}"


def _is_number(value: object, kinds: type | tuple[type, ...]) -> TypeGuard[float]:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


MAX_KEY = 500


class _Decorator(Protocol):
    """`@task(...)` above a function, or a coroutine function."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class _ContextDecorator(Protocol):
    """Likewise with `takes_context=True`: the function's first parameter is the context."""

    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[TaskContext, P], R], /) -> Task[P, R]: ...


@overload
def task(function: Callable[P, Coroutine[Any, Any, R]], /) -> Task[P, R]: ...
@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...
@overload
def task(
    *,
    priority: int = ...,
    queue_name: str = ...,
    backend: str = ...,
    takes_context: Literal[False] = ...,
    max_attempts: int | None = ...,
    backoff: float | None = ...,
    retry_on: tuple[type[BaseException], ...] = ...,
) -> _Decorator: ...
@overload
def task(
    *,
    priority: int = ...,
    queue_name: str = ...,
    backend: str = ...,
    takes_context: Literal[True],
    max_attempts: int | None = ...,
    backoff: float | None = ...,
    retry_on: tuple[type[BaseException], ...] = ...,
) -> _ContextDecorator: ...
def task(
    function: Callable[..., Any] | None = None,
    /,
    *,
    priority: int = DEFAULT_TASK_PRIORITY,
    queue_name: str = DEFAULT_TASK_QUEUE_NAME,
    backend: str = DEFAULT_TASK_BACKEND_ALIAS,
    takes_context: bool = False,
    max_attempts: int | None = None,
    backoff: float | None = None,
    retry_on: tuple[type[BaseException], ...] = (Exception,),
) -> object:
    """Make a task of a function at the top level of a module.

    Args:
        function: the function, or coroutine function.
        priority: from -100 to 100; the highest starts first.
        queue_name: one of the backend's QUEUES.
        backend: alias in TASKS.
        takes_context: its first argument is a TaskContext.
        max_attempts: starts of a task that raises; None: as OPTIONS say.
        backoff: seconds before its second start, doubled each time, at most an hour; None: as OPTIONS say.
        retry_on: the exceptions after which it is started again.

    Raises InvalidTask where the backend refuses it.
    """

    def make(function: Callable[..., Any]) -> Task[..., Any]:
        return Task(
            func=function,
            priority=priority,
            queue_name=queue_name,
            backend=backend,
            run_after=None,
            takes_context=takes_context,
            max_attempts=max_attempts,
            backoff=backoff,
            retry_on=retry_on,
        )

    return make if function is None else make(function)
