"""What ended a task that raised nothing itself: the classes that its TaskError names."""

from __future__ import annotations

__all__ = ["TaskCancelled", "WorkerDied"]


class WorkerDied(Exception):  # noqa: N818  # the name that users look for
    """The workers that ran a task died under it, as often as "crash_attempts" allows."""


class TaskCancelled(Exception):  # noqa: N818  # likewise
    """A task was cancelled before it started."""
