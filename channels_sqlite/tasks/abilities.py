"""What this package's backend can do beyond Django's contract, for tasks to ask for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence

from django.tasks.backends.base import BaseTaskBackend

from channels_sqlite.tasks.results import AnyResult, AnyTask

__all__ = ["Abilities", "Calls", "require_abilities"]

Calls = Iterable[tuple[Sequence[object], Mapping[str, object]]]
"""(args, kwargs) of several calls."""


class Abilities(ABC):
    """A backend of this package."""

    @abstractmethod
    def prepare(self, task: AnyTask, args: Sequence[object], kwargs: Mapping[str, object]) -> Callable[[], AnyResult]:
        """Check and copy a call of a task; return what enqueues it. Errors as `Task.enqueue`."""

    @abstractmethod
    def enqueue_many(self, task: AnyTask, calls: Calls) -> list[AnyResult]:
        """Enqueue several calls of a task in one transaction."""

    @abstractmethod
    async def aenqueue_many(self, task: AnyTask, calls: Calls) -> list[AnyResult]:
        """Likewise, on an event loop."""


def require_abilities(backend: BaseTaskBackend, what: str) -> Abilities:
    """Return a backend of this package; raises NotImplementedError that names any other."""
    if isinstance(backend, Abilities):
        return backend
    raise NotImplementedError(
        f"{what} needs a backend of channels_sqlite.tasks, and TASKS[{backend.alias!r}] is a "
        f"{type(backend).__module__}.{type(backend).__qualname__}"
    )
