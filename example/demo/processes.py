"""Processes that are started, watched and stopped together: servers, and a worker."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Server", "StartError", "Worker", "free_ports", "serve"]

HOST = "127.0.0.1"
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 10.0
RETRY_S = 0.05
WORKER_PAUSE_S = "0.4"
WORKER_PROCESSES = "2"


class StartError(Exception):
    """A process did not start; the message says which and what to look at."""


class Program:
    """One process that runs ``python`` with ``arguments``."""

    def __init__(
        self, name: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a process called ``name`` in what is printed, with ``folder`` as its working directory.

        ``variables`` are added to those of this process's environment.
        """
        self.name = name
        self._environment = {**os.environ, **(variables or {})}
        self._arguments = arguments
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process. Raises RuntimeError before ``start``."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    async def start(self) -> None:
        """Start the process, in a session of its own: Ctrl-C in the terminal reaches this process, which stops it."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            cwd=self._folder,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def ended(self) -> str:
        """Wait until the process ends and return a sentence about it."""
        code = await self.process.wait()
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return f"{self.name} (process {self.process.pid}) has ended: {how}."

    async def stop(self) -> None:
        """End the process, politely at first. Does nothing if it has ended or was never started."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOPPED_WITHIN_S)
        except asyncio.TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class Server(Program):
    """One daphne process on one port."""

    def __init__(self, number: int, port: int, folder: Path) -> None:
        """Prepare server ``number``, which will listen on ``port``."""
        options = ("--verbosity", "0", "--bind", HOST, "--port", str(port))
        super().__init__(f"Server {number}", ("-m", "daphne", *options, "config.asgi:application"), folder)
        self.port = port

    @property
    def url(self) -> str:
        """The address of the site at this server."""
        return f"http://{HOST}:{self.port}"

    async def ready(self) -> None:
        """Return when the process takes connections. Raises StartError when it ends, or takes none in time."""
        deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
        while not await _accepts_connections(self.port):
            if self.process.returncode is not None:
                raise StartError(f"{self.name} ended before it was ready; the lines above say why.")
            if asyncio.get_running_loop().time() > deadline:
                raise StartError(f"{self.name} took no connection on {self.url} within {READY_WITHIN_S:g} s.")
            await asyncio.sleep(RETRY_S)


class Worker(Program):
    """One worker with two processes that run tasks: thumbnails, slowly enough to watch."""

    def __init__(self, folder: Path) -> None:
        """Prepare the worker."""
        options = ("--verbosity", "0", "--processes", WORKER_PROCESSES)
        variables = {"EXAMPLE_PAUSE": WORKER_PAUSE_S}
        super().__init__("The worker", ("manage.py", "channels_worker", *options), folder, variables)


async def serve(servers: Sequence[Server], worker: Worker | None, say: Callable[[str], object], greeting: str) -> bool:
    """Run ``servers`` and ``worker`` until this process gets SIGINT, SIGTERM or SIGHUP, and stop them.

    ``worker`` is None where there is nothing to work on. ``say`` prints a line: ``greeting`` once all servers are
    ready, and a sentence for each process that ends. Returns True if it was stopped by a signal, False if all the
    servers have ended by themselves. Raises StartError if one does not start; nothing is left running then.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        # Windows has no such handlers: there Ctrl-C cancels this coroutine, and all are stopped just the same.
        with suppress(NotImplementedError, AttributeError):
            loop.add_signal_handler(getattr(signal, name), stopped.set)
    stopping = asyncio.create_task(stopped.wait())
    running = asyncio.create_task(_run(servers, worker, say, greeting))
    try:
        await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        return stopped.is_set()
    finally:
        for task in (stopping, running):
            task.cancel()
        await asyncio.gather(stopping, running, return_exceptions=True)
        await asyncio.gather(*(program.stop() for program in _all(servers, worker)))


def _all(servers: Sequence[Server], worker: Worker | None) -> list[Program]:
    return [*servers, *([] if worker is None else [worker])]


async def _run(servers: Sequence[Server], worker: Worker | None, say: Callable[[str], object], greeting: str) -> None:
    """Start all of them, say the greeting, and return when the last server has ended."""
    for program in _all(servers, worker):
        await program.start()
    await asyncio.gather(*(server.ready() for server in servers))
    say(greeting)
    watching = asyncio.create_task(_watch(worker, say))
    try:
        left = len(servers)
        for end in asyncio.as_completed([server.ended() for server in servers]):
            sentence = await end
            left -= 1
            say(f"{sentence} The other one goes on." if left else sentence)
    finally:
        watching.cancel()


async def _watch(worker: Worker | None, say: Callable[[str], object]) -> None:
    """Say when the worker has ended: the site goes on, and its tasks wait."""
    if worker is not None:
        say(f"{await worker.ended()} Uploads wait until another one is started: manage.py channels_worker")


async def _accepts_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def free_ports(first: int, count: int) -> list[int]:
    """Return ``count`` free loopback ports: the first ones from ``first`` on, or whatever the system offers."""
    ports: list[int] = []
    candidates = [*range(first, min(first + 100, 65536)), *[0] * count]
    for candidate in candidates:
        with socket.socket() as probe:
            if sys.platform != "win32":  # as the server will do it: ports of connections that just ended count as free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
        if port not in ports:
            ports.append(port)
        if len(ports) == count:
            break
    return ports
