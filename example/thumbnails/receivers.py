"""What happens when a task is enqueued, and at its end: its job learns its id, pages learn of the job, and so does the
feed.
"""

from __future__ import annotations

from django.dispatch import receiver
from django.tasks import TaskResult, TaskResultStatus
from django.tasks.signals import task_enqueued, task_finished
from django.urls import reverse

from activity.messages import activity, happened
from thumbnails.messages import new_tasks
from thumbnails.models import Job
from thumbnails.tasks import make_thumbnails

__all__ = ["note_end", "note_task"]


@receiver(task_enqueued)
def note_task(task_result: TaskResult[..., object], **kwargs: object) -> None:
    """Write down the task of a job: `enqueue_on_commit`, which may come later, has no result to return."""
    if task_result.task.module_path != make_thumbnails.module_path:
        return
    [job] = task_result.args
    Job.objects.filter(pk=job).update(task=task_result.id)
    new_tasks.send({"type": "task.new", "job": job})
    _tell(job, "waits for a worker")


@receiver(task_finished)
def note_end(task_result: TaskResult[..., object], **kwargs: object) -> None:
    """Tell the feed what has become of a job. This runs in the worker."""
    if task_result.task.module_path == make_thumbnails.module_path:
        [job] = task_result.args
        _tell(job, "is done" if task_result.status == TaskResultStatus.SUCCESSFUL else "has failed")


def _tell(job: int, what: str) -> None:
    for name in Job.objects.filter(pk=job).values_list("name", flat=True):
        activity.send(happened(f"{name} {what}", reverse("thumbnails:job", args=[job])))
