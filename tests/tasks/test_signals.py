"""Django's signals of tasks: in workers, with receivers that use the ORM and raise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.tasks import TaskResultStatus
from django.tasks.signals import task_finished

from channels_sqlite.tasks import wait
from channels_sqlite.tasks.results import AnyResult
from channels_sqlite.testing import run_tasks
from tests.processes.evidence import query
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.receivers import FILE_VARIABLE, SIGNALS_VARIABLE
from tests.tasks.setup import DEADLINE_S, TaskSettings, Worker, WorkerFactory, entry, fresh, task_settings

LISTENING = {"apps": ["tests.tasks.receivers.ReceiversConfig"]}


@pytest.fixture
def heard(tmp_path: Path) -> Callable[[AnyResult], list[str]]:
    """What the receivers of a worker have written down of a task."""

    def read(result: AnyResult) -> list[str]:
        path = tmp_path / "heard"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.partition(" ")[2] for line in lines if line.startswith(result.id)]

    return read


@pytest.fixture
def start_listening(start_worker: WorkerFactory, tmp_path: Path) -> Callable[..., Worker]:
    def start(*arguments: str, signals: str = "enqueued started finished", **options: object) -> Worker:
        variables = {FILE_VARIABLE: str(tmp_path / "heard"), SIGNALS_VARIABLE: signals}
        return start_worker(*arguments, variables=variables, **LISTENING, **options)  # type: ignore[arg-type]  # passed on

    return start


@pytest.mark.processes
def test_receivers_may_use_the_orm_and_what_they_raise_is_logged_and_changes_no_result(
    start_listening: Callable[..., Worker], heard: Callable[[AnyResult], list[str]]
) -> None:
    worker = start_listening("--threads", "1")
    results: list[AnyResult] = [functions.add.enqueue(1), functions.aadd.enqueue(2), functions.fail.enqueue("no")]
    for result in results:
        wait(result, DEADLINE_S)
    eventually(lambda: all(len(heard(result)) == 2 for result in results), DEADLINE_S)
    assert [fresh(result).status for result in results] == ["SUCCESSFUL", "SUCCESSFUL", "FAILED"]
    assert [result.return_value for result in results[:2]] == [1, 2]
    assert [error.exception_class for error in results[2].errors] == [ValueError]
    for result in results:
        end = str(result.status)
        assert heard(result) == ["started RUNNING running", f"finished {end} {end.lower()}"]
    worker.until_log("RuntimeError: a receiver's own, of started", 3)
    worker.until_log("RuntimeError: a receiver's own, of finished", 3)
    # Enqueued there, by a task.
    chain = wait(functions.enqueue_more.enqueue(1), DEADLINE_S)
    assert chain.status == TaskResultStatus.SUCCESSFUL
    worker.until_log("RuntimeError: a receiver's own, of enqueued", 1)


@pytest.mark.processes
def test_nothing_is_claimed_for_a_thread_that_is_with_receivers(
    start_listening: Callable[..., Worker], heard: Callable[[AnyResult], list[str]], tmp_path: Path
) -> None:
    first, second = functions.add.enqueue(1), functions.add.enqueue(2)
    start_listening("--threads", "1", signals="held")
    eventually(lambda: heard(first) == ["held"], DEADLINE_S)
    assert [fresh(first).status, fresh(second).status] == ["SUCCESSFUL", "READY"]
    (tmp_path / "heard.go").touch()
    assert wait(second, DEADLINE_S).return_value == 2


@pytest.mark.processes
def test_receivers_hear_of_a_task_whose_workers_died(
    tasks: TaskSettings, start_listening: Callable[..., Worker], heard: Callable[[AnyResult], list[str]]
) -> None:
    with task_settings(tasks.database, crash_attempts=1):
        start_listening("--threads", "1", tasks=entry(crash_attempts=1), signals="finished")
        result = wait(functions.kill_worker.enqueue(), DEADLINE_S)
        eventually(lambda: heard(result) == ["finished FAILED failed"], DEADLINE_S)
        # What receivers have opened is closed before the next task, after this end as after any other.
        for _ in range(2):
            assert wait(functions.open_connections.enqueue(), DEADLINE_S).return_value == []


def test_the_end_is_told_once_however_often_a_task_started(tasks: TaskSettings, tmp_path: Path) -> None:
    told: list[tuple[str, TaskResultStatus]] = []

    def receive(task_result: AnyResult, **kwargs: object) -> None:
        told.append((task_result.id, task_result.status))

    task_finished.connect(receive)
    try:
        result = functions.unsteady.enqueue(str(tmp_path / "calls"), 2)
        while query(tasks.database, "SELECT 1 FROM channels_sqlite_queuedtask WHERE state IN (0, 1)"):
            run_tasks()
    finally:
        task_finished.disconnect(receive)
    assert fresh(result).attempts == 3
    assert told == [(result.id, TaskResultStatus.SUCCESSFUL)]
