"""What a worker does with one message."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from thumbnails.messages import JobProgress, MakeThumbnails, all_jobs, one_job
from thumbnails.models import Job, JobChangedError
from thumbnails.pictures import BadPictureError, read_picture, save_thumbnail

__all__ = ["do"]

logger = logging.getLogger(__name__)


def do(message: MakeThumbnails, *, pause_s: float = 0.0) -> None:
    """Do the job that ``message`` names, telling every step; rest ``pause_s`` seconds after each.

    Does nothing if the job is not what it was when the message was sent: a message says that there may be work, the
    row says whether there is.
    """
    job = Job.objects.filter(pk=message["job"], revision=message["revision"]).first()
    if job is None:
        return
    try:
        job.started(os.getpid())
        _tell(job)
        try:
            _make_thumbnails(job, pause_s)
        except BadPictureError as error:
            job.failed(str(error))
        else:
            job.finished()
        _tell(job)
    except JobChangedError:
        logger.warning("Job %s was started again elsewhere; this worker leaves it.", job)


def _make_thumbnails(job: Job, pause_s: float) -> None:
    picture = read_picture(Path(job.picture.path))
    for size in job.sizes:
        job.made(save_thumbnail(picture, size, job.path_of(size)))
        _tell(job)
        time.sleep(pause_s)


def _tell(job: Job) -> None:
    """Show the job to every page that has it open. It is committed by now: who joins later reads it there."""
    progress: JobProgress = {"type": "job.progress", "job": job.as_message()}
    all_jobs.send(progress)
    one_job(job.pk).send(progress)
