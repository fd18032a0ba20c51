"""Workers that die: what they were running starts again, by the kernel's proof, and never twice at a time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import defaultdict
from pathlib import Path

import pytest
from django.tasks import TaskResultStatus
from django.tasks.signals import task_finished

from channels_sqlite.kinds import TaskState
from channels_sqlite.storage.tasks import Outcome
from channels_sqlite.tasks import wait
from channels_sqlite.tasks.results import AnyResult
from channels_sqlite.tasks.runner import send_finished
from channels_sqlite.testing import run_tasks
from tests.processes.evidence import BURIAL_DEADLINE_S
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, Worker, WorkerFactory, entry, fresh, task_settings

pytestmark = pytest.mark.processes


def test_a_task_that_kills_its_worker_ends_as_failed(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    worker = start_worker(tasks=entry(crash_attempts=2))
    with task_settings(tasks.database, crash_attempts=2):
        result = wait(functions.kill_worker.enqueue(), DEADLINE_S)
    assert (result.status, result.attempts) == (TaskResultStatus.FAILED, 2)
    [error] = result.errors
    assert error.exception_class_path == "channels_sqlite.tasks.WorkerDied"
    assert error.exception_class.__name__ == "WorkerDied"
    worker.until_log("failed: its workers died 2 times")
    assert wait(functions.add.enqueue(1), DEADLINE_S).return_value == 1


def test_if_all_died_the_next_worker_clears_up_first(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker()
    result = functions.hold.enqueue(started, go)
    eventually(lambda: Path(started).exists(), DEADLINE_S)
    [child] = worker.children()
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    worker.wait()
    Path(go).touch()
    start_worker()
    assert wait(result, DEADLINE_S).attempts == 2


@pytest.mark.slow
def test_another_worker_takes_over_within_seconds(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    first = start_worker("--threads", "1")
    result = functions.hold.enqueue(started, go)
    eventually(lambda: Path(started).exists(), DEADLINE_S)
    start_worker("--threads", "1")
    [child] = first.children()
    os.kill(first.pid, signal.SIGKILL)  # so that no parent says that the child is dead
    os.kill(child, signal.SIGKILL)
    first.wait()
    Path(go).touch()
    wait(result, BURIAL_DEADLINE_S)
    assert (result.status, result.attempts) == (TaskResultStatus.SUCCESSFUL, 2)


def test_a_claim_says_who_runs_the_task_and_for_the_how_manieth_time(tasks: TaskSettings) -> None:
    queue = tasks.backend.queue
    result = functions.add.enqueue(1)
    for attempt in (1, 2):
        [row] = queue.write(queue.claim(["default"], {False: 1, True: 1})) or []
        assert (row.state, row.attempts) == (TaskState.RUNNING.value, attempt)
        assert row.worker == queue.write(lambda engine: lambda transaction: engine.client)
        assert fresh(result).worker_ids == [row.worker] * attempt
        assert result.status == TaskResultStatus.RUNNING
        queue.write(lambda engine: lambda transaction: transaction.store.release_tasks(engine.client, transaction.now))
        queue.write(queue.take_untold())


def test_a_suspended_worker_keeps_its_task(tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker()
    result = functions.hold.enqueue(started, go)
    eventually(lambda: Path(started).exists(), DEADLINE_S)
    [child] = worker.children()
    os.kill(child, signal.SIGSTOP)
    try:
        other = start_worker(ready=False)
        other.until_log("runs tasks of")
        # Longer than a sweep takes: whoever comes looks at once, and at what others do.
        for _ in range(3):
            assert wait(functions.add.enqueue(1), DEADLINE_S).return_value == 1
        assert fresh(result).status == TaskResultStatus.RUNNING
        Path(go).touch()
    finally:
        os.kill(child, signal.SIGCONT)
    assert (wait(result, DEADLINE_S).attempts, result.return_value) == (1, child)


def test_an_attempt_that_was_taken_away_writes_no_result(tasks: TaskSettings) -> None:
    queue = tasks.backend.queue
    result = functions.add.enqueue(1)
    [row] = queue.write(queue.claim(["default"], {False: 1, True: 1})) or []
    queue.write(lambda engine: lambda transaction: transaction.store.release_tasks(engine.client, transaction.now))
    outcome = Outcome(
        state=TaskState.SUCCESSFUL, errors=None, outcome=queue.succeeded(99, row).outcome, kept_until=1e12
    )
    assert queue.write(queue.finish(row, outcome)) is None
    assert fresh(result).status == TaskResultStatus.READY
    # Nor may it once the task was claimed again, be it by the same worker.
    queue.write(queue.take_untold())
    queue.write(queue.claim(["default"], {False: 1, True: 1}))
    assert queue.write(queue.finish(row, outcome)) is None
    assert fresh(result).status == TaskResultStatus.RUNNING


def test_deaths_and_exceptions_count_each_on_its_own(tasks: TaskSettings, tmp_path: Path) -> None:
    queue = tasks.backend.queue
    result = functions.unsteady.enqueue(str(tmp_path / "calls"), 1)
    for _ in range(2):
        assert queue.write(queue.claim(["default"], {False: 1, True: 1}))
        queue.write(lambda engine: lambda transaction: transaction.store.release_tasks(engine.client, transaction.now))
        queue.write(queue.take_untold())
    while fresh(result).status == TaskResultStatus.READY:
        run_tasks()
    row = tasks.backend.row(result.id)
    assert (result.return_value, row.attempts, row.failures, row.crashes) == ("at last", 4, 1, 2)


def test_the_end_is_told_once_of_a_task_whose_workers_died(tasks: TaskSettings) -> None:
    told: list[str] = []

    def receive(task_result: object, **kwargs: object) -> None:
        told.append(str(task_result))

    queue = tasks.backend.queue
    result = functions.add.enqueue(1)
    for _ in range(3):
        assert queue.write(queue.claim(["default"], {False: 1, True: 1}))
        queue.write(lambda engine: lambda transaction: transaction.store.release_tasks(engine.client, transaction.now))
        rows = queue.write(queue.take_untold())
        assert queue.write(queue.take_untold()) == []
    assert fresh(result).status == TaskResultStatus.FAILED
    task_finished.connect(receive)
    try:
        send_finished(queue, rows[0])
    finally:
        task_finished.disconnect(receive)
    assert len(told) == 1
    assert result.id in told[0]


KILL_EVERY_S = 0.5
ROUND_LIMIT_S = 120.0
ROUNDS = int(os.environ.get("CHANNELS_SQLITE_TASK_ROUNDS", "1"))


def storm(tasks: TaskSettings, workers: list[Worker], log: Path, *, count: int, seed: int) -> int:
    """Enqueue `count` tasks, kill a worker process at random every half second until all have finished, and judge what
    the tasks have noted; return how many were killed.
    """
    dice = random.Random(seed)
    results = functions.spans.enqueue_many([((str(log), str(number), 0.01), {}) for number in range(count)])
    killed: set[int] = set()  # their parents may not have noticed yet
    last = results[-1]  # when it has finished, the others have, or are under way
    end = time.monotonic() + ROUND_LIMIT_S
    while not _finishes_within(last, KILL_EVERY_S):
        assert time.monotonic() < end, f"{len(killed)} killed, and not all have finished"
        living = [pid for worker in workers for pid in worker.children() if pid not in killed]
        if living:
            victim = dice.choice(living)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
    for result in results:
        assert wait(result, 60).status == TaskResultStatus.SUCCESSFUL
    runs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        what, name, pid = line.split()
        runs[name].append((what, pid))
    for number, result in enumerate(results):
        seen = runs[str(number)]
        # Of two runs at a time the second would begin before the end of the first one, which then would end.
        ends = [at for at, (what, _) in enumerate(seen) if what == "end"]
        assert len(ends) >= 1
        for at in ends:
            assert seen[at - 1] == ("begin", seen[at][1]), (number, seen)
        row = tasks.backend.row(result.id)
        # Killed between the claim and the first line, an attempt leaves no line; between the last and the result, two.
        assert row.attempts == row.crashes + 1 >= len([what for what, _ in seen if what == "begin"])
    return len(killed)


def _finishes_within(result: AnyResult, seconds: float) -> bool:
    try:
        wait(result, seconds)
    except TimeoutError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout((ROUNDS + 1) * ROUND_LIMIT_S)
@pytest.mark.parametrize("rounds", [ROUNDS])
def test_workers_killed_at_random_lose_nothing(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path, rounds: int
) -> None:
    """`CHANNELS_SQLITE_TASK_ROUNDS=20` has the whole of it: 20 rounds of 500 tasks."""
    size = 500 if rounds > 1 else 200
    with task_settings(tasks.database, crash_attempts=1000):
        workers = [start_worker("--threads", "2", tasks=entry(crash_attempts=1000)) for _ in range(2)]
        killed = [storm(tasks, workers, tmp_path / f"log-{n}", count=size, seed=n) for n in range(rounds)]
    assert min(killed) >= 1, killed
