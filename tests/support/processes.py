"""Real processes for tests: a function of a test module runs in a fresh interpreter and talks JSON lines.

The child's side is `child.py`:

    async def echo(parent: Parent, *, channel: str) -> None:
        layer = parent.make_layer()
        parent.say("ready")
        parent.say(await layer.receive(channel))

and the test's side:

    child = start_process(echo, database=database, channel="chat")
    assert await child.ahear() == "ready"

The function must be importable: at the top level of a module under `tests/`.
"""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.databases import ChannelDatabase

ROOT = Path(__file__).resolve().parents[2]
"""Where the `tests` package is: the repository, or the copy of the tests beside an installed wheel."""

HEAR_DEADLINE_S = 15.0
END_DEADLINE_S = 15.0


class ChildFailedError(AssertionError):
    """The process ended, or stayed silent, where the test expected it to say something; the text has its stderr."""


class ChildProcess:
    """One process. Its methods work on this very process by its pid, and never on a group or a name."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: Path, name: str) -> None:
        self._process = process
        self._errors = errors
        self._name = name
        self._buffer = b""
        self._at_end = False
        self._suspended = False
        if process.stdout is None or process.stdin is None:
            raise TypeError("the process needs pipes on stdin and stdout")
        self._stdout = process.stdout
        self._stdin = process.stdin
        os.set_blocking(self._stdout.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def stderr(self) -> str:
        """Everything that the process has written to stderr so far, with what it printed."""
        return self._errors.read_text(encoding="utf-8", errors="replace")

    def say(self, value: object) -> None:
        """Send one JSON value to the process."""
        self._stdin.write(json.dumps(value).encode() + b"\n")
        self._stdin.flush()

    def hear(self, deadline_s: float = HEAR_DEADLINE_S) -> Any:
        """The next value that the process says.

        Raises ChildFailedError when the process ended instead, or said nothing for `deadline_s` seconds.
        """
        end = time.monotonic() + deadline_s
        while True:
            line = self._next_line()
            if line is not None:
                return json.loads(line)
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise self._failure(f"said nothing for {deadline_s:g} s")
            select.select([self._stdout], [], [], remaining)

    async def ahear(self, deadline_s: float = HEAR_DEADLINE_S) -> Any:
        """The same, while the event loop runs on."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        descriptor = self._stdout.fileno()
        end = time.monotonic() + deadline_s
        try:
            while True:
                line = self._next_line()
                if line is not None:
                    return json.loads(line)
                readable.clear()
                loop.add_reader(descriptor, readable.set)
                try:
                    await asyncio.wait_for(readable.wait(), end - time.monotonic())
                except asyncio.TimeoutError:
                    raise self._failure(f"said nothing for {deadline_s:g} s") from None
        finally:
            loop.remove_reader(descriptor)

    def hear_all(self, deadline_s: float = END_DEADLINE_S) -> list[Any]:
        """Everything that the process still says until it ends; raises ChildFailedError when it fails."""
        self.wait(deadline_s)
        values: list[Any] = []
        while True:
            line = self._next_line(end_is_failure=False)
            if line is None:
                return values
            values.append(json.loads(line))

    def suspend(self) -> None:
        """SIGSTOP, and wait until it has come to a stop: on another core it goes on for a moment."""
        self.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self._suspended = True

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)
        self._suspended = False

    def kill(self) -> None:
        """SIGKILL, and wait until the kernel has let go of it."""
        if self.running:
            self.signal(signal.SIGKILL)
        self._process.wait(END_DEADLINE_S)

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self.signal(signal.SIGTERM)

    def finish_input(self) -> None:
        """Close the process's stdin: its `hear` raises EOFError."""
        self._stdin.close()

    def wait(self, deadline_s: float = END_DEADLINE_S, *, expected: int = 0) -> None:
        """Wait until the process ends by itself; ChildFailedError when it does not, or not with `expected`."""
        end = time.monotonic() + deadline_s
        while True:
            # Reading on: a process that has much to say would wait for ever at a full pipe.
            pending = self._read_available()
            self._buffer += pending
            if self._process.poll() is not None and not pending:
                break
            remaining = end - time.monotonic()
            if remaining <= 0:
                raise self._failure(f"did not end within {deadline_s:g} s")
            if self._at_end:
                try:
                    self._process.wait(remaining)
                except subprocess.TimeoutExpired:
                    raise self._failure(f"did not end within {deadline_s:g} s") from None
            else:
                select.select([self._stdout], [], [], min(remaining, 0.05))
        if self._process.returncode != expected:
            raise self._failure(f"ended with {self._process.returncode}, not {expected}")

    def close(self) -> None:
        """Kill the process if it still runs, and close its pipes."""
        if self.running:
            if self._suspended:
                self.resume()
            self.kill()
        for pipe in (self._stdin, self._stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                # What the test said last was never read.
                pass

    def signal(self, number: int) -> None:
        if not self.running:
            raise self._failure(f"cannot take {signal.Signals(number).name}")
        self._process.send_signal(number)

    def _next_line(self, *, end_is_failure: bool = True) -> bytes | None:
        """A whole line that has arrived, or None. Raises ChildFailedError when no more lines can come."""
        if b"\n" not in self._buffer:
            self._buffer += self._read_available()
        line, separator, rest = self._buffer.partition(b"\n")
        if separator:
            self._buffer = rest
            return line
        if self._at_end and end_is_failure:
            raise self._failure("ended without saying more")
        return None

    def _read_available(self) -> bytes:
        chunks = []
        while True:
            try:
                chunk = os.read(self._stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not chunk:
                self._at_end = True
                break
            chunks.append(chunk)
        return b"".join(chunks)

    def _failure(self, what: str) -> ChildFailedError:
        state = "running" if self.running else f"exit status {self._process.returncode}"
        return ChildFailedError(f"process {self.pid} ({self._name}, {state}) {what}; its stderr:\n{self.stderr}")


class ProcessFactory:
    """Starts processes, and in the end kills those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[ChildProcess] = []

    def __call__(
        self,
        function: Callable[..., object],
        *,
        database: ChannelDatabase | None = None,
        config: Mapping[str, object] | None = None,
        django: bool = True,
        environment: Mapping[str, str] | None = None,
        **arguments: object,
    ) -> ChildProcess:
        """Run `function(parent, **arguments)` in a fresh process.

        `database`: registered there under its alias. `config`: CONFIG of the layers that it makes.
        `django`: whether `django.setup()` runs first. `environment`: further variables.
        `arguments` and `config` travel as JSON.
        """
        name = f"{function.__module__}:{function.__qualname__}"
        job = {
            "function": name,
            "database": None
            if database is None
            else {"alias": database.alias, "path": str(database.path), "options": dict(database.options)},
            "config": dict(config or {}),
            "django": django,
            "arguments": arguments,
        }
        variables = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            **(environment or {}),
        }
        handle, errors = tempfile.mkstemp(prefix="stderr-", dir=self._folder)
        with os.fdopen(handle, "wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.child", json.dumps(job)],
                cwd=self._folder,
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
            )
        child = ChildProcess(process, Path(errors), name)
        self._children.append(child)
        return child

    def close(self) -> None:
        for child in self._children:
            child.close()
        self._children.clear()
