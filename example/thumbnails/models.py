"""What is kept of a job. The row is the truth; messages only say that there is something to do or to look at."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import cast

from django.db import models
from django.utils import timezone
from typing_extensions import override

from thumbnails.messages import JobState, StateName, Thumbnail

__all__ = ["INTERRUPTED_AFTER_S", "SIZES", "Job", "JobChangedError"]

# The longest side of each thumbnail in pixels. Largest first: each is made from the one before.
SIZES = (1280, 960, 640, 320, 160, 80)

# A job that is not finished and has not changed for this long may have lost its worker, and may be run again.
INTERRUPTED_AFTER_S = 10


class JobChangedError(Exception):
    """Somebody else has changed the job since this object read it."""


def new_path(job: Job, filename: str) -> str:
    """Return where an upload is stored: a folder of its own, and nothing of the name that its sender gave it."""
    return f"thumbnails/{uuid.uuid4().hex}/picture"


class Job(models.Model):
    """A picture, and the thumbnails that have been made of it so far."""

    class State(models.TextChoices):
        """How far a job is."""

        WAITING = "waiting"
        WORKING = "working"
        DONE = "done"
        FAILED = "failed"

    name = models.CharField(max_length=100, help_text="the file's name where it came from")
    picture = models.FileField(upload_to=new_path)
    size_bytes = models.PositiveIntegerField()
    width = models.PositiveIntegerField()
    height = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    thumbnails = models.JSONField(default=list)
    error = models.CharField(max_length=200, blank=True)
    worker_pid = models.PositiveIntegerField(null=True)
    revision = models.PositiveIntegerField(default=1, help_text="counts changes")
    changed_at = models.DateTimeField(default=timezone.now)

    @override
    def __str__(self) -> str:
        """Return the number and the name."""
        return f"{self.pk}: {self.name}"

    @property
    def sizes(self) -> list[int]:
        """The thumbnails to make: those smaller than the picture, and at least one."""
        longest = max(self.width, self.height)
        return [size for size in SIZES if size < longest] or [SIZES[-1]]

    @property
    def idle_s(self) -> float:
        """Seconds since the latest change."""
        return max(0.0, (timezone.now() - self.changed_at).total_seconds())

    @property
    def may_run_again(self) -> bool:
        """Whether the job looks as if its worker were gone, or its message lost."""
        return self.state in {self.State.WAITING, self.State.WORKING} and self.idle_s >= INTERRUPTED_AFTER_S

    def path_of(self, size: int) -> Path:
        """Return where the thumbnail of that size is, or will be."""
        return Path(self.picture.path).with_name(f"{size}.webp")

    def as_message(self) -> JobState:
        """Return what pages show of this job."""
        return {
            "id": self.pk,
            "name": self.name,
            "width": self.width,
            "height": self.height,
            "bytes": self.size_bytes,
            "state": cast("StateName", self.State(self.state).value),
            "steps": len(self.sizes),
            "thumbnails": self.thumbnails,
            "error": self.error,
            "worker_pid": self.worker_pid,
            "revision": self.revision,
            "idle_s": self.idle_s,
        }

    def started(self, worker_pid: int) -> None:
        """Note that a worker has the job in hand. Raises JobChangedError, as all of these do."""
        self._change(state=self.State.WORKING, worker_pid=worker_pid, thumbnails=[], error="")

    def made(self, thumbnail: Thumbnail) -> None:
        """Add a thumbnail."""
        self._change(thumbnails=[*self.thumbnails, thumbnail])

    def finished(self) -> None:
        """Note that all thumbnails are there."""
        self._change(state=self.State.DONE)

    def failed(self, error: str) -> None:
        """Note why there will be no thumbnails."""
        self._change(state=self.State.FAILED, error=error)

    def reset(self) -> None:
        """Put the job back to its beginning. A worker that still has it in hand cannot change it any more."""
        self._change(state=self.State.WAITING, worker_pid=None, thumbnails=[], error="")

    def _change(self, **values: object) -> None:
        """Write ``values``, in one statement that does nothing if the row has another revision than this object."""
        values = {**values, "revision": self.revision + 1, "changed_at": timezone.now()}
        if not Job.objects.filter(pk=self.pk, revision=self.revision).update(**values):
            raise JobChangedError(f"job {self} has changed since revision {self.revision}")
        for name, value in values.items():
            setattr(self, name, value)
