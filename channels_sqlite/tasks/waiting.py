"""Waiting for results, and looking at progress. Who waits is told of the end over the layer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from django.tasks import TaskResult
from django.tasks.backends.base import BaseTaskBackend
from typing_extensions import ParamSpec, TypeVar

from channels_sqlite.sync.facade import get_sync_channel_layer
from channels_sqlite.tasks.backend import SqliteTaskBackend, require_ours
from channels_sqlite.tasks.context import Progress
from channels_sqlite.tasks.queue import group_of

__all__ = ["await_result", "progress_of", "wait"]

P = ParamSpec("P")
R = TypeVar("R")

LOOK_AGAIN_S = 5.0  # where being told was missed: a flush of the layer, a full channel


def _backend_of(result: TaskResult[..., Any], what: str) -> SqliteTaskBackend:
    backend: BaseTaskBackend = result.task.get_backend()
    return require_ours(backend, what)


def wait(result: TaskResult[P, R], timeout: float | None = None) -> TaskResult[P, R]:
    """Wait until a task has finished, refresh its result, and return it.

    `timeout` is in seconds: 0 asks once, None waits for ever.

    Raises:
        TimeoutError: it has not finished by then.
        TaskResultDoesNotExist: there is no such task, or no more.
        NotImplementedError: its backend is not of channels_sqlite.
        SynchronousOnlyOperation: an event loop runs in this thread; await `await_result`.
    """
    until = _deadline(timeout)
    backend = _backend_of(result, "wait")
    layer = get_sync_channel_layer(backend.task_options.layer)
    if _refreshed(result):
        return result
    if timeout == 0:
        raise _late(result, timeout)
    channel = layer.new_channel("tasks")
    layer.group_add(group_of(result.id), channel)
    try:
        while not _refreshed(result):
            left = _left(until)
            if left <= 0:
                raise _late(result, timeout)
            _hear(layer, channel, left)
    finally:
        layer.group_discard(group_of(result.id), channel)
    return result


def _hear(layer: Any, channel: str, left: float) -> None:  # Any: the facade
    """Wait until a change of the status is told, or it is time to look again."""
    until = time.monotonic() + min(left, LOOK_AGAIN_S)
    while (patience_s := until - time.monotonic()) > 0:
        try:
            if layer.receive(channel, timeout=patience_s)["type"] == "task.status":
                return
        except TimeoutError:
            return


async def await_result(result: TaskResult[P, R], timeout: float | None = None) -> TaskResult[P, R]:
    """Like `wait`, on an event loop."""
    until = _deadline(timeout)
    backend = _backend_of(result, "await_result")
    layer = backend.queue.layer
    if await _arefreshed(result):
        return result
    if timeout == 0:
        raise _late(result, timeout)
    channel = await layer.new_channel("tasks")
    await layer.group_add(group_of(result.id), channel)
    try:
        while not await _arefreshed(result):
            left = _left(until)
            if left <= 0:
                raise _late(result, timeout)
            try:
                await asyncio.wait_for(layer.receive(channel), min(left, LOOK_AGAIN_S))
            except (TimeoutError, asyncio.TimeoutError):
                continue
    finally:
        # Shielded, so that a caller who gives up leaves no membership behind.
        await asyncio.shield(layer.group_discard(group_of(result.id), channel))
    return result


def _refreshed(result: TaskResult[..., Any]) -> bool:
    result.refresh()
    return result.is_finished


async def _arefreshed(result: TaskResult[..., Any]) -> bool:
    await result.arefresh()
    return result.is_finished


def progress_of(result: TaskResult[P, R]) -> Progress | None:
    """Return how far a task has come, as it told in its latest start; None where it told nothing.

    Raises TaskResultDoesNotExist, and NotImplementedError over another backend.
    """
    backend = _backend_of(result, "progress_of")
    return backend.queue.progress(backend.row(result.id))


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout


def _left(until: float | None) -> float:
    return LOOK_AGAIN_S if until is None else until - time.monotonic()


def _late(result: TaskResult[P, R], timeout: float | None) -> TimeoutError:
    return TimeoutError(f"task {result.id!r} is {result.status.value} after {timeout} s")
