"""The example, served by real processes from databases of its own."""

import os
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

import channels_sqlite
from tests.support.processes import ROOT
from tests.support.programs import HOST, READY_DEADLINE_S, Program, family, free_port, listens
from tests.support.waiting import eventually

EXAMPLE = ROOT / "example"
SIZES = (1280, 960, 640, 320, 160, 80)
"""Of the thumbnails of a picture that is larger than all of them, in the order in which they are made."""


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


class Gate:
    """What lets the pictures of a worker pass, thumbnail by thumbnail; see `gated`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, *sizes: int) -> None:
        """Let thumbnails of these sizes be made, from now on."""
        self.folder.mkdir(exist_ok=True)
        for size in sizes:
            (self.folder / str(size)).touch()

    def shut(self) -> None:
        """Let no thumbnail be made."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Worker:
    """One `manage.py channels_worker`, whose pictures wait at the gate."""

    def __init__(self, data: Path, log: Path, gate: Gate) -> None:
        self._data = data
        self._log = log
        self._gate = gate
        self._program: Program | None = None

    @property
    def program(self) -> Program:
        assert self._program is not None, "not started"
        return self._program

    @property
    def children(self) -> list[psutil.Process]:
        """The processes that run tasks."""
        return family(self.program)[1:]

    def start(self, *, processes: int = 1) -> None:
        """Start it, and return when it waits for tasks."""
        self._log.unlink(missing_ok=True)
        command = [sys.executable, "manage.py", "channels_worker", "--processes", str(processes)]
        environment = {
            **example_environment(self._data),
            "DJANGO_SETTINGS_MODULE": "tests.browser.gated",
            "CHANNELS_SQLITE_TESTS_GATE": str(self._gate.folder),
        }
        self._program = Program(command, EXAMPLE, environment, self._log)
        eventually(
            lambda: self.program.output.count("runs tasks of") == processes or self.program.process.poll() is not None,
            READY_DEADLINE_S,
            what=f"{processes} processes that run tasks",
        )
        assert self.program.process.poll() is None, f"the worker ended:\n{self.program.output}"

    def kill_child(self) -> int:
        """SIGKILL for the one process that runs tasks; return its pid."""
        [child] = self.children
        child.kill()
        return child.pid

    def stop(self) -> None:
        """End it if it still runs; it must end by itself, and well, when asked to."""
        if self._program is None or self._program.process.poll() is not None:
            return
        self._gate.open(*SIZES)  # what is under way is finished first
        processes = family(self._program)
        try:
            code = self._program.terminate()
            assert code == 0, f"the worker ended with {code}:\n{self._program.output}"
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=READY_DEADLINE_S)


class Site:
    """Two server processes over one set of databases, and a worker that is started by the tests that need it."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.data = folder / "data"
        shutil.copytree(template, self.data)
        self.one = Server(self.data, folder / "server-1.log")
        self.two = Server(self.data, folder / "server-2.log")
        self.gate = Gate(folder / "gate")
        self.worker = Worker(self.data, folder / "worker.log", self.gate)

    def start(self) -> None:
        for server in (self.one, self.two):
            server.start()
        for server in (self.one, self.two):
            server.wait_ready()

    def stop(self) -> None:
        with ExitStack() as stopping:
            for process in (self.one, self.two, self.worker):
                stopping.callback(process.stop)
