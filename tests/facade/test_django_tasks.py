"""Django's tasks (6.0 and newer) tell over the layer how far they have come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Literal, TypedDict

import django
import pytest
from asgiref.sync import sync_to_async
from django.test import override_settings

from channels_sqlite import Group
from channels_sqlite.sync import SyncChannelLayer
from tests.facade.setup import DEADLINE_S, facade_over, in_thread
from tests.support.databases import ChannelDatabase

if django.VERSION < (6, 0):
    pytest.skip("django.tasks came with Django 6.0", allow_module_level=True)

from django.tasks import task

TASKS = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}


class Progress(TypedDict):
    type: Literal["report.progress"]
    percent: int


progress: Group[Progress] = Group("report")


@task
def build(steps: int) -> int:
    for step in range(1, steps + 1):
        progress.send({"type": "report.progress", "percent": 100 * step // steps})
    return steps


@task
async def abuild(steps: int) -> int:
    for step in range(1, steps + 1):
        await progress.asend({"type": "report.progress", "percent": 100 * step // steps})
    return steps


@task
async def build_wrongly(steps: int) -> None:
    progress.send({"type": "report.progress", "percent": steps})


@pytest.fixture
def layer(database: ChannelDatabase) -> Iterator[SyncChannelLayer]:
    """The layer that the handles use."""
    with override_settings(TASKS=TASKS), facade_over(database) as layer:
        yield layer


def percents(layer: SyncChannelLayer, page: str, count: int) -> list[int]:
    """What came to a page."""
    return [layer.receive(page, timeout=DEADLINE_S)["percent"] for _ in range(count)]


def test_a_task_tells_its_progress_to_a_group(layer: SyncChannelLayer) -> None:
    pages = [layer.new_channel() for _ in range(2)]
    for page in pages:
        progress.add(page)
    result = build.enqueue(4)
    assert result.return_value == 4
    for page in pages:
        assert percents(layer, page, 4) == [25, 50, 75, 100]


def test_a_page_sees_the_progress_while_the_task_runs(layer: SyncChannelLayer) -> None:
    page = layer.new_channel()
    progress.add(page)
    seen = in_thread(lambda: percents(layer, page, 5))
    build.enqueue(5)
    assert seen() == [20, 40, 60, 80, 100]


def test_an_async_task_awaits_the_handles(layer: SyncChannelLayer) -> None:
    page = layer.new_channel()
    progress.add(page)
    assert abuild.enqueue(2).status == "SUCCESSFUL"
    assert percents(layer, page, 2) == [50, 100]


def test_a_task_may_be_enqueued_on_an_event_loop(layer: SyncChannelLayer) -> None:
    page = layer.new_channel()
    progress.add(page)

    async def view() -> list[int]:
        assert (await build.aenqueue(2)).status == "SUCCESSFUL"
        assert (await abuild.aenqueue(1)).status == "SUCCESSFUL"
        return await sync_to_async(percents)(layer, page, 3)

    assert asyncio.run(view()) == [50, 100, 100]


def test_an_async_task_that_calls_the_facade_fails_with_the_call_to_await(
    layer: SyncChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log record of a failure keeps asgiref's thread, as long as pytest keeps the record.
    monkeypatch.setattr(logging.getLogger("django.tasks"), "disabled", True)
    result = build_wrongly.enqueue(1)
    assert result.status == "FAILED"
    assert "SynchronousOnlyOperation" in result.errors[0].exception_class_path
    assert "await" in result.errors[0].traceback
