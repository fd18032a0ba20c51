"""What people do to tasks by hand: start a failed one once more, cancel one that waits."""

from __future__ import annotations

from channels_sqlite.tasks.queue import TaskQueue
from channels_sqlite.tasks.runner import send_finished

__all__ = ["cancel", "retry"]


def retry(queue: TaskQueue, key: str) -> bool:
    """Have a failed task start once more; return False where it has not failed, or there is none."""
    return queue.write(queue.retry(key)) is not None


def cancel(queue: TaskQueue, key: str) -> bool:
    """Fail a task that has not started, and tell Django's receivers; return False where there is no such task."""
    row = queue.write(queue.cancel(key))
    if row is not None:
        send_finished(queue, row)
    return row is not None
