"""Server processes that are started, watched and stopped together."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Worker", "WorkerError", "free_ports", "serve"]

HOST = "127.0.0.1"
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 10.0
RETRY_S = 0.05


class WorkerError(Exception):
    """A server process did not start; the message says which and what to look at."""


class Worker:
    """One daphne process on one port."""

    def __init__(self, number: int, port: int, folder: Path) -> None:
        """Prepare worker ``number``, which will listen on ``port`` with ``folder`` as its working directory."""
        self.number = number
        self.port = port
        self.folder = folder
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The address of the site at this worker."""
        return f"http://{HOST}:{self.port}"

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process. Raises RuntimeError before ``start``."""
        if self._process is None:
            raise RuntimeError(f"worker {self.number} was not started")
        return self._process

    async def start(self) -> None:
        """Start the process."""
        arguments = (
            "-m",
            "daphne",
            "--verbosity",
            "0",
            "--bind",
            HOST,
            "--port",
            str(self.port),
            "config.asgi:application",
        )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=self.folder, stdin=asyncio.subprocess.DEVNULL
        )

    async def ready(self) -> None:
        """Return when the process takes connections. Raises WorkerError when it ends, or takes none in time."""
        deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
        while not await _accepts_connections(self.port):
            if self.process.returncode is not None:
                raise WorkerError(f"Worker {self.number} ended before it was ready; the lines above say why.")
            if asyncio.get_running_loop().time() > deadline:
                raise WorkerError(f"Worker {self.number} took no connection on {self.url} within {READY_WITHIN_S:g} s.")
            await asyncio.sleep(RETRY_S)

    async def ended(self) -> str:
        """Wait until the process ends and return a sentence about it."""
        code = await self.process.wait()
        how = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        return f"Worker {self.number} (process {self.process.pid}, {self.url}) has ended: {how}."

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


async def serve(workers: Sequence[Worker], say: Callable[[str], object], greeting: str) -> bool:
    """Run ``workers`` until this process gets SIGINT or SIGTERM, and stop them.

    ``say`` prints a line: ``greeting`` once all are ready, and a sentence for each that ends. Returns True if it was
    stopped by a signal, False if all the workers have ended by themselves. Raises WorkerError if one does not start;
    none is left running then.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no such handlers: there Ctrl-C cancels this coroutine, and the workers are stopped all the same.
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stopped.set)
    stopping = asyncio.create_task(stopped.wait())
    running = asyncio.create_task(_run(workers, say, greeting))
    try:
        await asyncio.wait({stopping, running}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        return stopped.is_set()
    finally:
        for task in (stopping, running):
            task.cancel()
        await asyncio.gather(stopping, running, return_exceptions=True)
        await asyncio.gather(*(worker.stop() for worker in workers))


async def _run(workers: Sequence[Worker], say: Callable[[str], object], greeting: str) -> None:
    """Start all workers, say the greeting, and return when the last one has ended."""
    for worker in workers:
        await worker.start()
    await asyncio.gather(*(worker.ready() for worker in workers))
    say(greeting)
    left = len(workers)
    for end in asyncio.as_completed([worker.ended() for worker in workers]):
        sentence = await end
        left -= 1
        say(f"{sentence} The other one goes on." if left else sentence)


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
