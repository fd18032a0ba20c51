"""Tasks: what enqueueing, running and waiting cost, beside queues on SQLite and on PostgreSQL.

Each library's own worker command runs the tasks, in processes of its own. A task notes its start in a file, so that
nothing is read from the queue while it is measured. All wait for a signal before they run: every thread of every worker
is kept busy by a task that ends when everything else is enqueued.
"""

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import IO, Any

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import Player
from tests.benchmarks.stores import STORE_VARIABLE, Store

from .base import Accounts, Role, Scenario

__all__ = ["TASKS"]

_LAYERS = ("sqlite", "django-tasks-sqlite", "django-tasks-postgres", "huey", "huey-unsynced")
_START_LIMIT_S = 60.0
_END_LIMIT_S = 120.0
_STOP_LIMIT_S = 10.0
_LOOK_EVERY_S = 0.02
_WARM_UP = 10
_BATCH = 100
_RUN_SHARE = 10  # a tenth of the effort's messages: the slowest run 150 a second
_IDLE_PAUSE_S = 0.25
_LOAD_PAUSE_S = 0.01
_WRITERS = 4
_BESIDE = 100_000
_SETTLING = -2


# The worker processes


@contextmanager
def _workers(store: Store, folder: str, processes: int) -> Iterator[list[int]]:
    """Start the workers; yield their process ids, with those of their children, once all their threads are held."""
    from tests.benchmarks.task_app import tasks

    held = processes * store.threads
    for _ in range(held):
        tasks.enqueue_hold(folder)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.task_settings",
        STORE_VARIABLE: json.dumps(asdict(store)),
    }
    together = any("{processes}" in word for word in store.worker)
    command = [sys.executable, "-m", "django", *(word.format(processes=processes) for word in store.worker)]
    log = Path(folder) / "worker.out"
    started: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as output:
        try:
            for _ in range(1 if together else processes):
                started.append(_start(command, environment, output))  # noqa: PERF401  # those so far are ended, too
            _until(lambda: _lines(folder) >= held, _START_LIMIT_S, log)
            yield [pid for process in started for pid in _tree(process.pid)]
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
            for process in started:
                _end(process)


def _start(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start one, which is told to end with the process that measures, however that ends (where there is `setpriv`)."""
    setpriv = shutil.which("setpriv")
    return subprocess.Popen(
        command if setpriv is None else [setpriv, "--pdeathsig", "TERM", *command],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )


def _tree(pid: int) -> list[int]:
    import psutil

    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for its end; kill it with its children where that takes too long."""
    try:
        process.wait(_STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until(condition: Callable[[], bool], limit_s: float, log: Path) -> None:
    end_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end_s:
            words = log.read_text(errors="replace").strip()[-300:] if log.exists() else ""
            raise RuntimeError(f"the workers have not done it within {limit_s:g} s: {words}")
        time.sleep(_LOOK_EVERY_S)


def _noted(folder: str) -> list[tuple[int, int, int]]:
    """Return (identity, sent, started) of all that ran so far; the times are those of ``time.perf_counter_ns``."""
    lines = [line for path in Path(folder).glob("*.log") for line in path.read_text().splitlines(keepends=True)]
    noted = [line.split() for line in lines if line.endswith("\n")]
    return [(int(each), int(sent_ns), int(started_ns)) for each, sent_ns, started_ns in noted]


def _lines(folder: str) -> int:
    """Return how many starts were noted, whatever they are: cheap enough to ask while others are measured."""
    return sum(path.read_bytes().count(b"\n") for path in Path(folder).glob("*.log"))


def _ran(folder: str) -> list[tuple[int, int, int]]:
    return sorted(row for row in _noted(folder) if row[0] >= 0)


def _finish(folder: str, account: Account, before: int) -> None:
    """Wait until all that was sent has run beside the ``before`` of earlier, or time is over, and note what has."""
    expected = before + len(account.sent)
    try:
        _until(lambda: _lines(folder) >= expected, _END_LIMIT_S, Path(folder) / "worker.out")
    except RuntimeError as error:
        account.remark = str(error)
    rows = _ran(folder)
    account.received = [each for each, _, _ in rows]
    account.last_ns = max((started_ns for _, _, started_ns in rows), default=0)


# Any: what a role's work is given beside its folder.
def _in_thread(work: Callable[..., Account], *arguments: Any) -> Callable[[Player], Any]:
    """Return a role that works in a thread, with a folder for what tasks note: most calls are refused on a loop."""

    async def play(player: Player) -> Account:
        _require_tasks(player.store)
        with tempfile.TemporaryDirectory(prefix="tasks-") as folder:
            return await asyncio.to_thread(work, player, folder, *arguments)

    return play


def _require_tasks(store: Store) -> None:
    if store.library is None:
        raise RuntimeError("tasks need Django 6.0 or newer")


# Enqueueing


def _enqueue(player: Player, folder: str) -> Account:
    from tests.benchmarks.task_app import tasks

    return _enqueue_one_by_one(player, partial(tasks.enqueue, folder), stream=0)


def _enqueue_one_by_one(player: Player, enqueue: Callable[[int], None], *, stream: int) -> Account:
    """Enqueue as long as the effort lasts. A call that raises counts as lost."""
    account = Account()
    samples = account.samples_us.setdefault("call", [])
    for number in player.numbers():
        each = identity(stream, number)
        account.sent.append(each)
        start_ns = time.perf_counter_ns()
        try:
            enqueue(each)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is an error under load
            account.remark = f"{type(error).__name__}: {error}"
            continue
        account.last_ns = time.perf_counter_ns()
        account.first_ns = account.first_ns or start_ns
        samples.append((account.last_ns - start_ns) / 1000)
        account.received.append(each)
    return account


async def _enqueue_async(player: Player) -> Account:
    from tests.benchmarks.task_app import tasks

    _require_tasks(player.store)
    account = Account()
    samples = account.samples_us.setdefault("call", [])
    with tempfile.TemporaryDirectory(prefix="tasks-") as folder:
        for number in range(_WARM_UP):
            await tasks.aenqueue(folder, number)
        for number in player.numbers():
            account.sent.append(number)
            start_ns = time.perf_counter_ns()
            await tasks.aenqueue(folder, number)
            account.last_ns = time.perf_counter_ns()
            account.first_ns = account.first_ns or start_ns
            samples.append((account.last_ns - start_ns) / 1000)
            account.received.append(number)
    return account


def _enqueue_many(player: Player, folder: str) -> Account:
    from tests.benchmarks.task_app import tasks

    account = Account()
    samples = account.samples_us.setdefault("call", [])
    tasks.enqueue_many(folder, [_SETTLING])
    account.first_ns = time.perf_counter_ns()
    end_s = time.perf_counter() + player.effort.seconds
    for start in range(0, player.effort.messages, _BATCH):
        identities = list(range(start, start + _BATCH))
        start_ns = time.perf_counter_ns()
        tasks.enqueue_many(folder, identities)
        account.last_ns = time.perf_counter_ns()
        samples.append((account.last_ns - start_ns) / 1000)
        account.sent += identities
        account.received += identities
        if time.perf_counter() >= end_s:
            break
    return account


async def _write(player: Player) -> Account:
    """Enqueue beside the others, all at once."""
    from tests.benchmarks.task_app import tasks

    _require_tasks(player.store)
    with tempfile.TemporaryDirectory(prefix="tasks-") as folder:
        await asyncio.to_thread(tasks.enqueue, folder, _SETTLING)
        player.publish("ready")
        await player.wait_for("ready", _WRITERS)
        work = partial(_enqueue_one_by_one, player, partial(tasks.enqueue, folder), stream=player.index)
        return await asyncio.to_thread(work)


def _figures_of_calls(accounts: Accounts) -> dict[str, float]:
    players = next(iter(accounts.values()))
    done = sum(len(account.received) for account in players)
    first_ns = min((account.first_ns for account in players if account.first_ns), default=0)
    last_ns = max(account.last_ns for account in players)
    samples = [sample for account in players for sample in account.samples_us["call"]]
    return {
        "rate": done / max((last_ns - first_ns) / 1e9, 1e-9) if done else float("nan"),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }


# Running


def _run(player: Player, folder: str, processes: int) -> Account:
    from tests.benchmarks.task_app import tasks

    account = Account()
    with _workers(player.store, folder, processes):
        identities = list(range(player.effort.messages // _RUN_SHARE))
        for start in range(0, len(identities), _BATCH):
            tasks.enqueue_many(folder, identities[start : start + _BATCH])
        account.sent, before = identities, _lines(folder)
        account.first_ns = time.perf_counter_ns()
        (Path(folder) / "go").touch()
        _finish(folder, account, before)
    return account


def _figures_of_running(accounts: Accounts) -> dict[str, float]:
    [account] = accounts["queue"]
    seconds = (account.last_ns - account.first_ns) / 1e9
    return {"rate": len(set(account.received)) / seconds if account.received else float("nan")}


def _latency(player: Player, folder: str, pause_s: float) -> Account:
    """Enqueue at a steady pace; each task notes when it started."""
    from tests.benchmarks.task_app import tasks

    account = Account()
    with _workers(player.store, folder, 1):
        (Path(folder) / "go").touch()
        before = _lines(folder) + _WARM_UP
        for _ in range(_WARM_UP):
            tasks.enqueue(folder, _SETTLING)
        _until(lambda: _lines(folder) >= before, _END_LIMIT_S, Path(folder) / "worker.out")
        began_s = time.perf_counter()
        for number in itertools.count():
            due_s = began_s + (number + 1) * pause_s
            if due_s > began_s + player.effort.seconds:
                break
            time.sleep(max(0.0, due_s - time.perf_counter()))
            account.sent.append(number)
            tasks.enqueue(folder, number)
        _finish(folder, account, before)
        account.samples_us["latency"] = [(started - sent) / 1000 for _, sent, started in _ran(folder)]
    return account


def _figures_of_latency(accounts: Accounts) -> dict[str, float]:
    samples_ms = [sample / 1000 for sample in accounts["queue"][0].samples_us["latency"]]
    return {"p50": percentile(samples_ms, 50), "p99": percentile(samples_ms, 99)}


def _idle(player: Player, folder: str) -> Account:
    """Watch the CPU time of a worker with its children, and send it one task in the end."""
    import psutil

    from tests.benchmarks.task_app import tasks

    account = Account()

    def cpu_s(pids: Sequence[int]) -> float:
        times = [psutil.Process(pid).cpu_times() for pid in pids]
        return float(sum(each.user + each.system for each in times))

    with _workers(player.store, folder, 1) as pids:
        (Path(folder) / "go").touch()
        time.sleep(1.0)  # what follows the start of a worker is over
        start_s, start_cpu_s = time.perf_counter(), cpu_s(pids)
        time.sleep(player.effort.seconds)
        spent_s = cpu_s(pids) - start_cpu_s
        account.samples_us["cpu per second"] = [spent_s / (time.perf_counter() - start_s)]
        account.sent, before = [0], _lines(folder)
        tasks.enqueue(folder, 0)
        _finish(folder, account, before)
    return account


def _figures_of_idling(accounts: Accounts) -> dict[str, float]:
    return {"cpu": accounts["queue"][0].samples_us["cpu per second"][0]}


# Claims

_FILL = """
    INSERT INTO channels_sqlite_queuedtask
        (key, prefix, backend, queue, is_async, state, priority, due_at, path, payload, enqueued_at, failure_retention,
         kept_until, worker_ids, attempts, failures, crashes, max_crashes, last_start, ended, untold)
    WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < :rows)
    SELECT :state || '-' || n, 'asgi', 'default', :queue, 0, :state, 0, :due_at, 'a.b', x'80', :now, 86400,
        :kept_until, '[]', 0, 0, 0, 3, 0, 0, 0
    FROM counter
"""


def _store_beside(database: str) -> None:
    """Store 100,000 that are ready in another queue, delayed, and finished, each."""
    import sqlite3

    from channels_sqlite.kinds import TaskState

    now = time.time()
    with closing(sqlite3.connect(database, isolation_level=None, timeout=20)) as connection:
        for state, queue, due_at, kept_until in (
            (TaskState.READY, "another", now, None),
            (TaskState.DELAYED, "default", now + 86400, None),
            (TaskState.SUCCESSFUL, "default", now, now + 86400),
        ):
            values = {
                "rows": _BESIDE,
                "state": int(state),
                "queue": queue,
                "due_at": due_at,
                "kept_until": kept_until,
                "now": now,
            }
            connection.execute(_FILL, values)


def _claim(player: Player, folder: str, beside: bool) -> Account:
    """Enqueue a task and claim it, again and again, as a worker does it; each ends before the next."""
    from channels_sqlite.kinds import TaskState
    from channels_sqlite.storage.tasks import Outcome
    from channels_sqlite.tasks.backend import backend_of
    from tests.benchmarks.task_app import tasks

    account = Account()
    samples = account.samples_us.setdefault("call", [])
    if beside:
        _store_beside(str(player.store.lockable))  # first: the last one who closes the file empties its log
    tasks.enqueue(folder, _SETTLING)
    queue = backend_of("default").queue
    ended = Outcome(state=TaskState.SUCCESSFUL, errors=None, kept_until=time.time() + 86400)
    for row in queue.write(queue.claim(["default"], {False: 1})) or ():
        queue.write(queue.finish(row, ended))
    for number in player.numbers():
        account.sent.append(number)
        start_ns = time.perf_counter_ns()
        tasks.enqueue(folder, number)
        queue.read(queue.look(["default"], [False]))
        claimed = queue.write(queue.claim(["default"], {False: 1})) or ()
        account.last_ns = time.perf_counter_ns()
        account.first_ns = account.first_ns or start_ns
        samples.append((account.last_ns - start_ns) / 1000)
        for row in claimed:
            account.received.append(number)
            queue.write(queue.finish(row, ended))
    return account


_CALLS = (
    Metric(key="rate", title="rate", unit="tasks/s", higher_is_better=True),
    Metric(key="p50", title="call p50", unit="us"),
    Metric(key="p99", title="call p99", unit="us"),
)
_LATENCIES = (
    Metric(key="p50", title="enqueue to start, p50", unit="ms"),
    Metric(key="p99", title="enqueue to start, p99", unit="ms"),
)
_CLAIMS = (
    Metric(key="p50", title="enqueue, look and claim, p50", unit="us"),
    Metric(key="rate", title="with the end, rate", unit="tasks/s", higher_is_better=True),
    Metric(key="p99", title="enqueue, look and claim, p99", unit="us"),
)


# Any: each is passed on as it is.
def _make(key: str, title: str, play: Callable[[Player], Any], **more: Any) -> Scenario:
    values: dict[str, Any] = {
        "roles": (Role(name="queue", play=play, count=more.pop("count", 1), opens=False),),
        "layers": _LAYERS,
        "start_limit_s": _START_LIMIT_S + _END_LIMIT_S,
        **more,
    }
    return Scenario(key=f"tasks-{key}", title=title, of_tasks=True, in_quick=False, **values)


TASKS = (
    _make(
        "enqueue",
        "Enqueue tasks from a thread",
        _in_thread(_enqueue),
        metrics=_CALLS,
        figures=_figures_of_calls,
    ),
    _make(
        "enqueue-async",
        "Enqueue tasks from an event loop, one after another",
        _enqueue_async,
        metrics=_CALLS,
        figures=_figures_of_calls,
    ),
    _make(
        "enqueue-many",
        f"Enqueue {_BATCH} tasks at a time",
        _in_thread(_enqueue_many),
        metrics=_CALLS,
        figures=_figures_of_calls,
    ),
    _make(
        "enqueue-4-writers",
        f"{_WRITERS} processes enqueue at once",
        _write,
        count=_WRITERS,
        metrics=_CALLS,
        figures=_figures_of_calls,
    ),
    *(
        _make(
            f"run-{processes}",
            f"Run tasks in {processes} worker process{'es' if processes > 1 else ''}",
            _in_thread(_run, processes),
            metrics=(Metric(key="rate", title="rate", unit="tasks/s", higher_is_better=True),),
            figures=_figures_of_running,
        )
        for processes in (1, 2, 4)
    ),
    _make(
        "latency-idle",
        "A task every quarter of a second, one worker process",
        _in_thread(_latency, _IDLE_PAUSE_S),
        metrics=_LATENCIES,
        figures=_figures_of_latency,
        stretch=5.0,
    ),
    _make(
        "latency-load",
        "100 tasks a second, one worker process",
        _in_thread(_latency, _LOAD_PAUSE_S),
        metrics=_LATENCIES,
        figures=_figures_of_latency,
        stretch=2.5,
    ),
    _make(
        "idle",
        "A worker process with nothing to do",
        _in_thread(_idle),
        metrics=(Metric(key="cpu", title="CPU", unit="s/s"),),
        figures=_figures_of_idling,
        stretch=5.0,
    ),
    _make(
        "claim",
        "Enqueue and claim a task",
        _in_thread(_claim, False),
        layers=("sqlite",),
        metrics=_CLAIMS,
        figures=_figures_of_calls,
    ),
    _make(
        "claim-beside",
        "Enqueue and claim a task, beside 100,000 delayed, 100,000 of another queue and 100,000 finished ones",
        _in_thread(_claim, True),
        layers=("sqlite",),
        base="tasks-claim",
        metrics=_CLAIMS,
        figures=_figures_of_calls,
    ),
)
