"""What happens when a task is enqueued: its job learns its id, and pages learn of the job."""

from __future__ import annotations

from django.dispatch import receiver
from django.tasks import TaskResult
from django.tasks.signals import task_enqueued

from thumbnails.messages import new_tasks
from thumbnails.models import Job
from thumbnails.tasks import make_thumbnails

__all__ = ["note_task"]


@receiver(task_enqueued)
def note_task(task_result: TaskResult[..., object], **kwargs: object) -> None:
    """Write down the task of a job: `enqueue_on_commit`, which may come later, has no result to return."""
    if task_result.task.module_path != make_thumbnails.module_path:
        return
    [job] = task_result.args
    Job.objects.filter(pk=job).update(task=task_result.id)
    new_tasks.send({"type": "task.new", "job": job})
