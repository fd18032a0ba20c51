"""What a row of the log is, in words: its values stand in the database and in migrations."""

from __future__ import annotations

from django.db.models import IntegerChoices

__all__ = ["PRESENCE_TOO", "Kind", "State", "TaskEnd", "TaskState"]


class Kind(IntegerChoices):
    """What a row is addressed to."""

    NORMAL = 0, "normal channel"
    SPECIFIC = 1, "process-specific channel"
    GROUP = 2, "group"
    MEMBERSHIP = 3, "membership change"
    FLUSH = 4, "flush"
    PRESENCE = 5, "presence change"
    KEPT = 6, "group with history"


PRESENCE_TOO = "presence"
"""What `local` of a MEMBERSHIP says where not only the membership of a channel may have changed."""


class State(IntegerChoices):
    """Where a row for a normal channel stands. What is read with cursors is LOGGED: its readers know.

    A row of a group with history is LOGGED while it is kept for that, and DONE when it is not any more.
    """

    WAITING = 0, "waiting"
    DONE = 1, "taken, expired or no longer kept"
    LOGGED = 2, "logged"


class TaskState(IntegerChoices):
    """Where a task stands. DELAYED is what its users call READY: its time has not come."""

    READY = 0, "ready"
    DELAYED = 1, "delayed"
    RUNNING = 2, "running"
    FAILED = 3, "failed"
    SUCCESSFUL = 4, "successful"


class TaskEnd(IntegerChoices):
    """What ended a task that failed, where it was no exception of its own."""

    OWN = 0, "by itself"
    DIED = 1, "its workers died"
    CANCELLED = 2, "cancelled"
