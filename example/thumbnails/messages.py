"""What pages about thumbnails are told, and the groups that carry it."""

from __future__ import annotations

from typing import Literal, TypedDict

from channels_sqlite import Group

__all__ = [
    "JobShown",
    "JobState",
    "NewTask",
    "Snapshot",
    "StateName",
    "TaskProgress",
    "TaskStatus",
    "Thumbnail",
    "new_tasks",
    "news_of",
]

StateName = Literal["waiting", "working", "done", "failed"]


class Thumbnail(TypedDict):
    """One finished picture. ``size`` is the longest side asked for, ``width`` and ``height`` are what came out."""

    size: int
    width: int
    height: int
    bytes: int


class JobState(TypedDict):
    """All that a page shows of a job. ``task`` is the id of its latest task, "" before there is one."""

    id: int
    name: str
    width: int
    height: int
    bytes: int
    task: str
    state: StateName
    steps: int
    thumbnails: list[Thumbnail]
    note: str
    error: str


# Through the channel layer, to consumers.


class NewTask(TypedDict):
    """A job was handed to the workers, for the first time or once more; see receivers.py."""

    type: Literal["task.new"]
    job: int


class TaskProgress(TypedDict):
    """From the package, at each ``context.progress(...)`` of a task; pages get it as it is."""

    type: Literal["task.progress"]
    id: str
    done: float
    total: float
    note: str


class TaskStatus(TypedDict):
    """From the package, at each change of a task's status: READY, RUNNING, SUCCESSFUL or FAILED."""

    type: Literal["task.status"]
    id: str
    status: str


new_tasks: Group[NewTask] = Group("thumbnails.new")


def news_of(task: str) -> Group[TaskProgress | TaskStatus]:
    """Return the group that the package tells of a task. It must be on the layer that TASKS names."""
    return Group(f"task.{task}")


# From a consumer to its page, beside TaskProgress. From a page comes {"type": "look"} alone: it asks for a snapshot.


class Snapshot(TypedDict):
    """How things stand: sent when a page connects, and when it asks. ``pid`` is the server process."""

    type: Literal["snapshot"]
    pid: int
    jobs: list[JobState]


class JobShown(TypedDict):
    """How one job stands, after a change."""

    type: Literal["job"]
    job: JobState
