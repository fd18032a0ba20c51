"""The example, served by real processes from databases of its own."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import channels_sqlite
from tests.support.processes import ROOT
from tests.support.waiting import eventually

EXAMPLE = ROOT / "example"
HOST = "127.0.0.1"
READY_DEADLINE_S = 60.0
END_DEADLINE_S = 15.0


def example_environment(data: Path) -> dict[str, str]:
    """Variables with which a process runs the example with its databases in `data`, and this very package."""
    package = Path(channels_sqlite.__file__).resolve().parents[1]
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "EXAMPLE_DATA_DIR": str(data),
        "PYTHONPATH": str(package),
        "PYTHONUNBUFFERED": "1",
    }


def manage(*arguments: str, data: Path) -> None:
    """Run a management command of the example to its end."""
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=EXAMPLE, env=example_environment(data), check=True, timeout=60)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
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

    def wait(self) -> int:
        try:
            return self.process.wait(END_DEADLINE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {END_DEADLINE_S:g} s; output:\n{self.output}") from None

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(END_DEADLINE_S)


class Server:
    """One daphne process of the example, on a port that it keeps when it is started again."""

    def __init__(self, data: Path, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._data = data
        self._log = log
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        assert self._program is not None, "not started"
        return self._program

    @property
    def pid(self) -> int:
        return self.program.process.pid

    def start(self) -> None:
        """Start the process; `wait_ready` returns when it can be used."""
        options = ["--verbosity", "0", "--bind", HOST, "--port", str(self.port)]
        command = [sys.executable, "-m", "daphne", *options, "config.asgi:application"]
        self._program = Program(command, EXAMPLE, example_environment(self._data), self._log)

    def wait_ready(self) -> None:
        """Return when the process takes connections."""
        program = self.program
        eventually(
            lambda: listens(self.port) or program.process.poll() is not None,
            READY_DEADLINE_S,
            what=f"a server on port {self.port}",
        )
        assert program.process.poll() is None, f"the server ended:\n{program.output}"

    def kill(self) -> None:
        self.program.kill()

    def stop(self) -> None:
        """End the process if it still runs; it must end by itself when asked to."""
        if self._program is None or self._program.process.poll() is not None:
            return
        try:
            self._program.terminate()
        finally:
            if self._program.process.poll() is None:
                self._program.kill()


class Worker:
    """One process that makes thumbnails: `manage.py worker`."""

    def __init__(self, data: Path, log: Path) -> None:
        self._data = data
        self._log = log
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        assert self._program is not None, "not started"
        return self._program

    def start(self, *, pause_s: float = 0.0) -> None:
        """Start the process, with a rest of `pause_s` after each thumbnail; return when it waits for jobs."""
        self._log.unlink(missing_ok=True)
        command = [sys.executable, "manage.py", "worker", "--pause", str(pause_s)]
        self._program = Program(command, EXAMPLE, example_environment(self._data), self._log)
        self._program.prints("waits for pictures")

    def kill(self) -> None:
        self.program.kill()

    def stop(self) -> None:
        """End the process if it still runs; it must end by itself, and well, when asked to."""
        if self._program is None or self._program.process.poll() is not None:
            return
        try:
            code = self._program.terminate()
            assert code == 0, f"the worker ended with {code}:\n{self._program.output}"
        finally:
            if self._program.process.poll() is None:
                self._program.kill()


class Site:
    """Two server processes over one set of databases, and a worker that is started by the tests that need it."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.data = folder / "data"
        shutil.copytree(template, self.data)
        self.one = Server(self.data, folder / "server-1.log")
        self.two = Server(self.data, folder / "server-2.log")
        self.worker = Worker(self.data, folder / "worker.log")

    def start(self) -> None:
        for server in (self.one, self.two):
            server.start()
        for server in (self.one, self.two):
            server.wait_ready()

    def stop(self) -> None:
        with ExitStack() as stopping:
            for process in (self.one, self.two, self.worker):
                stopping.callback(process.stop)
