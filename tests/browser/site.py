"""The example, served by real processes from databases of its own."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import channels_sqlite
from tests.support.processes import ROOT
from tests.support.programs import HOST, READY_DEADLINE_S, Program, free_port, listens
from tests.support.waiting import eventually

EXAMPLE = ROOT / "example"


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


def complaints(*programs: Program) -> str:
    """What servers have printed, but for what Daphne says of a page that was closed when something came for it."""
    printed = "".join(program.output for program in programs)
    closed = (
        r"^[^\n]+ ERROR +Exception inside application: Attempt to send on a closed protocol\n.+?Disconnected: [^\n]+\n"
    )
    return re.sub(closed, "", printed, flags=re.DOTALL | re.MULTILINE)


def manage(*arguments: str, data: Path) -> None:
    """Run a management command of the example to its end."""
    command = [sys.executable, "manage.py", *arguments]
    subprocess.run(command, cwd=EXAMPLE, env=example_environment(data), check=True, timeout=60)


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
