"""How things stand in the database, for pages and their sockets alike."""

from __future__ import annotations

from thumbnails.messages import JobState
from thumbnails.models import Job

__all__ = ["latest_jobs", "state_of"]

JOBS_SHOWN = 20


def latest_jobs() -> list[JobState]:
    """Return the latest jobs, newest first."""
    return [job.as_message() for job in Job.objects.order_by("-pk")[:JOBS_SHOWN]]


def state_of(job: int) -> list[JobState]:
    """Return that job alone, or nothing when there is none."""
    return [found.as_message() for found in Job.objects.filter(pk=job)]
