"""`channels_worker`: what it runs, and how it ends."""

from __future__ import annotations

import os
import signal
import time
from datetime import timedelta
from pathlib import Path
from statistics import median

import psutil
import pytest
from django.tasks import TaskResultStatus
from django.test import override_settings

from channels_sqlite.kinds import TaskState
from channels_sqlite.tasks import payloads, wait
from channels_sqlite.tasks.results import AnyResult, errors_of
from channels_sqlite.tasks.worker import Plan, Worker
from tests.facade.setup import NEVER_S
from tests.faults.support import write_lock
from tests.processes.evidence import query
from tests.support import inside
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, WorkerFactory, entry, fresh, task_settings

pytestmark = pytest.mark.processes

MEASURED_S = 4.0


def test_a_worker_runs_what_is_enqueued_and_what_came_before(start_worker: WorkerFactory) -> None:
    before = functions.add.enqueue(1, b=2)
    worker = start_worker()
    assert wait(before, DEADLINE_S).return_value == 3
    results: list[AnyResult] = [
        functions.add.enqueue(4, 5),
        functions.aadd.enqueue(4, b=6),
        functions.plain.enqueue(11),
        functions.post.enqueue(12),
    ]
    assert [wait(result, DEADLINE_S).return_value for result in results] == [9, 10, 11, 12]
    assert all(result.attempts == 1 for result in results)
    assert all(result.started_at and result.finished_at and result.last_attempted_at for result in results)
    worker.stop()
    for result in results:
        assert f"task {result.id} {result.task.module_path}: starts" in worker.log
        assert f"task {result.id} {result.task.module_path}: successful in 0." in worker.log


def test_what_fails_has_its_traceback(start_worker: WorkerFactory) -> None:
    start_worker()
    result = wait(functions.fail.enqueue("so it goes"), DEADLINE_S)
    assert result.status == TaskResultStatus.FAILED
    [error] = result.errors
    assert error.exception_class is ValueError
    assert "in fail" in error.traceback
    assert "so it goes" in error.traceback
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value


def test_whatever_a_task_raises_the_worker_goes_on(start_worker: WorkerFactory) -> None:
    worker = start_worker("--threads", "1")
    [child] = worker.children()
    for task in (functions.interrupt, functions.ainterrupt):
        for kind in ("KeyboardInterrupt", "SystemExit"):
            result = wait(task.enqueue(kind), DEADLINE_S)
            assert [error.exception_class_path for error in result.errors] == [f"builtins.{kind}"]
    unreturned = wait(functions.unreturnable.enqueue(), DEADLINE_S)
    assert unreturned.errors[0].exception_class is TypeError
    assert wait(functions.add.enqueue(1), DEADLINE_S).return_value == 1
    assert worker.children() == [child]


def test_order_is_priority_then_due_time_then_enqueueing(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    early, late = functions.utc_now() - timedelta(hours=2), functions.utc_now() + timedelta(milliseconds=300)
    results = {
        "second": functions.now.enqueue(),
        "third": functions.now.using(run_after=early).enqueue(),  # due when it was enqueued, not before
        "first": functions.now.using(priority=5).enqueue(),
        "last": functions.now.using(priority=-5).enqueue(),
        "fourth": functions.now.using(run_after=late).enqueue(),
    }
    eventually(lambda: functions.utc_now() > late, DEADLINE_S)
    worker = start_worker("--burst", "--threads", "1", ready=False)
    assert worker.wait() == 0
    ended = {name: fresh(result).return_value for name, result in results.items()}
    assert sorted(ended, key=lambda name: ended[name]) == ["first", "second", "third", "fourth", "last"]


def test_a_delayed_task_starts_within_a_second_of_its_time(start_worker: WorkerFactory) -> None:
    start_worker()
    due = functions.utc_now() + timedelta(seconds=0.8)
    result = functions.now.using(run_after=due).enqueue()
    assert result.status == TaskResultStatus.READY
    started = wait(result, DEADLINE_S).started_at
    assert started is not None
    assert timedelta(0) <= started - due < timedelta(seconds=1)


def test_an_idle_worker_is_woken_within_milliseconds(start_worker: WorkerFactory) -> None:
    start_worker(config={"polling_interval": NEVER_S})
    delays = []
    for _ in range(21):
        result = wait(functions.add.enqueue(1), DEADLINE_S)
        assert result.started_at is not None
        assert result.enqueued_at is not None
        delays.append((result.started_at - result.enqueued_at).total_seconds())
    assert median(delays) < 0.05


@pytest.mark.slow
def test_an_idle_worker_uses_no_measurable_cpu(start_worker: WorkerFactory) -> None:
    worker = start_worker()
    assert wait(functions.add.enqueue(1), DEADLINE_S).return_value == 1  # all is imported
    processes = [psutil.Process(pid) for pid in (worker.pid, *worker.children())]

    def used_s() -> float:
        times = [process.cpu_times() for process in processes]
        return sum(one.user + one.system for one in times)

    began, before = time.monotonic(), used_s()
    eventually(lambda: time.monotonic() - began >= MEASURED_S, DEADLINE_S)
    share = (used_s() - before) / (time.monotonic() - began)
    assert share < 0.01, f"{share:.1%} of a core"


@pytest.mark.slow
def test_results_past_retention_go_within_a_minute_while_a_worker_runs(
    tasks: TaskSettings, start_worker: WorkerFactory
) -> None:
    start_worker("--threads", "1", tasks=entry(success_retention=0))
    with task_settings(tasks.database, success_retention=0):
        functions.add.enqueue_many([((1,), {})] * 3)
        kept = functions.fail.enqueue("kept for two weeks")
        eventually(lambda: fresh(kept).status == TaskResultStatus.FAILED, DEADLINE_S)
    left = "SELECT key FROM channels_sqlite_queuedtask"
    eventually(lambda: query(tasks.database, left) == [(kept.id,)], 60)


def test_a_worker_runs_the_tasks_of_the_backend_that_it_is_given(
    tasks: TaskSettings, start_worker: WorkerFactory
) -> None:
    both = {**entry(), "second": entry()["default"]}
    with override_settings(TASKS=both):
        first = functions.add.enqueue(1)
        second = functions.add.using(backend="second").enqueue(2)
        worker = start_worker("--backend", "second", "--burst", tasks=both, ready=False)
        assert worker.wait() == 0
        assert fresh(second).return_value == 2
        assert fresh(first).status == TaskResultStatus.READY


@pytest.mark.slow
def test_reload_runs_new_code_and_what_was_under_way_ends(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    """Of an app that the parent process does not import."""
    app = tmp_path / "site" / "shop"
    app.mkdir(parents=True)
    (app / "__init__.py").touch()
    code = app / "tasks.py"

    def write(version: int) -> None:
        new = code.with_suffix(".new")
        new.write_text(RELOADED.format(version=version))
        # Files that were written in one tick of the clock would look alike.
        os.utime(new, (1_700_000_000 + version, 1_700_000_000 + version))
        new.replace(code)

    write(1)
    worker = start_worker("--reload", "--threads", "2", apps=["shop"], folder=app.parent)
    queue = tasks.backend.queue

    def enqueue(path: str, *args: object) -> str:
        new = queue.prepare(functions.add, args, {})._replace(path=path)
        queue.write(queue.enqueue([new]))
        return new.key

    def returned(key: str) -> object:
        eventually(lambda: tasks.backend.row(key).state == TaskState.SUCCESSFUL, DEADLINE_S)
        outcome = tasks.backend.row(key).outcome
        assert outcome is not None
        return payloads.decode(queue.codec, outcome)

    assert returned(enqueue("shop.tasks.version")) == 1
    under_way = enqueue("shop.tasks.hold", str(tmp_path / "started"), str(tmp_path / "go"))
    eventually((tmp_path / "started").exists, DEADLINE_S)
    version = 1

    def reloaded() -> bool:
        nonlocal version
        if worker.log.count("runs tasks of") > 1:
            return True
        version += 1  # the reloader may have looked at the file for the first time just now
        write(version)
        return False

    eventually(reloaded, DEADLINE_S)
    assert returned(enqueue("shop.tasks.version")) == version
    (tmp_path / "go").touch()
    assert returned(under_way) == 1


RELOADED = """
import time
from pathlib import Path
from channels_sqlite.tasks import task

@task
def version() -> int:
    return {version}

@task
def hold(started: str, go: str) -> int:
    Path(started).touch()
    while not Path(go).exists():
        time.sleep(0.005)
    return {version}
"""


def test_nothing_is_claimed_ahead_of_a_free_thread(start_worker: WorkerFactory, tmp_path: Path) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    results = [functions.hold.enqueue(started, go) for _ in range(4)]
    start_worker("--threads", "2")
    eventually(lambda: Path(started).exists() and len(Path(started).read_text().splitlines()) == 2, DEADLINE_S)
    assert sorted(fresh(result).status for result in results) == ["READY", "READY", "RUNNING", "RUNNING"]
    # Coroutine tasks have room of their own.
    assert wait(functions.aadd.enqueue(1), DEADLINE_S).return_value == 1
    Path(go).touch()
    for result in results:
        assert wait(result, DEADLINE_S).status == TaskResultStatus.SUCCESSFUL


def test_coroutine_tasks_share_one_loop_up_to_a_hundred_at_once(start_worker: WorkerFactory, tmp_path: Path) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    results = functions.ahold.enqueue_many([((started, go), {})] * 105)
    start_worker()
    eventually(lambda: Path(started).exists() and len(Path(started).read_text().splitlines()) >= 100, DEADLINE_S)
    states = [fresh(result).status for result in results]
    assert (states.count(TaskResultStatus.RUNNING), states.count(TaskResultStatus.READY)) == (100, 5)
    Path(go).touch()
    assert len({wait(result, DEADLINE_S).return_value for result in results}) == 1


def test_a_worker_serves_the_queues_that_it_is_given(start_worker: WorkerFactory) -> None:
    other = functions.add.enqueue(1)
    worker = start_worker("--queue", "mail")
    assert wait(functions.post.enqueue(3), DEADLINE_S).return_value == 3
    assert fresh(other).status == TaskResultStatus.READY
    worker.stop()


@pytest.mark.slow
def test_a_limit_holds_over_all_workers(tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path) -> None:
    log = tmp_path / "log"
    functions.spans.using(queue_name="mail").enqueue_many([((str(log), str(i), 0.02), {}) for i in range(20)])
    limited = entry(limits={"mail": 2})
    workers = [start_worker("--burst", tasks=limited, ready=False) for _ in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("begin") else -1
        most = max(most, running)
    assert (most, log.read_text().count("end")) == (2, 20)


@pytest.mark.slow
def test_burst_ends_when_nothing_is_due(start_worker: WorkerFactory) -> None:
    chain = functions.enqueue_more.enqueue(3)
    later = functions.add.using(run_after=functions.utc_now() + timedelta(hours=1)).enqueue(1)
    worker = start_worker("--burst", "--processes", "2", ready=False)
    assert worker.wait() == 0
    assert fresh(chain).status == TaskResultStatus.SUCCESSFUL
    assert worker.log.count("enqueue_more: successful") == 4
    assert fresh(later).status == TaskResultStatus.READY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_tasks_finish_and_starts_no_more(
    number: int, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker("--threads", "1")
    under_way = functions.hold.enqueue(started, go)
    coroutine = functions.ahold.enqueue(started, go)
    eventually(lambda: fresh(under_way).status == fresh(coroutine).status == TaskResultStatus.RUNNING, DEADLINE_S)
    worker.signal(number)
    not_claimed = functions.add.enqueue(1)
    Path(go).touch()
    assert worker.wait() == 0
    assert fresh(under_way).status == fresh(coroutine).status == TaskResultStatus.SUCCESSFUL
    assert fresh(not_claimed).status in {TaskResultStatus.READY, TaskResultStatus.SUCCESSFUL}


def test_a_second_signal_ends_at_once_and_counts_no_crash(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker()
    result = functions.hold.enqueue(started, go)
    eventually(lambda: fresh(result).status == TaskResultStatus.RUNNING, DEADLINE_S)
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() in {128 + signal.SIGINT, 128 + signal.SIGTERM}
    row = tasks.backend.row(result.id)
    assert (fresh(result).status, row.attempts, row.crashes) == (TaskResultStatus.READY, 1, 0)


@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_a_stopping_worker_whose_database_fails_ends_and_names_the_task(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path, kind: str
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker(options={"timeout": 0.5})
    result = (functions.hold if kind == "thread" else functions.ahold).enqueue(started, go)
    eventually(lambda: Path(started).exists(), DEADLINE_S)
    with write_lock(tasks.database.path):
        Path(go).touch()
        worker.until_log("writing what became of a task")  # and it goes on trying, as long as it is not stopped
        assert worker.running
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 1
        assert fresh(result).status == TaskResultStatus.RUNNING
    assert f"task {result.id} {result.task.module_path}: the worker stops, and what became of it" in worker.log
    start_worker()
    row = tasks.backend.row(wait(result, DEADLINE_S).id)
    assert (result.status, row.attempts, row.crashes) == (TaskResultStatus.SUCCESSFUL, 2, 1)


def test_a_killed_child_is_replaced_and_its_tasks_start_again(
    tasks: TaskSettings, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker()
    result = functions.hold.enqueue(started, go)
    eventually(lambda: Path(started).exists(), DEADLINE_S)
    [child] = worker.children()
    os.kill(child, signal.SIGKILL)
    worker.until_log(f"worker process {child} was killed by SIGKILL; another one takes its place")
    Path(go).touch()
    assert wait(result, DEADLINE_S).return_value != child
    row = tasks.backend.row(result.id)
    assert (result.attempts, row.crashes) == (2, 1)
    assert worker.children() != [child]


def test_children_end_with_a_killed_parent(start_worker: WorkerFactory) -> None:
    worker = start_worker("--processes", "2")
    worker.until_log("runs tasks of", 2)
    children = [psutil.Process(pid) for pid in worker.children()]
    worker.signal(signal.SIGKILL)
    worker.wait()
    _, alive = psutil.wait_procs(children, timeout=DEADLINE_S)
    assert alive == []


@pytest.mark.slow
def test_a_process_is_replaced_after_max_tasks(start_worker: WorkerFactory, tmp_path: Path) -> None:
    Path(tmp_path / "go").touch()
    arguments = (str(tmp_path / "started"), str(tmp_path / "go"))
    results = functions.hold.enqueue_many([(arguments, {})] * 5)
    worker = start_worker("--max-tasks", "2", "--burst", ready=False)
    assert worker.wait() == 0
    pids = [fresh(result).return_value for result in results]
    assert sorted(pids.count(pid) for pid in set(pids)) == [1, 2, 2]


@pytest.mark.slow
def test_a_child_that_cannot_start_is_replaced_after_a_pause(tasks: TaskSettings, start_worker: WorkerFactory) -> None:
    tasks.database.path.rename(tasks.database.path.with_suffix(".away"))
    worker = start_worker(ready=False)
    worker.until_log("the next one starts in 1 s")
    worker.until_log("does not exist")
    tasks.database.path.with_suffix(".away").rename(tasks.database.path)
    worker.until_log("runs tasks of")
    worker.stop()


def test_no_connection_of_djangos_is_held_across_tasks(start_worker: WorkerFactory) -> None:
    start_worker("--threads", "1")
    for _ in range(3):
        assert wait(functions.open_connections.enqueue(), DEADLINE_S).return_value == []


def test_a_transaction_that_a_task_leaves_open_ends_with_it(start_worker: WorkerFactory) -> None:
    start_worker("--threads", "1")
    assert wait(functions.leave_a_transaction_open.enqueue(), DEADLINE_S).status == TaskResultStatus.FAILED  # no table
    assert wait(functions.add.enqueue(1), DEADLINE_S).return_value == 1


def test_without_room_a_worker_sleeps_though_something_is_due(tasks: TaskSettings) -> None:
    plan = Plan(backend="default", queues=("default",), threads=1, burst=False, max_tasks=None)
    worker = Worker(tasks.backend, plan)
    try:
        due = functions.utc_now() + timedelta(milliseconds=50)
        functions.add.using(run_after=due).enqueue(1)
        eventually(lambda: functions.utc_now() > due, DEADLINE_S)
        inside.fill_worker(worker)
        assert inside.turn_of(worker) is None
        inside.fill_worker(worker, running=0)
        assert inside.turn_of(worker) == 0.0  # it has started one
    finally:
        inside.end_worker(worker)


@pytest.mark.slow
def test_ten_thousand_tasks_leave_nothing_behind(start_worker: WorkerFactory) -> None:
    start_worker("--threads", "2")
    for wave in (500, 0):
        last = functions.resources.enqueue()
        if wave:
            functions.add.enqueue_many([((1,), {})] * wave)
            functions.aadd.enqueue_many([((1,), {})] * wave)
            last = functions.resources.using(priority=-1).enqueue()
        before = wait(last, 100).return_value
    functions.add.enqueue_many([((1,), {})] * 5000)
    functions.aadd.enqueue_many([((1,), {})] * 5000)
    after = wait(functions.resources.using(priority=-1).enqueue(), 100).return_value
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 2
    assert after[2] <= before[2] + 20 * 1024


def test_a_task_whose_function_is_gone_fails_with_its_traceback(
    tasks: TaskSettings, start_worker: WorkerFactory
) -> None:
    results = []
    for path, name in [
        ("tests.tasks.functions.gone", "AttributeError"),
        ("tests.tasks.no_such_module.task", "ModuleNotFoundError"),
        ("tests.tasks.functions.not_a_task", "ImportError"),
    ]:
        queue = tasks.backend.queue
        new = queue.prepare(functions.add, [1], {})._replace(path=path)
        queue.write(queue.enqueue([new]))
        results.append((new.key, name))
    start_worker("--burst", ready=False).wait()
    for key, name in results:
        row = tasks.backend.row(key)
        [error] = errors_of(row, tasks.backend.queue.codec)
        assert (row.state, name in error.traceback) == (TaskState.FAILED, True), error.traceback
