"""Running tasks in a test, without a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.core.exceptions import SynchronousOnlyOperation

from channels_sqlite.concurrency.loops import running_loop

if TYPE_CHECKING:
    from django.tasks import TaskResult

__all__ = ["run_tasks"]


def run_tasks(*, backend: str = "default", queues: Sequence[str] = ()) -> list[TaskResult[..., Any]]:
    """Run the tasks that are due, and what those enqueue, one after the other in the calling thread.

    They see the transaction that the test holds. Delayed tasks and later starts of what failed are left alone.

    Args:
        backend: alias in TASKS.
        queues: only these; empty: all of them.

    Returns their results, in the order in which they ran.

    Raises:
        ImproperlyConfigured: TASKS has no such backend of this package, or Django is older than 6.0.
        SynchronousOnlyOperation: an event loop runs in this thread; `await sync_to_async(run_tasks)()`.
    """
    if running_loop() is not None:
        raise SynchronousOnlyOperation(
            "run_tasks() was called in a thread whose event loop is running; await sync_to_async(run_tasks)() there"
        )
    from channels_sqlite.tasks.backend import backend_of
    from channels_sqlite.tasks.runner import Start
    from channels_sqlite.tasks.worker import queues_of

    chosen = backend_of(backend)
    queue = chosen.queue
    results: list[TaskResult[..., Any]] = []
    while True:
        rows = queue.write(queue.claim(queues_of(chosen, queues), {False: 1, True: 1}, most=1))
        if rows is None:
            queue.write(queue.take_untold())
            continue
        if not rows:
            return results
        result = Start(queue, rows[0], in_test=True).run(lambda row, outcome: queue.write(queue.finish(row, outcome)))
        if result is not None:
            results.append(result)
