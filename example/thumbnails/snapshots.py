"""How things stand, for pages and their sockets alike: what the database has, and what the tasks know."""

from __future__ import annotations

from django.tasks import TaskResult, TaskResultStatus
from django.tasks.exceptions import TaskResultDoesNotExist

from channels_sqlite.tasks import progress_of
from thumbnails.messages import JobState, StateName
from thumbnails.models import Job
from thumbnails.tasks import make_thumbnails

__all__ = ["job_state", "latest_jobs", "state_of"]

JOBS_SHOWN = 20

STATES: dict[TaskResultStatus, StateName] = {
    TaskResultStatus.READY: "waiting",
    TaskResultStatus.RUNNING: "working",
    TaskResultStatus.SUCCESSFUL: "done",
    TaskResultStatus.FAILED: "failed",
}


def latest_jobs() -> list[JobState]:
    """Return the latest jobs, newest first."""
    return [job_state(job) for job in Job.objects.order_by("-pk")[:JOBS_SHOWN]]


def state_of(job: int) -> list[JobState]:
    """Return that job alone, or nothing when there is none."""
    return [job_state(found) for found in Job.objects.filter(pk=job)]


def job_state(job: Job) -> JobState:
    """Return what pages show of a job."""
    state, note, error = _of_task(job)
    return {
        "id": job.pk,
        "name": job.name,
        "width": job.width,
        "height": job.height,
        "bytes": job.size_bytes,
        "task": job.task,
        "state": state,
        "steps": len(job.sizes),
        "thumbnails": job.thumbnails,
        "note": note,
        "error": error,
    }


def _of_task(job: Job) -> tuple[StateName, str, str]:
    """Return a job's state, what its task says of itself while it runs, and why it failed."""
    if not job.task:
        return "waiting", "", ""
    try:
        result = make_thumbnails.get_result(job.task)
    except TaskResultDoesNotExist:  # it ended long ago: results are kept for some days
        if job.sizes_to_make:
            return "failed", "", job.error or "Not all thumbnails could be made."
        return "done", "", ""
    state = STATES[result.status]
    if state == "working":
        progress = progress_of(result)
        return state, "" if progress is None else progress.note, ""
    return state, "", _error(job, result) if state == "failed" else ""


def _error(job: Job, result: TaskResult[..., int]) -> str:
    """Return why a task failed: what it wrote down for its sender, or at least the kind of the error."""
    kind = result.errors[-1].exception_class_path.rpartition(".")[2]
    return job.error or f"Something went wrong ({kind})."
