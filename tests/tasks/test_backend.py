"""Enqueueing and results: Django's contract, and what this backend adds."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from channels.exceptions import MessageTooLarge
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import connections, transaction
from django.tasks import TaskResult, TaskResultStatus, default_task_backend, task_backends
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist, TaskResultMismatch
from django.tasks.signals import task_enqueued, task_finished, task_started
from django.test import override_settings

from channels_sqlite.tasks import (
    Progress,
    SqliteTaskBackend,
    TaskContext,
    await_result,
    changes,
    progress_of,
    task,
    wait,
    waiting,
)
from channels_sqlite.tasks.backend import backend_of
from channels_sqlite.tasks.results import AnyResult
from channels_sqlite.testing import run_tasks
from tests.facade.setup import NEVER_S, in_thread
from tests.processes.evidence import query
from tests.support.databases import ROOT, ChannelDatabase
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, entry, fresh, task_settings

IMMEDIATE = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend", "QUEUES": []}}
DUMMY = {"default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend", "QUEUES": []}}


def test_the_backend_says_what_it_supports(tasks: TaskSettings) -> None:
    backend = tasks.backend
    assert backend.supports_defer
    assert backend.supports_async_task
    assert backend.supports_get_result
    assert backend.supports_priority
    assert default_task_backend.alias == "default"


def test_a_result_begins_ready_and_is_found_by_its_id(tasks: TaskSettings) -> None:
    result = functions.add.enqueue(1, b=2)
    assert (result.status, result.attempts, result.errors) == (TaskResultStatus.READY, 0, [])
    assert (result.args, result.kwargs, result.backend) == ([1], {"b": 2}, "default")
    assert result.enqueued_at is not None
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    found = functions.add.get_result(result.id)
    assert found == result
    with pytest.raises(ValueError, match="not finished"):
        _ = found.return_value


async def test_the_same_without_blocking_an_event_loop(tasks: TaskSettings) -> None:
    result = await functions.add.aenqueue(3)
    assert (await functions.add.aget_result(result.id)).args == [3]
    many = await functions.add.aenqueue_many([((1,), {}), ((2,), {"b": 1})])
    assert [one.kwargs for one in many] == [{}, {"b": 1}]
    [first, *_] = await sync_to_async(run_tasks)()
    assert first.id == result.id
    await result.arefresh()
    assert result.return_value == 3


def test_results_that_there_are_not(tasks: TaskSettings) -> None:
    with pytest.raises(TaskResultDoesNotExist, match="no result 'nonsense'"):
        functions.add.get_result("nonsense")
    with pytest.raises(TaskResultMismatch):
        functions.add.get_result(functions.plain.enqueue(1).id)
    queue = tasks.backend.queue
    new = queue.prepare(functions.add, [1], {})._replace(path="tests.tasks.functions.gone")
    queue.write(queue.enqueue([new]))
    with pytest.raises(TaskResultDoesNotExist, match=r"tests\.tasks\.functions\.gone"):
        tasks.backend.get_result(new.key)


@pytest.mark.parametrize("value", [{1}, object(), b"\xff", {"x": [1j]}])
def test_what_is_no_json_is_refused_before_anything_is_written(tasks: TaskSettings, value: object) -> None:
    with pytest.raises((TypeError, ValueError), match="Unsupported"):
        functions.plain.enqueue(value)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises((TypeError, ValueError), match="Unsupported"):
        functions.add.enqueue_many([((1,), {}), ((value,), {})])
    assert query(tasks.database, "SELECT count(*) FROM channels_sqlite_queuedtask") == [(0,)]


def test_values_come_back_as_json_has_them(tasks: TaskSettings) -> None:
    value = {"big": 2**80, "text": "\ud800é\0", "float": 1.5, "list": [1, (2, b"three")], "none": None}
    result = functions.add.enqueue_many([((value,), {})])[0]
    expected = {**value, "list": [1, [2, "three"]]}
    assert fresh(result).args == [expected]
    assert tasks.backend.get_result(result.id).args == [expected]


def test_arguments_are_bounded_by_the_layers_largest_message(database: ChannelDatabase) -> None:
    with task_settings(database, {"max_message_size": 2_000_000}):
        functions.fail.enqueue("x" * 1_000_000)
        with pytest.raises(MessageTooLarge):
            functions.fail.enqueue("x" * 2_000_000)


def test_tasks_that_the_backend_refuses(tasks: TaskSettings) -> None:
    with pytest.raises(InvalidTask, match="Queue 'other'"):
        functions.add.using(queue_name="other")
    with pytest.raises(InvalidTask, match="priority"):
        functions.add.using(priority=101)
    with pytest.raises(InvalidTask, match="aware"):
        functions.add.using(run_after=functions.utc_now().replace(tzinfo=None))
    with pytest.raises(InvalidTask, match="module level"):
        task(lambda: None)
    for wrong in ({"max_attempts": 0}, {"max_attempts": True}, {"backoff": -1}, {"backoff": float("inf")}):
        with pytest.raises(InvalidTask, match=next(iter(wrong))):
            task(**wrong)(functions.not_a_task)
    with pytest.raises(InvalidTask, match="retry_on"):
        task(retry_on=OSError)(functions.not_a_task)  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(InvalidTask, match="unique must be"):
        functions.add.using(unique="")


def test_signals_are_sent_and_what_their_receivers_raise_changes_nothing(
    tasks: TaskSettings, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, str, TaskResultStatus]] = []

    def hear(name: str) -> Callable[..., None]:
        def receive(sender: object, task_result: TaskResult[..., object], **kwargs: object) -> None:
            assert sender is SqliteTaskBackend
            heard.append((name, task_result.id, task_result.status))
            raise RuntimeError("a receiver's own")

        return receive

    receivers = {name: hear(name) for name in ("enqueued", "started", "finished")}
    signals = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}
    for name, signal in signals.items():
        signal.connect(receivers[name])
    try:
        result = functions.add.enqueue(1)
        failing = functions.fail.enqueue("no")
        run_tasks()
    finally:
        for name, signal in signals.items():
            signal.disconnect(receivers[name])
    assert [(name, status) for name, key, status in heard if key == result.id] == [
        ("enqueued", "READY"),
        ("started", "RUNNING"),
        ("finished", "SUCCESSFUL"),
    ]
    assert [(name, status) for name, key, status in heard if key == failing.id][-1] == ("finished", "FAILED")
    assert fresh(result).return_value == 1
    assert "a receiver's own" in caplog.text


@pytest.mark.django_db(transaction=True, databases=["default", "channels"])
def test_an_atomic_block_on_the_layers_database_takes_the_task_in(tasks: TaskSettings) -> None:
    with pytest.raises(RuntimeError, match="roll back"), transaction.atomic(using="channels"):  # noqa: PT012
        gone = functions.add.enqueue(1)
        assert fresh(gone).status == TaskResultStatus.READY  # seen inside of it
        raise RuntimeError("roll back")
    with pytest.raises(TaskResultDoesNotExist):
        gone.refresh()
    with transaction.atomic(using="channels"):
        kept = functions.add.enqueue(1)
        assert _seen_by_another_thread(tasks, kept.id) is False
    assert _seen_by_another_thread(tasks, kept.id) is True


def _seen_by_another_thread(tasks: TaskSettings, key: str) -> bool:
    seen: list[bool] = []

    def look() -> None:
        seen.append(bool(query(tasks.database, f"SELECT 1 FROM channels_sqlite_queuedtask WHERE key = '{key}'")))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(DEADLINE_S)
    return seen[0]


@pytest.mark.django_db(transaction=True)
def test_in_any_other_transaction_a_task_is_visible_at_once_and_stays(tasks: TaskSettings) -> None:
    with pytest.raises(RuntimeError, match="roll back"), transaction.atomic():  # noqa: PT012
        result = functions.add.enqueue(1)
        assert _seen_by_another_thread(tasks, result.id) is True
        raise RuntimeError("roll back")
    assert fresh(result).status == TaskResultStatus.READY


@pytest.mark.django_db(transaction=True, databases=["default", "channels"])
def test_on_commit_enqueues_when_the_transaction_commits_and_checks_at_once(tasks: TaskSettings) -> None:
    def count() -> int:
        found: int = query(tasks.database, "SELECT count(*) FROM channels_sqlite_queuedtask")[0][0]
        return found

    with transaction.atomic():
        assert functions.add.enqueue_on_commit(7) is None  # type: ignore[func-returns-value]  # that is what is tested
        with pytest.raises(TypeError, match="Unsupported"):
            functions.add.enqueue_on_commit(object())  # type: ignore[arg-type]  # wrong on purpose
        assert count() == 0
    assert count() == 1
    with pytest.raises(RuntimeError, match="roll back"), transaction.atomic():  # noqa: PT012
        functions.add.enqueue_on_commit(7)
        raise RuntimeError("roll back")
    assert count() == 1
    functions.add.enqueue_on_commit(8)  # no transaction: at once
    assert count() == 2
    with transaction.atomic(using="channels"):
        functions.add.using(on_commit="channels").enqueue_on_commit(9)
        assert query(tasks.database, "SELECT count(*) FROM channels_sqlite_queuedtask") == [(2,)]
    assert count() == 3


@pytest.mark.django_db(transaction=True)
def test_what_goes_wrong_at_the_commit_is_logged(tasks: TaskSettings, caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic():
        functions.add.enqueue_on_commit(7)
        away = tasks.database.path.with_suffix(".away")
        tasks.backend.queue.layer._close_blocking()  # noqa: SLF001  # so that it must be opened again
        tasks.database.path.rename(away)
    assert "could not be enqueued" in caplog.text
    away.rename(tasks.database.path)


def test_a_unique_task_waits_once(tasks: TaskSettings) -> None:
    unique = functions.add.using(unique="one")
    first = unique.enqueue(1)
    assert unique.enqueue(2).id == first.id
    assert unique.enqueue(2).args == [1]
    assert functions.add.enqueue(1).id != first.id
    assert functions.add.using(unique="two").enqueue(1).id != first.id
    later = functions.add.using(unique="late", run_after=functions.utc_now() + timedelta(hours=1)).enqueue(1)
    assert functions.add.using(unique="late").enqueue(1).id == later.id  # a delayed one is READY
    run_tasks()
    assert unique.enqueue(3).id != first.id


def test_enqueue_many_writes_all_or_none(tasks: TaskSettings) -> None:
    results = functions.add.enqueue_many([((7,), {}), ((8,), {"b": 1})])
    assert [result.args for result in results] == [[7], [8]]
    assert functions.add.enqueue_many([]) == []
    assert [result.return_value for result in run_tasks()] == [7, 9]


def test_retries_follow_their_own_rules(tasks: TaskSettings, tmp_path: Path) -> None:
    def run_all() -> None:
        while any(query(tasks.database, "SELECT 1 FROM channels_sqlite_queuedtask WHERE state IN (0, 1)")):
            run_tasks()

    steady = functions.unsteady.enqueue(str(tmp_path / "steady"), 2)
    never = functions.unsteady.enqueue(str(tmp_path / "never"), 100)
    wrong = functions.wrong.enqueue(str(tmp_path / "wrong"))
    run_all()
    assert (fresh(steady).return_value, steady.attempts) == ("at last", 3)
    assert [error.exception_class for error in steady.errors] == [OSError, OSError]
    assert (fresh(never).status, never.attempts, len(never.errors)) == (TaskResultStatus.FAILED, 3, 3)
    assert (fresh(wrong).status, wrong.attempts) == (TaskResultStatus.FAILED, 1)
    with task_settings(tasks.database, max_attempts=2, backoff=0):
        plain = functions.fail.enqueue("as OPTIONS say")
        run_all()
        assert (fresh(plain).status, plain.attempts) == (TaskResultStatus.FAILED, 2)


def test_backoff_doubles_up_to_an_hour(tasks: TaskSettings) -> None:
    queue = tasks.backend.queue
    result = functions.unsteady.enqueue("", 0)
    with task_settings(tasks.database, max_attempts=100, backoff=10.0) as settings:
        row = settings.backend.row(result.id)
        waits = []
        for failures in (0, 1, 2, 8, 9, 90):
            outcome = settings.backend.queue.failed(ValueError(), "", row._replace(failures=failures), functions.fail)
            assert outcome.due_at is not None
            waits.append(round(outcome.due_at - functions.utc_now().timestamp()))
    assert waits == [10, 20, 40, 2560, 3600, 3600]
    assert queue.options.max_attempts == 1


def test_what_is_stored_is_encrypted(database: ChannelDatabase) -> None:
    with task_settings(database, {"symmetric_encryption_keys": ["of this test"]}):
        results: list[AnyResult] = [
            functions.fail.enqueue("a-secret"),
            functions.attempt.enqueue(1),
            functions.report.enqueue(1),
        ]
        run_tasks()
        assert "a-secret" in fresh(results[0]).errors[0].traceback
        assert progress_of(results[2]) == Progress(1, 1, "step 1")
    [stored] = query(
        database,
        "SELECT group_concat(coalesce(payload, '') || coalesce(errors, '') || coalesce(outcome, '') || "
        "coalesce(progress, '')) FROM channels_sqlite_queuedtask",
    )
    assert b"secret" not in str(stored).encode()
    assert b"step" not in str(stored).encode()
    with task_settings(database), pytest.raises(TaskResultDoesNotExist, match="keys"):
        functions.fail.get_result(results[0].id)


def test_two_entries_may_share_a_layer(database: ChannelDatabase) -> None:
    both = {**entry(), "second": entry()["default"]}
    with task_settings(database), override_settings(TASKS=both):
        first = functions.add.enqueue(1)
        second = functions.add.using(backend="second").enqueue(2)
        assert [result.id for result in run_tasks(backend="second")] == [second.id]
        assert fresh(first).status == TaskResultStatus.READY
        with pytest.raises(TaskResultDoesNotExist):
            backend_of("second").get_result(first.id)


def test_the_context_tells_attempt_and_progress(tasks: TaskSettings) -> None:
    result, reported = functions.attempt.enqueue(5), functions.areport.enqueue(3)
    run_tasks()
    assert fresh(result).return_value == [1, 5]
    assert progress_of(result) is None
    assert progress_of(reported) == Progress(3, 3, "")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("1", 2), TypeError),
        ((True, 2), TypeError),
        ((-1, 2), ValueError),
        ((float("nan"), 2), ValueError),
        ((1, 2, 3), TypeError),
    ],
)
def test_progress_refuses_what_it_cannot_tell(
    tasks: TaskSettings, arguments: tuple[object, ...], error: type[Exception]
) -> None:
    result = functions.add.enqueue(1)
    from channels_sqlite.tasks.runner import Teller

    context = TaskContext(task_result=result, teller=Teller(tasks.backend.queue, tasks.backend.row(result.id)))
    with pytest.raises(error):
        context.progress(*arguments)  # type: ignore[arg-type]  # wrong on purpose


async def test_the_group_of_a_task_hears_of_its_changes(tasks: TaskSettings) -> None:
    layer = tasks.backend.queue.layer
    result = await functions.report.aenqueue(2)
    channel = await layer.new_channel()
    await layer.group_add(f"task.{result.id}", channel)
    await sync_to_async(run_tasks)()
    heard = [await asyncio.wait_for(layer.receive(channel), DEADLINE_S) for _ in range(4)]
    assert heard == [
        {"type": "task.status", "id": result.id, "status": "RUNNING"},
        {"type": "task.progress", "id": result.id, "done": 1, "total": 2, "note": "step 1"},
        {"type": "task.progress", "id": result.id, "done": 2, "total": 2, "note": "step 2"},
        {"type": "task.status", "id": result.id, "status": "SUCCESSFUL"},
    ]


async def test_the_group_of_a_task_hears_of_what_is_done_to_it_by_hand(tasks: TaskSettings) -> None:
    layer, queue = tasks.backend.queue.layer, tasks.backend.queue
    result = await functions.add.aenqueue(2)
    channel = await layer.new_channel()
    await layer.group_add(f"task.{result.id}", channel)
    assert await sync_to_async(changes.cancel)(queue, result.id)
    assert await sync_to_async(changes.retry)(queue, result.id)
    heard = [(await asyncio.wait_for(layer.receive(channel), DEADLINE_S))["status"] for _ in range(2)]
    assert heard == ["FAILED", "READY"]


def test_waiting_asks_once_or_ends_with_a_time_out(tasks: TaskSettings) -> None:
    result = functions.add.enqueue(1)
    with pytest.raises(TimeoutError, match="READY after 0 s"):
        wait(result, timeout=0)
    with pytest.raises(TimeoutError):
        wait(result, timeout=0.01)
    run_tasks()
    assert wait(result, timeout=0) is result
    assert wait(result).return_value == 1
    assert query(tasks.database, "SELECT count(*) FROM channels_sqlite_membership") == [(0,)]


@pytest.mark.parametrize("timeout", [None, DEADLINE_S])
def test_who_waits_is_told_of_the_end_and_does_not_look_again(
    tasks: TaskSettings, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    monkeypatch.setattr(waiting, "LOOK_AGAIN_S", NEVER_S)
    result = functions.add.enqueue(1)
    other = functions.add.get_result(result.id)
    waited = in_thread(lambda: wait(result, timeout))
    awaited = in_thread(lambda: asyncio.run(await_result(other, timeout)))
    members = "SELECT count(*) FROM channels_sqlite_membership"
    eventually(lambda: query(tasks.database, members) == [(2,)], DEADLINE_S)
    run_tasks()
    assert (waited().return_value, awaited().return_value) == (1, 1)
    assert query(tasks.database, members) == [(0,)]


async def test_awaiting_a_result(tasks: TaskSettings) -> None:
    result = await functions.add.aenqueue(1)
    with pytest.raises(TimeoutError):
        await await_result(result, timeout=0.01)
    waiting = asyncio.create_task(await_result(result, timeout=DEADLINE_S))
    await asyncio.sleep(0)
    await sync_to_async(run_tasks)()
    assert (await waiting).return_value == 1
    with pytest.raises(SynchronousOnlyOperation):
        wait(await functions.add.aenqueue(1), timeout=1)


@pytest.mark.django_db(transaction=True)
def test_over_a_backend_that_runs_nothing_tasks_are_kept_as_it_says(tasks: TaskSettings) -> None:
    with override_settings(TASKS=DUMMY):
        kept: list[AnyResult] = vars(task_backends["default"])["results"]
        result = functions.add.using(priority=5).enqueue(1, b=2)
        assert (result.status, result.args, result.kwargs) == (TaskResultStatus.READY, [1], {"b": 2})
        with transaction.atomic():
            functions.add.enqueue_on_commit(3)
            assert len(kept) == 1
        assert [one.args for one in kept] == [[1], [3]]
        for refused in (
            lambda: functions.add.using(unique="x").enqueue(1),
            lambda: functions.add.enqueue_many([((1,), {})]),
            lambda: wait(result),
            lambda: progress_of(result),
        ):
            with pytest.raises(NotImplementedError, match="DummyBackend"):
                refused()
        with pytest.raises(NotImplementedError, match="DummyBackend"):
            asyncio.run(await_result(result))


@pytest.mark.django_db(transaction=True)
def test_over_another_backend_tasks_work_by_its_rules(tasks: TaskSettings) -> None:
    with override_settings(TASKS=IMMEDIATE):
        result = functions.add.enqueue(1, b=2)
        assert result.return_value == 3
        assert functions.attempt.enqueue(1).return_value == [1, 1]
        functions.add.enqueue_on_commit(3)
        for refused in (
            lambda: functions.add.using(unique="x").enqueue(1),
            lambda: functions.add.enqueue_many([((1,), {})]),
            lambda: wait(result),
            lambda: progress_of(result),
        ):
            with pytest.raises(NotImplementedError, match="ImmediateBackend"):
                refused()
        failed = functions.report.enqueue(1)
        assert failed.errors[0].exception_class is NotImplementedError
        assert "TASKS['default'] names another one" in failed.errors[0].traceback


def test_all_faults_in_options_are_told_at_once(tasks: TaskSettings) -> None:
    wrong = entry(
        layer="nowhere", max_attempt=1, backoff="10", crash_attempts=True, limits={"mail": 0}, success_retention=-1
    )
    with override_settings(TASKS=wrong), pytest.raises(ImproperlyConfigured) as caught:
        _ = task_backends["default"]
    for part in (
        "'layer' is 'nowhere'",
        "'max_attempt' is not an option (perhaps 'max_attempts' is meant)",
        "'backoff' is '10'",
        "'crash_attempts' is True",
        "'limits' is {'mail': 0}",
        "'success_retention' is -1",
    ):
        assert part in str(caught.value)


def test_a_task_can_be_pickled(tasks: TaskSettings) -> None:
    assert pickle.loads(pickle.dumps(functions.add.using(unique="x"))) == functions.add.using(unique="x")


@pytest.mark.django_db(transaction=True, databases=["default", "channels"])
def test_run_tasks_sees_the_tests_transaction(tasks: TaskSettings) -> None:
    with transaction.atomic(using="channels"):
        functions.enqueue_more.enqueue(2)
        assert [result.return_value for result in run_tasks()] == [2, 1, 0]
        transaction.set_rollback(True, using="channels")
    assert query(tasks.database, "SELECT count(*) FROM channels_sqlite_queuedtask") == [(0,)]
    assert connections["channels"].connection is not None


async def test_run_tasks_says_what_to_call_on_an_event_loop(tasks: TaskSettings) -> None:
    with pytest.raises(SynchronousOnlyOperation, match="sync_to_async"):
        run_tasks()


def test_old_djangos_are_told_of(tmp_path: Path) -> None:
    code = "import django; django.VERSION = (5, 2, 0, 'final', 0)\nimport channels_sqlite.tasks"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ImproperlyConfigured: channels_sqlite.tasks needs django.tasks" in finished.stderr
