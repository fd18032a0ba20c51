"""Programs that tests start: servers and commands, with their output in a file and every one ended in the end."""

import random
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from tests.support.waiting import eventually

HOST = "127.0.0.1"
READY_DEADLINE_S = 60.0
END_DEADLINE_S = 15.0


SERVED_PORTS = range(10_000, 32_768)
"""Not those that systems give to whoever connects: such a connection may take the port before its server does, and one
that looks whether a server is there yet may be connected with itself."""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        port = random.choice(SERVED_PORTS)  # other tests look for one as well
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


class Program:
    """A process with its output in a file. Signals go to this very process, by its pid."""

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def prints(self, text: str, deadline_s: float = READY_DEADLINE_S) -> str:
        """Wait until `text` is in the output; return all of the output."""
        eventually(lambda: text in self.output or self.process.poll() is not None, deadline_s, what=f"{text!r} printed")
        assert text in self.output, f"ended with {self.process.returncode}, having printed:\n{self.output}"
        return self.output

    def terminate(self) -> int:
        """SIGTERM; return the exit code. Raises AssertionError when the process does not end by itself."""
        self.process.terminate()
        return self.wait()

    def wait(self, deadline_s: float = END_DEADLINE_S) -> int:
        """Return the exit code, once the process has ended by itself. Raises AssertionError when it does not."""
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {deadline_s:g} s; output:\n{self.output}") from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(END_DEADLINE_S)


class Started:
    """Programs that a test started; none is left running after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._programs: list[Program] = []

    def __call__(self, *command: str, folder: Path, environment: dict[str, str]) -> Program:
        log = self._folder / f"program-{len(self._programs)}.log"
        self._programs.append(Program(command, folder, environment, log))
        return self._programs[-1]

    def end(self) -> None:
        for program in self._programs:
            for process in family(program):
                process.kill()
            program.process.wait(10)


def family(program: Program) -> list[psutil.Process]:
    """The process itself, while it runs, and all that descend from it."""
    try:
        process = psutil.Process(program.process.pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def runs(process: psutil.Process) -> bool:
    """Whether any thread of a process has not ended yet.

    One whose first thread has ended looks like a zombie, while another is still in a system call that writes to the
    disk, for seconds on a busy machine. Its sockets are open until then, and take connections that nobody serves.
    """
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False
