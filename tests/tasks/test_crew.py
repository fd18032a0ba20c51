"""Quick tasks share a thread and a transaction, and one that takes long holds up none of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from channels_sqlite.kinds import TaskState
from channels_sqlite.storage.tasks import Outcome
from channels_sqlite.tasks import wait
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, WorkerFactory, fresh, task_settings


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["none", "started", "held"])
def test_a_task_that_takes_long_holds_up_neither_what_ended_before_nor_what_comes_after(
    kind: str, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    """Claimed together: there are as many threads. With a `kind`, another thread has one that takes long, too."""
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    others = 0 if kind == "none" else 2
    for _ in range(others):
        functions.hold.using(priority=1 if kind == "started" else 0).enqueue(started, go)
    before = functions.add.enqueue(1)
    under_way = functions.hold.enqueue(started, go)
    after = [functions.add.enqueue(number) for number in range(5)]
    start_worker("--threads", str(others + 3))
    assert wait(before, DEADLINE_S).return_value == 1
    assert [wait(one, DEADLINE_S).return_value for one in after] == [0, 1, 2, 3, 4]
    assert fresh(under_way).status == "RUNNING"
    Path(go).touch()
    assert wait(under_way, DEADLINE_S).status == "SUCCESSFUL"


@pytest.mark.processes
def test_as_many_tasks_run_at_once_as_there_are_threads_though_quick_ones_share_one(
    start_worker: WorkerFactory, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    functions.add.enqueue_many([((number,), {}) for number in range(200)])
    held = functions.hold.enqueue_many([((started, go), {})] * 4)
    start_worker("--threads", "4")
    eventually(lambda: Path(started).exists() and len(Path(started).read_text().splitlines()) == 4, DEADLINE_S)
    Path(go).touch()
    assert len({wait(result, DEADLINE_S).return_value for result in held}) == 1


@pytest.mark.processes
def test_threads_whose_tasks_wait_long_go_on_side_by_side(start_worker: WorkerFactory, tmp_path: Path) -> None:
    log = tmp_path / "log"
    results = functions.spans.enqueue_many([((str(log), str(number), 0.01), {}) for number in range(60)])
    start_worker("--threads", "3")
    for result in results:
        assert wait(result, DEADLINE_S).attempts == 1
    running, at_once = 0, []
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("begin") else -1
        at_once.append(running)
    assert max(at_once) == 3


def test_an_end_makes_room_under_a_limit_for_what_is_claimed_with_it(tasks: TaskSettings) -> None:
    with task_settings(tasks.database, limits={"mail": 1}) as limited:
        first, second = functions.post.enqueue(1), functions.post.enqueue(2)
        queue = limited.backend.queue
        [claimed] = queue.write(queue.claim(["mail"], {False: 4})) or []
        assert claimed.key == first.id
        assert not queue.write(queue.claim(["mail"], {False: 4}))
        ended = Outcome(state=TaskState.SUCCESSFUL, errors=None, kept_until=time.time() + 60)
        ends = [(claimed, ended), (claimed, ended)]  # the second is of an attempt that is no more
        [finished, lost], next_claimed = queue.write(queue.finish_and_claim(ends, ["mail"], {False: 4}))
        assert finished is not None
        assert (finished.key, finished.state, lost) == (first.id, TaskState.SUCCESSFUL, None)
        assert [row.key for row in next_claimed or ()] == [second.id]
        nothing = queue.write(queue.finish_and_claim([], ["mail"], {False: 0}))
        assert nothing == ([], [])
