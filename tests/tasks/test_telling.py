"""Changes of a task's status are told in the transaction that makes them: whoever dies then, they are heard of."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.kinds import TaskState
from channels_sqlite.tasks.results import AnyResult
from channels_sqlite.testing import run_tasks
from channels_sqlite.waking.sender import Sender
from tests.processes.evidence import query
from tests.support.child import Parent
from tests.support.processes import ProcessFactory
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, WorkerFactory, entry, task_settings

pytestmark = pytest.mark.processes


class Listener:
    """A member of the group of a task."""

    def __init__(self, result: AnyResult) -> None:
        self._layer = get_sync_channel_layer()
        self._channel = self._layer.new_channel("page")
        self._result = result
        self._layer.group_add(f"task.{result.id}", self._channel)

    def hears(self, *statuses: str) -> None:
        """Return once these have come, and nothing else in between."""
        for status in statuses:
            message = self._layer.receive(self._channel, timeout=DEADLINE_S)
            assert message == {"type": "task.status", "id": self._result.id, "status": status}

    def has_heard_all(self) -> bool:
        try:
            self._layer.receive(self._channel, timeout=0)
        except TimeoutError:
            return True
        return False


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """For `hold`; what is held in the end may go on."""
    started, go = tmp_path / "started", tmp_path / "go"
    yield str(started), str(go)
    go.touch()


def until_untold(tasks: TaskSettings, state: TaskState) -> None:
    """Wait until some process has buried the dead worker, and not told."""
    sql = "SELECT state, untold FROM channels_sqlite_queuedtask"
    eventually(lambda: query(tasks.database, sql) == [(state.value, 1)], DEADLINE_S)


def kill_with_children(start_worker: WorkerFactory, started: str, crash_attempts: int) -> None:
    """Start a worker and kill all of it once it runs a task."""
    worker = start_worker(tasks=entry(crash_attempts=crash_attempts))
    eventually(lambda: Path(started).exists(), DEADLINE_S)
    [child] = worker.children()
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    worker.wait()


@pytest.mark.slow
def test_what_was_taken_from_dead_workers_and_not_told_the_next_worker_tells(
    tasks: TaskSettings, start_worker: WorkerFactory, files: tuple[str, str]
) -> None:
    result = functions.hold.enqueue(*files)
    listener = Listener(result)
    kill_with_children(start_worker, files[0], 3)
    listener.hears("RUNNING")
    # This very process, which listens, buries them: it runs no tasks, and does not tell.
    until_untold(tasks, TaskState.READY)
    assert listener.has_heard_all()
    Path(files[1]).touch()
    start_worker()
    listener.hears("READY", "RUNNING", "SUCCESSFUL")


@pytest.mark.slow
def test_the_end_of_a_task_whose_workers_all_died_is_told_by_the_next(
    tasks: TaskSettings, start_worker: WorkerFactory, files: tuple[str, str]
) -> None:
    with task_settings(tasks.database, crash_attempts=1):
        result = functions.hold.enqueue(*files)
        listener = Listener(result)
        kill_with_children(start_worker, files[0], 1)
        listener.hears("RUNNING")
        until_untold(tasks, TaskState.FAILED)
        worker = start_worker()
        listener.hears("FAILED")
        worker.until_log("failed: its workers died 1 times")
        assert query(tasks.database, "SELECT untold FROM channels_sqlite_queuedtask") == [(0,)]


def die_at_the_first_wake(parent: Parent) -> None:
    """Run what is due, and die right behind the commit of the first change, before anybody is woken."""

    def die(sender: object, clients: set[str]) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    Sender.wake = die  # type: ignore[assignment, method-assign]  # in a process that does not outlive it
    run_tasks()


def test_a_status_whose_teller_dies_right_behind_the_commit_is_heard_of(
    tasks: TaskSettings, start_process: ProcessFactory
) -> None:
    result = functions.add.enqueue(1)
    listener = Listener(result)
    child = start_process(die_at_the_first_wake, database=tasks.database)
    listener.hears("RUNNING")
    eventually(lambda: not child.running, DEADLINE_S)
    assert query(tasks.database, "SELECT state FROM channels_sqlite_queuedtask") in (
        [(TaskState.RUNNING.value,)],
        [(TaskState.READY.value,)],  # buried already
    )
