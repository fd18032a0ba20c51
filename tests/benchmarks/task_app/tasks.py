"""The same two functions as tasks of whichever library the settings name, and one way to enqueue them.

What a task has seen goes into a file of its process, in one write: the others read it, and need no result.
"""

import functools
import importlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import transaction

__all__ = ["HOLDING", "aenqueue", "enqueue", "enqueue_hold", "enqueue_many"]

HOLDING = -1
"""The identity of a task that holds its thread."""

_LIBRARY = str(getattr(settings, "BENCHMARK_LIBRARY", ""))
_HOLD_LIMIT_S = 120.0
_LOOK_EVERY_S = 0.001


@functools.cache
def _log(folder: str, pid: int) -> int:
    return os.open(Path(folder) / f"{pid}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def _write(folder: str, identity: int, sent_ns: int) -> None:
    os.write(_log(folder, os.getpid()), f"{identity} {sent_ns} {time.perf_counter_ns()}\n".encode())


# Any, here and below: each library has a type of its own, and mypy may see none of them.
def _decorator() -> Callable[[Callable[..., None]], Any]:
    if _LIBRARY == "huey":
        decorator: Callable[[Callable[..., None]], Any] = importlib.import_module("huey.contrib.djhuey").task()
        return decorator
    if _LIBRARY == "django_tasks_db":
        # The framework that it is written for: Django's own, or the backport.
        package = importlib.import_module("django_tasks_db.backend").Task.__module__.rpartition(".")[0]
        return lambda function: importlib.import_module(package).task(function)
    return lambda function: importlib.import_module("channels_sqlite.tasks").task(function)


_task = _decorator()


@_task
def note(folder: str, identity: int, sent_ns: int) -> None:
    """Say that it runs."""
    _write(folder, identity, sent_ns)


@_task
def hold(folder: str) -> None:
    """Say that it runs, and keep its thread until all may begin."""
    _write(folder, HOLDING, 0)
    end_s = time.monotonic() + _HOLD_LIMIT_S
    while not (Path(folder) / "go").exists():
        if time.monotonic() > end_s:
            raise TimeoutError(folder)
        time.sleep(_LOOK_EVERY_S)


def enqueue(folder: str, identity: int) -> None:
    """Enqueue one, stamped with the moment of the call."""
    sent_ns = time.perf_counter_ns()
    if _LIBRARY == "huey":
        note(folder, identity, sent_ns)
    else:
        note.enqueue(folder, identity, sent_ns)


async def aenqueue(folder: str, identity: int) -> None:
    """Likewise, from an event loop. huey has no call for that."""
    if _LIBRARY == "huey":
        await sync_to_async(enqueue)(folder, identity)
    else:
        await note.aenqueue(folder, identity, time.perf_counter_ns())


def enqueue_many(folder: str, identities: Sequence[int]) -> None:
    """Enqueue several: in one call, else in one transaction where there is such a thing, else one by one."""
    if _LIBRARY == "channels_sqlite":
        sent_ns = time.perf_counter_ns()
        note.enqueue_many([((folder, identity, sent_ns), {}) for identity in identities])
        return
    with transaction.atomic():  # of no concern to huey, whose database is its own
        for identity in identities:
            enqueue(folder, identity)


def enqueue_hold(folder: str) -> None:
    """Enqueue one that holds its thread."""
    if _LIBRARY == "huey":
        hold(folder)
    else:
        hold.enqueue(folder)
