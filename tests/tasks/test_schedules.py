"""Schedules: each due time once, whoever looks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.tasks import TaskResultStatus, task_backends
from django.test import override_settings

from channels_sqlite.engine.engine import Engine
from channels_sqlite.kinds import TaskState
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.tasks.rules import rule_of
from channels_sqlite.tasks.schedules import Schedules
from tests.processes.evidence import query
from tests.support.databases import ChannelDatabase
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, WorkerFactory, entry, fresh, task_settings

TICK = {"task": "tests.tasks.functions.add", "every": 30.0, "args": [1], "kwargs": {"b": 2}}


@pytest.fixture
def scheduled(database: ChannelDatabase) -> Iterator[TaskSettings]:
    with task_settings(database, schedule={"tick": TICK}) as settings:
        yield settings


def at(settings: TaskSettings, moment: float) -> None:
    """What a worker does at that moment."""
    queue = settings.backend.queue
    schedules = Schedules(settings.backend, queue)

    def operation(engine: Engine) -> Any:
        def apply(transaction: Transaction) -> None:
            transaction.now = moment
            schedules.enqueue_due(engine)(transaction)

        return apply

    queue.write(operation)


def enqueued(settings: TaskSettings) -> int:
    count: int = query(settings.database, "SELECT count(*) FROM channels_sqlite_queuedtask")[0][0]
    return count


def test_every_counts_from_when_it_was_seen_first(scheduled: TaskSettings) -> None:
    for moment, expected in [
        (1000, 0),
        (1029.9, 0),
        (1030, 1),
        (1030, 1),
        (1059, 1),
        (1060.5, 2),
        (1089.9, 2),
        (1090, 3),
    ]:
        at(scheduled, moment)
        assert enqueued(scheduled) == expected, moment


def test_what_was_missed_is_made_up_once(scheduled: TaskSettings) -> None:
    at(scheduled, 1000)
    at(scheduled, 1000 + 30 * 10 + 7)
    at(scheduled, 1000 + 30 * 10 + 8)
    assert enqueued(scheduled) == 1
    at(scheduled, 1000 + 30 * 11)
    assert enqueued(scheduled) == 2


def test_another_rule_begins_anew(scheduled: TaskSettings) -> None:
    at(scheduled, 1000)
    with task_settings(scheduled.database, schedule={"tick": {**TICK, "every": 60}}) as settings:
        at(settings, 1040)
        assert enqueued(settings) == 0
        at(settings, 1100)
        assert enqueued(settings) == 1


def test_cron_follows_the_clock_of_its_zone() -> None:
    rule = rule_of("nightly", {"task": "a.b", "cron": "30 2 * * *", "tz": "Europe/Berlin"})
    berlin = ZoneInfo("Europe/Berlin")
    due = rule.due.first_after(datetime(2026, 10, 24, 12, tzinfo=berlin).timestamp())
    assert datetime.fromtimestamp(due, berlin).isoformat() == "2026-10-25T02:30:00+02:00"
    following = rule.due.next_after(due, due + 1)
    assert datetime.fromtimestamp(following, berlin).isoformat() == "2026-10-26T02:30:00+01:00"  # once a night


def test_arguments_are_passed(scheduled: TaskSettings) -> None:
    at(scheduled, 1000)
    at(scheduled, 1030)
    [(key,)] = query(scheduled.database, "SELECT key FROM channels_sqlite_queuedtask")
    result = scheduled.backend.get_result(key)
    assert (result.args, result.kwargs) == ([1], {"b": 2})


@pytest.mark.parametrize(
    ("wrong", "part"),
    [
        ({"task": "a.b"}, "either 'cron' or 'every'"),
        ({"task": "a.b", "every": 1, "cron": "* * * * *"}, "either 'cron' or 'every'"),
        ({"task": "a.b", "every": 0}, "greater than 0"),
        ({"task": "a.b", "cron": "61 * * * *"}, "cron expression"),
        ({"task": "a.b", "cron": "* * * * *", "tz": "Europe/Nowhere"}, "time zone"),
        ({"task": "a.b", "every": 1, "tz": "UTC"}, "only beside 'cron'"),
        ({"task": "ab", "every": 1}, "dotted path"),
        ({"task": "a.b", "every": 1, "argument": 1}, "argument"),
        ({"task": "a.b", "every": 1, "args": 1}, "list as 'args'"),
        (1, "is a dict"),
    ],
)
def test_wrong_entries_are_refused(tasks: TaskSettings, wrong: object, part: str) -> None:
    with override_settings(TASKS=entry(schedule={"x": wrong})), pytest.raises(ImproperlyConfigured, match=part):
        _ = task_backends["default"]


def test_cron_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ValueError, match=r"pip install channels_sqlite\[cron\]"):
        rule_of("x", {"task": "a.b", "cron": "* * * * *"})
    assert rule_of("x", {"task": "a.b", "every": 1}).path == "a.b"


@pytest.mark.parametrize("path", ["tests.tasks.functions.not_a_task", "tests.tasks.nowhere.add"])
def test_a_path_that_leads_to_no_task_ends_the_worker_at_its_start(database: ChannelDatabase, path: str) -> None:
    wrong = {"x": {"task": path, "every": 1}}
    with task_settings(database, schedule=wrong) as settings, pytest.raises(ImproperlyConfigured, match=path):
        Schedules(settings.backend, settings.backend.queue)


@pytest.mark.processes
def test_two_workers_enqueue_each_due_time_once(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    ticking = entry(schedule={"tick": {**TICK, "every": 0.25}})
    for _ in range(2):
        start_worker(tasks=ticking)
    eventually(lambda: enqueued(tasks) >= 12, DEADLINE_S)
    [(count, first, next_at)] = query(
        tasks.database,
        "SELECT count(*), min(enqueued_at), (SELECT next_at FROM channels_sqlite_taskschedule) "
        "FROM channels_sqlite_queuedtask",
    )
    # Each has used up a due time of its own; the first may have been a second late.
    assert count <= (next_at - first) / 0.25 + 4


@pytest.mark.processes
@pytest.mark.parametrize("missed", [False, True], ids=["new", "missed"])
def test_burst_runs_what_is_there_and_what_is_due_by_the_schedule(
    missed: bool, tasks: TaskSettings, start_worker: WorkerFactory
) -> None:
    with task_settings(tasks.database, schedule={"tick": TICK}) as scheduled:
        if missed:
            at(scheduled, 1000)
        waiting = functions.add.enqueue(1, 1)
        worker = start_worker("--burst", ready=False)
        assert worker.wait() == 0
        assert fresh(waiting).status == TaskResultStatus.SUCCESSFUL
    states = query(tasks.database, "SELECT state FROM channels_sqlite_queuedtask")
    assert states == [(TaskState.SUCCESSFUL.value,)] * (1 + missed)
