"""Many processes for the price of one start: a fresh interpreter imports everything once and forks the workers.

The fork comes before any layer is made, so that the workers share nothing but code. (What forks do to a layer in use
is the subject of `test_forks.py`.) Each worker runs one function of `children.py` with a `Parent` of its own.
"""

import asyncio
import ctypes
import importlib
import inspect
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import psutil

from tests.support.child import Parent
from tests.support.processes import HEAR_DEADLINE_S, ChildProcess, ProcessFactory
from tests.support.waiting import eventually

Work = tuple[Callable[..., object], dict[str, object]]
"""A function of a worker and its arguments."""

PR_SET_PDEATHSIG = 1
HOST = -1
"""The number under which the process that forks the workers speaks."""

START_DEADLINE_S = 30.0


class WorkerParent(Parent):
    """What a worker knows about the test: what it says goes out under its number."""

    def __init__(self, parent: Parent, number: int) -> None:
        super().__init__(parent.job, parent.to_test)
        self._number = number

    def say(self, value: object) -> None:
        # One write of less than PIPE_BUF: workers do not tear each other's lines.
        super().say([self._number, value])


def run_workers(parent: Parent, *, functions: list[str], arguments: list[dict[str, object]]) -> None:
    """Fork a worker for each function, and pass on to them what the test says, until it says no more."""
    inputs: list[int] = []
    pids: list[int] = []
    for number, (name, given) in enumerate(zip(functions, arguments, strict=True)):
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            for inherited in (*inputs, writable):
                os.close(inherited)
            os.dup2(readable, sys.stdin.fileno())
            os.close(readable)
            _work(WorkerParent(parent, number), name, given)
        os.close(readable)
        inputs.append(writable)
        pids.append(pid)
    parent.say([HOST, pids])
    while True:
        try:
            numbers, line = parent.hear()
        except EOFError:
            break
        for number in numbers:
            try:
                os.write(inputs[number], line.encode() + b"\n")
            except BrokenPipeError:
                # The test killed it.
                pass
    for writable in inputs:
        os.close(writable)
    for pid in pids:
        os.waitpid(pid, 0)


def _work(parent: WorkerParent, name: str, arguments: dict[str, object]) -> None:
    """Run one worker; does not return."""
    status = 1
    try:
        if sys.platform == "linux":
            # No worker outlives a test that failed.
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        module, _, function_name = name.partition(":")
        function = getattr(importlib.import_module(module), function_name)
        if inspect.iscoroutinefunction(function):
            asyncio.run(_run(parent, function, arguments))
        else:
            function(parent, **arguments)
        status = 0
    except BaseException:  # noqa: BLE001  # the last frame of the worker: nothing above it may run in the fork
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def _run(parent: WorkerParent, function: Callable[..., Any], arguments: dict[str, object]) -> None:
    try:
        await function(parent, **arguments)
    except EOFError:
        # The test is done with it.
        pass
    finally:
        await parent.close_layers()


class Worker:
    """One worker, as it can be suspended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def suspend(self) -> None:
        """SIGSTOP, and wait until it has come to a stop: on another core it goes on for a moment."""
        os.kill(self.pid, signal.SIGSTOP)
        eventually(lambda: psutil.Process(self.pid).status() == psutil.STATUS_STOPPED, START_DEADLINE_S)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)


class Herd:
    """The workers, as the test sees them: by number, in the order in which they were given."""

    def __init__(self, host: ChildProcess, size: int) -> None:
        self._host = host
        self._said: list[list[Any]] = [[] for _ in range(size)]
        self.pids: list[int] = []

    async def start(self) -> None:
        """Wait until all have been forked; workers may speak before that."""
        while not self.pids:
            speaker, value = await self._host.ahear(START_DEADLINE_S)
            if speaker == HOST:
                self.pids = value
            else:
                self._said[speaker].append(value)

    def tell(self, line: str, *numbers: int) -> None:
        """Say `line` to these workers, or to all."""
        self._host.say([list(numbers) or list(range(len(self._said))), f'"{line}"'])

    async def hear(self, number: int, deadline_s: float = HEAR_DEADLINE_S) -> Any:
        """The next value that one worker says."""
        while not self._said[number]:
            speaker, value = await self._host.ahear(deadline_s)
            self._said[speaker].append(value)
        return self._said[number].pop(0)

    async def hear_each(self, *numbers: int, deadline_s: float = HEAR_DEADLINE_S) -> list[Any]:
        """The next value of each of these workers, or of all."""
        return [await self.hear(number, deadline_s) for number in numbers or range(len(self._said))]

    def signal(self, number: int, which: signal.Signals) -> None:
        os.kill(self.pids[number], which)

    def worker(self, number: int) -> "Worker":
        """One worker, to be suspended."""
        return Worker(self.pids[number])

    def finish(self, deadline_s: float = 15.0) -> None:
        """Let all workers end, and wait until they have."""
        self._host.finish_input()
        self._host.wait(deadline_s)


async def start_herd(start_process: ProcessFactory, work: list[Work], **options: Any) -> Herd:
    """Start a worker for each of `work`; `options` go to `start_process`."""
    host = start_process(
        run_workers,
        functions=[f"{function.__module__}:{function.__qualname__}" for function, _ in work],
        arguments=[arguments for _, arguments in work],
        **options,
    )
    herd = Herd(host, len(work))
    await herd.start()
    return herd
