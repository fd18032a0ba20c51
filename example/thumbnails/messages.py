"""Every message about thumbnails and its shape, and the channel and groups that carry them."""

from __future__ import annotations

from typing import Literal, TypedDict

from channels_sqlite import Channel, Group

__all__ = [
    "JobProgress",
    "JobState",
    "MakeThumbnails",
    "Snapshot",
    "StateName",
    "Thumbnail",
    "all_jobs",
    "one_job",
    "thumbnails_to_make",
]

StateName = Literal["waiting", "working", "done", "failed"]


class Thumbnail(TypedDict):
    """One finished picture. ``size`` is the longest side asked for, ``width`` and ``height`` are what came out."""

    size: int
    width: int
    height: int
    bytes: int


class JobState(TypedDict):
    """All that a page shows of a job.

    ``revision`` grows with every change, so that a page can tell news from what it knows already; ``idle_s`` is the
    time in seconds since the latest change.
    """

    id: int
    name: str
    width: int
    height: int
    bytes: int
    state: StateName
    steps: int
    thumbnails: list[Thumbnail]
    error: str
    worker_pid: int | None
    revision: int
    idle_s: float


# Through the channel layer.


class MakeThumbnails(TypedDict):
    """From a view to one worker: do this job, if it is still as it was at ``revision``."""

    type: Literal["thumbnails.make"]
    job: int
    revision: int


class JobProgress(TypedDict):
    """From a view or a worker to the pages that show the job; handled by the consumer's method job_progress."""

    type: Literal["job.progress"]
    job: JobState


# "work" is a second layer in the same database, whose messages wait for a worker for a day; see settings.py.
thumbnails_to_make: Channel[MakeThumbnails] = Channel("thumbnails", layer="work")

all_jobs: Group[JobProgress] = Group("thumbnails.jobs")


def one_job(job: int) -> Group[JobProgress]:
    """Return the group of the pages that show one job alone."""
    return Group(f"thumbnails.job.{job}")


# From a consumer to its page. From a page comes {"type": "look"} alone: it asks for a new snapshot.


class Snapshot(TypedDict):
    """How things stand: sent when a page connects, and when it asks. ``pid`` is the server process."""

    type: Literal["snapshot"]
    pid: int
    jobs: list[JobState]
