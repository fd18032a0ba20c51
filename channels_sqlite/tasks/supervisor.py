"""The parent of worker processes: starts them, replaces those that die, and releases what those were running at once.

Each child has a pipe from its parent: a line there, or its end, which comes with the parent's death as well, ends the
child after the tasks in hand. Children take no SIGINT, which a terminal sends to all, and SIGTERM as such a line.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import FrameType
from typing import IO, Any

from channels_sqlite.concurrency.timed_queue import TimedQueue
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.processes.liveness import is_dead, machine_id, remove_traces
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.tasks.aside import opened_store
from channels_sqlite.tasks.backend import SqliteTaskBackend, backend_of
from channels_sqlite.tasks.status_line import ERASE, StatusLine
from channels_sqlite.tasks.worker import MAX_TASKS_REACHED, UNWRITTEN, Plan, Worker

__all__ = ["Logging", "Supervisor", "run_child", "set_up_logging"]

logger = logging.getLogger(__name__)

LOOK_S = 0.5  # how often signals are looked for at least
EARLY_S = 5.0  # a child that fails sooner is replaced after a pause
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
PROGRAM = """
import json, sys
plan, log, sys.path[:] = map(json.loads, sys.argv[1:])
import django
django.setup()
from channels_sqlite.tasks.supervisor import run_child
sys.exit(run_child(plan, log))
"""


@dataclass(frozen=True, kw_only=True)
class Logging:
    """What is logged where the project's LOGGING says nothing of it."""

    quiet: bool = False  # troubles alone
    over_status: bool = False  # on a terminal where a status line stands


@dataclass
class Child:
    """One process."""

    process: subprocess.Popen[bytes]
    started_at: float  # monotonic


class Supervisor:
    """Keeps `processes` workers alive."""

    def __init__(
        self,
        backend: SqliteTaskBackend,
        plan: Plan,
        processes: int,
        log: Logging,
        status: StatusLine | None = None,
    ) -> None:
        """`log`: what the children log; `status`: says from time to time how things stand."""
        self._backend = backend
        self._plan = plan
        self._processes = processes
        self._log = log
        self._status = status
        self._children: dict[int, Child] = {}
        self._ended: TimedQueue[Child | None] = TimedQueue()
        self._signals: list[int] = []
        self._replacements: list[float] = []  # monotonic times at which one is started
        self._pause_s = FIRST_PAUSE_S
        self._code = 0

    def run(self) -> int:
        """Work until all have ended; return the exit code."""
        replaced = self._take_signals()
        try:
            for _ in range(self._processes):
                self._start()
            while self._children or self._replacements:
                if self._status is not None:
                    self._status.tick()
                self._turn()
                if len(self._signals) > 1:
                    self._end_at_once()
                    return 128 + self._signals[-1]
        finally:
            for child in list(self._children.values()):  # an error of this parent's own
                _tell_to_stop(child)
            for number, handler in replaced.items():
                signal.signal(number, handler)
            if self._status is not None:
                self._status.close()
        return self._code

    def _take_signals(self) -> dict[int, Callable[[int, FrameType | None], object] | int | None]:
        if threading.current_thread() is not threading.main_thread():  # with --reload, which takes them itself
            return {}
        return {number: signal.signal(number, self._signalled) for number in (signal.SIGTERM, signal.SIGINT)}

    def _signalled(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)
        self._ended.put(None)

    def _turn(self) -> None:
        """Wait for an end, a signal, or the time of a replacement, and do what it asks for."""
        # Never for ever: a signal that comes right before the wait begins does not interrupt it.
        try:
            ended = self._ended.get(min([time.monotonic() + LOOK_S, *self._replacements]))
        except queue.Empty:
            ended = None
        if self._signals:
            self._replacements.clear()
            for child in list(self._children.values()):
                _tell_to_stop(child)
        if ended is not None:
            self._after(ended)
        now = time.monotonic()
        due = [at for at in self._replacements if at <= now]
        self._replacements = [at for at in self._replacements if at > now]
        for _ in due:
            self._start()

    def _start(self) -> None:
        command = [
            sys.executable,
            *_interpreter_flags(),
            "-c",
            PROGRAM,
            *map(json.dumps, (asdict(self._plan), asdict(self._log), sys.path)),
        ]
        passed = () if self._plan.ends is None else (self._plan.ends,)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=passed)
        child = Child(process, time.monotonic())
        self._children[process.pid] = child
        threading.Thread(target=self._watch, args=(child,), name="channels-worker-watch", daemon=True).start()

    def _watch(self, child: Child) -> None:
        child.process.wait()
        self._ended.put(child)

    def _after(self, child: Child) -> None:
        code = child.process.returncode
        pid = child.process.pid
        self._children.pop(pid, None)
        _close_pipe(child)
        if code == 0 and (self._signals or self._plan.burst):
            return
        if code in (0, MAX_TASKS_REACHED):
            self._pause_s = FIRST_PAUSE_S
            if not self._signals:
                self._replacements.append(0.0)
            return
        early = time.monotonic() - child.started_at < EARLY_S
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        logger.error("worker process %d %s%s", pid, how, "" if self._signals else "; another one takes its place")
        bury(self._backend, pid, counted=True)
        if self._signals:
            if code == UNWRITTEN:
                self._code = 1
            return
        pause_s = self._pause_s if early and code > 0 else 0.0
        if pause_s:
            self._pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            logger.error("it did so within %.0f s of its start; the next one starts in %.0f s", EARLY_S, pause_s)
        else:
            self._pause_s = FIRST_PAUSE_S
        self._replacements.append(time.monotonic() + pause_s)

    def _end_at_once(self) -> None:
        for child in self._children.values():
            child.process.kill()
        for child in list(self._children.values()):
            child.process.wait()
            _close_pipe(child)
            bury(self._backend, child.process.pid, counted=False)
        self._children.clear()


def _tell_to_stop(child: Child) -> None:
    _close_pipe(child)


def _close_pipe(child: Child) -> None:
    pipe: IO[bytes] | None = child.process.stdin
    if pipe is not None:
        with suppress(OSError):
            pipe.close()


def _interpreter_flags() -> list[str]:
    options = [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]  # noqa: SLF001  # there is no other way
    return [*(f"-W{option}" for option in sys.warnoptions), *options]


def bury(backend: SqliteTaskBackend, pid: int, *, counted: bool) -> None:
    """Release what a dead child was running, without waiting for the sweep; `counted`: as a crash. Never raises."""
    try:
        with opened_store(backend) as (store, connection):
            path: str = connection.execute("PRAGMA database_list").fetchone()[2]
            place = MeetingPlace(path, make=False)
            here = machine_id()
            store.begin()
            dead = [row for row in store.processes() if row.pid == pid and row.machine == here and is_dead(row, place)]
            for row in dead:
                store.release_tasks(row.client, time.time(), counted=counted)
                store.forget(row.client, row.cursor)
            store.commit()
            for row in dead:
                remove_traces(row, place)
    except Exception as error:  # noqa: BLE001  # the sweep of any other process does it
        logger.warning("what process %d was running is released by the next sweep: %s", pid, error)


def run_child(plan_values: Mapping[str, Any], log_values: Mapping[str, bool]) -> int:  # Any: JSON
    """Be a worker process, started by a supervisor; return the exit code."""
    plan = Plan(**{**plan_values, "queues": tuple(plan_values["queues"])})
    set_up_logging(Logging(**log_values))
    if plan.ends is not None:
        os.set_inheritable(plan.ends, False)  # what tasks start has nothing to tell
    worker = Worker(backend_of(plan.backend), plan)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    orders = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # tasks that read there find its end
    os.close(nothing)
    threading.Thread(
        target=_wait_for_order, args=(orders, worker.stop), name="channels-worker-orders", daemon=True
    ).start()
    try:
        return worker.run()
    except ChannelDatabaseError as error:
        logger.error("the worker cannot work: %s", error)  # noqa: TRY400  # it says what to do
        return 1


def _wait_for_order(orders: int, stop: Callable[[], object]) -> None:
    os.read(orders, 1)
    stop()


def set_up_logging(chosen: Logging) -> None:
    """Show what workers do, where the project's LOGGING says nothing of it."""
    package = logging.getLogger("channels_sqlite")
    if not package.hasHandlers():
        handler = logging.StreamHandler()
        before = ERASE if chosen.over_status else ""
        handler.setFormatter(logging.Formatter(f"{before}%(asctime)s %(levelname)s %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.WARNING if chosen.quiet else logging.INFO)
