"""The work: tasks, which worker processes run at least once and never twice at a time."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.utils import timezone

from channels_sqlite.tasks import TaskContext, task
from thumbnails.models import Job
from thumbnails.pictures import BadPictureError, read_picture, save_thumbnail

__all__ = ["hand_over", "hand_over_forgotten", "make_thumbnails"]

FORGOTTEN_AFTER = timedelta(minutes=1)


@task(takes_context=True, max_attempts=3, backoff=2.0, retry_on=(OSError,))
def make_thumbnails(context: TaskContext, job_id: int) -> int:
    """Make the thumbnails that are not there yet, and return how many there are.

    A worker may be killed in the middle: the task starts again then, and goes on behind what is written down.
    """
    job = Job.objects.get(pk=job_id)
    if job.error:  # of an earlier start
        job.explain("")
    total = len(job.sizes)
    note = f"by process {os.getpid()}"
    context.progress(total - len(job.sizes_to_make), total, note)
    try:
        picture = read_picture(Path(job.picture.path))
    except BadPictureError as error:
        job.explain(str(error))
        raise
    for size in job.sizes_to_make:
        job.add(save_thumbnail(picture, size, job.path_of(size)))
        context.progress(total - len(job.sizes_to_make), total, note)
        time.sleep(settings.THUMBNAIL_PAUSE_S)
    return total


def hand_over(job: Job) -> None:
    """Have a worker make the thumbnails of a job, once the open transaction commits; never if it rolls back."""
    # Unique: pressed in two tabs, a button enqueues one task.
    make_thumbnails.using(unique=f"thumbnails-{job.pk}").enqueue_on_commit(job.pk)


@task
def hand_over_forgotten() -> int:
    """Hand over what a server did not, because it was killed right behind a commit. Return how many jobs that were.

    Settings have workers do this once a minute ("schedule").
    """
    forgotten = Job.objects.filter(task="", created_at__lt=timezone.now() - FORGOTTEN_AFTER)
    for job in forgotten:
        hand_over(job)
    return len(forgotten)
