"""`channels_worker --verbosity`: what it says of its work, on a terminal and elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from channels_sqlite.kinds import TaskState
from channels_sqlite.tasks.status_line import ERASE, LOG_EVERY_S, REWRITE_S, Ends, Seen, StatusLine, tell_end
from tests.support.waiting import eventually
from tests.tasks import functions
from tests.tasks.setup import DEADLINE_S, TaskSettings, WorkerFactory


class Terminal:
    """A terminal of which the test is the screen."""

    def __init__(self) -> None:
        self._screen, self.descriptor = pty.openpty()
        os.set_blocking(self._screen, False)
        self._printed = b""

    @property
    def printed(self) -> str:
        """Everything so far."""
        with suppress(BlockingIOError, OSError):  # nothing new; nobody prints any more
            while more := os.read(self._screen, 65536):
                self._printed += more
        return self._printed.decode()

    @property
    def line(self) -> str:
        """What stands in the line where the cursor is."""
        return self.printed.rpartition(ERASE)[2]

    def close(self) -> None:
        os.close(self._screen)
        os.close(self.descriptor)


@pytest.fixture
def terminal(no_leaks: None) -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


class Screen(io.StringIO):
    """A terminal's stream."""

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.processes
def test_on_a_terminal_one_line_is_kept_up_to_date(
    start_worker: WorkerFactory, terminal: Terminal, tmp_path: Path
) -> None:
    started, go = str(tmp_path / "started"), str(tmp_path / "go")
    worker = start_worker("--verbosity", "2", "--threads", "1", terminal=terminal.descriptor, ready=False)
    eventually(lambda: terminal.line.startswith("0 waiting, 0 running, 0 done, 0 failed, 0.0/s"), DEADLINE_S)
    for _ in range(2):
        functions.hold.enqueue(started, go)
    eventually(lambda: terminal.line.startswith("1 waiting, 1 running, 0 done, 0 failed, 0.0/s"), DEADLINE_S)
    functions.fail.enqueue("of this test")
    eventually(lambda: terminal.line.startswith("2 waiting, 1 running, 0 done"), DEADLINE_S)
    Path(go).touch()
    eventually(lambda: terminal.line.startswith("0 waiting, 0 running, 2 done, 1 failed, "), DEADLINE_S)
    # In place: no line was ended, and none tells of a task.
    assert "\n" not in terminal.printed
    assert terminal.printed.count(ERASE) >= 4  # one for each of the texts above; how many more is a matter of time
    assert "starts" not in terminal.printed
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    eventually(lambda: terminal.printed.endswith("/s\r\n"), DEADLINE_S)
    assert re.fullmatch(r"0 waiting, 0 running, 2 done, 1 failed, \d+\.\d/s\r\n", terminal.line)


@pytest.mark.processes
def test_troubles_are_written_over_the_line(start_worker: WorkerFactory, terminal: Terminal) -> None:
    worker = start_worker("--verbosity", "2", "--threads", "1", terminal=terminal.descriptor, ready=False)
    result = functions.kill_worker.enqueue()
    eventually(lambda: "was killed by SIGKILL; another one takes its place" in terminal.printed, DEADLINE_S)
    eventually(lambda: f"{result.id} tests.tasks.functions.kill_worker failed" in terminal.printed, DEADLINE_S)
    eventually(lambda: re.match(r"0 waiting, 0 running, 0 done, 1 failed", terminal.line), DEADLINE_S)
    for line in terminal.printed.split("\n")[:-1]:  # each complete one is one of the log's, from its beginning on
        assert re.match(r"\d{4}-\d\d-\d\d [\d:,]+ (WARNING|ERROR) ", line.rpartition(ERASE)[2])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


@pytest.mark.processes
def test_without_a_terminal_the_log_has_a_line_now_and_then(start_worker: WorkerFactory) -> None:
    functions.add.enqueue_many([((1,), {})] * 3)
    failing = functions.fail.enqueue("of this test")
    worker = start_worker("--verbosity", "2", "--burst", ready=False)
    assert worker.wait() == 0
    lines = re.findall(r"INFO (\d+ waiting, .+)", worker.log)
    assert lines[0] == "4 waiting, 0 running, 0 done, 0 failed, 0.0/s"
    assert re.fullmatch(r"0 waiting, 0 running, 3 done, 1 failed, \d+\.\d/s", lines[-1])
    assert f"task {failing.id} tests.tasks.functions.fail: failed" in worker.log
    assert ERASE not in worker.log


@pytest.mark.processes
@pytest.mark.parametrize("verbosity", ["0", "1"])
def test_otherwise_there_is_no_such_line_and_troubles_are_told(start_worker: WorkerFactory, verbosity: str) -> None:
    functions.add.enqueue(1)
    killing = functions.kill_worker.enqueue()
    worker = start_worker("--verbosity", verbosity, "--burst", ready=False)
    assert worker.wait() == 0
    assert "waiting, " not in worker.log
    assert ("functions.add: starts" in worker.log) == (verbosity == "1")
    assert f"{killing.id} tests.tasks.functions.kill_worker failed: its workers died 3 times" in worker.log


def test_the_line_is_said_again_only_after_a_while() -> None:
    for stream, pause_s in ((Screen(), REWRITE_S), (io.StringIO(), LOG_EVERY_S)):
        looks: list[float] = []
        clock = Clock()

        def look(looks: list[float] = looks, clock: Clock = clock) -> Seen:
            looks.append(clock.now)
            return Seen(1, 2)

        status = StatusLine(look, None, stream, clock)
        for passed in (0, 0.1, pause_s - 0.01, pause_s, pause_s + 0.1, 2 * pause_s):
            clock.now = 1000 + passed
            status.tick()
        assert looks == [1000, 1000 + pause_s, 1000 + 2 * pause_s]
        status.close()


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock, screen, ends = Clock(), Screen(), Ends()
    status = StatusLine(lambda: Seen(0, 0), ends, screen, clock)

    def line_after(seconds: float, done: int) -> str:
        for _ in range(done):
            tell_end(ends.writing, TaskState.SUCCESSFUL)
        clock.now += seconds
        status.tick()
        return screen.getvalue().rpartition(ERASE)[2]

    assert line_after(5, 10) == "0 waiting, 0 running, 10 done, 0 failed, 2.0/s"
    assert line_after(5, 30) == "0 waiting, 0 running, 40 done, 0 failed, 4.0/s"
    assert line_after(5, 0) == "0 waiting, 0 running, 40 done, 0 failed, 3.0/s"  # 30 in the last 10 s
    assert line_after(20, 0).endswith(" 0.0/s")
    status.close()


def test_a_line_fits_into_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen()
    status = StatusLine(lambda: Seen(123456, 123456), None, screen)
    status.tick()
    assert screen.getvalue() == f"{ERASE}123456 waiting, 123"
    status.close()


def test_a_database_that_cannot_be_read_ends_nothing() -> None:
    screen = Screen()
    status = StatusLine(lambda: None, None, screen)
    status.tick()
    assert screen.getvalue() == f"{ERASE}the database cannot be read"
    status.close()


def test_nobody_waits_for_a_parent_that_does_not_read() -> None:
    ends = Ends()
    for _ in range(200_000):  # more than a pipe takes
        tell_end(ends.writing, TaskState.FAILED)
    tell_end(ends.writing, TaskState.DELAYED)  # starts again: that is no end
    done, failed = ends.take()
    assert done == 0
    assert 0 < failed < 200_000
    assert ends.take() == (0, 0)
    ends.close()


def test_what_is_counted_are_the_queues_of_the_command(tasks: TaskSettings) -> None:
    from channels_sqlite.tasks.status_line import look_at_queues

    functions.add.enqueue(1)
    functions.aadd.enqueue(1)
    functions.post.enqueue(1)
    late = functions.utc_now()
    functions.post.using(run_after=late.replace(year=late.year + 1)).enqueue(1)
    assert look_at_queues(tasks.backend, ["default"]) == Seen(2, 0)
    assert look_at_queues(tasks.backend, ["default", "mail"]) == Seen(3, 0)
    queue = tasks.backend.queue
    queue.write(queue.claim(["mail"], {False: 1}))
    assert look_at_queues(tasks.backend, ["mail"]) == Seen(0, 1)
    tasks.database.path.rename(tasks.database.path.with_suffix(".away"))
    try:
        assert look_at_queues(tasks.backend, ["mail"]) is None
    finally:
        tasks.database.path.with_suffix(".away").rename(tasks.database.path)
