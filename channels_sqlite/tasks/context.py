"""What a task with `takes_context=True` is given, to tell how far it has come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from django.tasks import base

from channels_sqlite.tasks.results import AnyResult

if TYPE_CHECKING:
    DjangoContext = base.TaskContext[..., Any]
else:
    DjangoContext = base.TaskContext

__all__ = ["Progress", "TaskContext", "context_over"]


@dataclass(frozen=True)
class Progress:
    """How far a task has come: `done` of `total`."""

    done: float
    total: float
    note: str


class Teller(Protocol):
    """Who stores progress and tells of it."""

    def tell(self, progress: Progress) -> None:
        """In a thread."""

    async def atell(self, progress: Progress) -> None:
        """On an event loop."""


class ForeignTeller:
    """Over a backend of somebody else's, which stores no progress."""

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def tell(self, progress: Progress) -> None:
        """Refuse."""
        raise NotImplementedError(
            f"progress() of the task's context needs a backend of channels_sqlite.tasks, and TASKS[{self._backend!r}] "
            f"names another one"
        )

    async def atell(self, progress: Progress) -> None:
        """Refuse."""
        self.tell(progress)


@dataclass(frozen=True, kw_only=True)
class TaskContext(DjangoContext):  # type: ignore[misc]  # Django's is frozen, which its stubs do not say
    """Django's context, and `progress`."""

    teller: Teller

    def progress(self, done: float, total: float, note: str = "") -> None:
        """Store how far the task has come, and tell the group `task.ID`: `{"type": "task.progress", ...}`.

        Raises:
            TypeError: a number is none, or `note` is no str.
            ValueError: a number is negative or not finite.
            NotImplementedError: the task's backend is not of channels_sqlite.
            ChannelDatabaseError: it could not be stored; the text says why.
        """
        self.teller.tell(_checked(done, total, note))

    async def aprogress(self, done: float, total: float, note: str = "") -> None:
        """Like `progress`, for coroutine tasks."""
        await self.teller.atell(_checked(done, total, note))


def context_over(task_result: AnyResult) -> TaskContext:
    """Return a context for a task that a backend of somebody else's runs."""
    return TaskContext(task_result=task_result, teller=ForeignTeller(task_result.backend))


def _checked(done: object, total: object, note: object) -> Progress:
    for name, number in (("done", done), ("total", total)):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"{name} must be a number, not {number!r}")
        if not 0 <= number < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, not {number!r}")
    if not isinstance(note, str):
        raise TypeError(f"note must be a str, not {note!r}")
    assert isinstance(done, (int, float))  # noqa: S101  # seen above
    assert isinstance(total, (int, float))  # noqa: S101  # likewise
    return Progress(done, total, note)
