"""Tasks that the tests run, here or in worker processes. What they do leaves evidence in files and results."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import django.tasks
from django.contrib.auth import get_user_model
from django.db import connections, transaction

from channels_sqlite.tasks import TaskContext, task

WAIT_S = 60.0


def wait_for(path: str) -> None:
    """Until a file is there."""
    end = time.monotonic() + WAIT_S
    while not Path(path).exists():
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.005)


def note(path: str, text: str) -> None:
    """Append a line, in one write."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
async def aadd(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


@django.tasks.task
def plain(a: int) -> int:
    return a


@task(queue_name="mail")
def post(a: int) -> int:
    return a


@task
def fail(text: str) -> None:
    raise ValueError(text)


@task(max_attempts=3, backoff=0.01, retry_on=(OSError,))
def unsteady(path: str, successes_after: int) -> str:
    note(path, str(time.time()))
    if len(Path(path).read_text().splitlines()) <= successes_after:
        raise OSError("not yet")
    return "at last"


@task(max_attempts=3, backoff=0.01, retry_on=(OSError,))
def wrong(path: str) -> None:
    note(path, "called")
    raise KeyError("this is not tried again")


@task
def interrupt(kind: str) -> None:
    raise {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[kind](kind)


@task
async def ainterrupt(kind: str) -> None:
    await asyncio.sleep(0)
    raise {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[kind](kind)


@task
def unreturnable() -> object:
    return object()


@task
def note_call(path: str, text: str) -> None:
    note(path, text)


@task
def hold(started: str, go: str) -> int:
    """Say that it runs, and run until told to end."""
    note(started, str(os.getpid()))
    wait_for(go)
    return os.getpid()


@task(queue_name="mail")
def hold_mail(started: str, go: str) -> int:
    note(started, str(os.getpid()))
    wait_for(go)
    return os.getpid()


@task
async def ahold(started: str, go: str) -> int:
    note(started, str(os.getpid()))
    while not Path(go).exists():  # noqa: ASYNC110  # another process makes it
        await asyncio.sleep(0.005)
    return os.getpid()


@task
def kill_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def spans(path: str, name: str, seconds: float) -> None:
    """Note beginning and end of each run, for whoever looks for two at a time."""
    note(path, f"begin {name} {os.getpid()}")
    time.sleep(seconds)
    note(path, f"end {name} {os.getpid()}")


@task(takes_context=True)
def attempt(context: TaskContext, a: int) -> list[int]:
    return [context.attempt, a]


@task(takes_context=True)
def report(context: TaskContext, steps: int) -> int:
    for step in range(1, steps + 1):
        context.progress(step, steps, f"step {step}")
    return steps


@task(takes_context=True)
async def areport(context: TaskContext, steps: int) -> int:
    for step in range(1, steps + 1):
        await context.aprogress(step, steps)
    return steps


@task
def use_orm() -> int:
    count: int = get_user_model().objects.count()
    return count


@task
def open_connections() -> list[str]:
    """The aliases of Django's connections that this thread has open as the task begins; then it opens one."""
    found = [one.alias for one in connections.all(initialized_only=True) if one.connection is not None]
    connections["channels"].ensure_connection()
    return found


@task
def now() -> float:
    return time.time()


@task
def resources() -> list[int]:
    """Threads, descriptors, and memory in KiB of the worker process."""
    import psutil

    process = psutil.Process()
    return [process.num_threads(), process.num_fds(), process.memory_info().rss // 1024]


@task
def enqueue_more(levels: int) -> int:
    if levels:
        enqueue_more.enqueue(levels - 1)
    return levels


@task
def leave_a_transaction_open() -> None:
    transaction.atomic(using="channels").__enter__()
    get_user_model().objects.using("channels").first()


def not_a_task() -> None:
    pass


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


PYTHON = sys.executable
