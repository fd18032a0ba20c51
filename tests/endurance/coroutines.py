"""What the processes of the storm have in common that run an event loop."""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

from channels_sqlite import get_channel_layer
from tests.endurance.forking import Fork, watch
from tests.endurance.journal import Kind
from tests.endurance.plan import MAIN, SHORT
from tests.endurance.station import Child, Command, Station


class AsyncChild(Child):
    """A process with an event loop. Its commands are its methods named `do_…`."""

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        ending = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ending.set)
        os.set_blocking(self.station.commands_fd, False)
        loop.add_reader(self.station.commands_fd, self._hear)
        await self.begin()
        self.say(ready=True)
        await ending.wait()
        await self.end()

    async def begin(self) -> None:
        """Start what this process does."""

    async def end(self) -> None:
        """Go down as servers do, on SIGTERM."""

    # Tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` in a task; what it raises is written down."""
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001  # written down, and judged
            self.unexpected("a task")

    async def cancel_all(self) -> None:
        tasks = self._tasks - {task for task in (asyncio.current_task(),) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # Commands

    def _hear(self) -> None:
        for command in self.commands():
            _ = self.spawn(self._obey(command))

    async def _obey(self, command: Command) -> None:
        given = dict(command)
        await getattr(self, f"do_{given.pop('do')}")(**given)

    async def do_block(self, seconds: float) -> None:
        """Hold up the loop, as slow code in a handler does."""
        time.sleep(seconds)  # noqa: ASYNC251  # on purpose

    async def do_fork(self, incarnation: int, how: str) -> None:
        fork = Fork(self, incarnation, how)
        threading.Thread(target=watch, args=(self, fork), daemon=True).start()

    def show(self, task: "asyncio.Task[None]") -> None:
        """Write down where a task stands; its print_stack() shows no more than the outermost coroutine."""
        frames = []
        awaited: Any = task.get_coro()
        while (frame := getattr(awaited, "cr_frame", None)) is not None:
            frames.append(f"    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
            awaited = awaited.cr_await
        print(f"{task.get_name()} stands at", *frames, f"    {awaited!r}", sep="\n", file=sys.stderr)

    async def do_quiet(self) -> None:
        """Send no more."""
        self.say(quiet=True)

    # Layers

    async def close_layers(self) -> None:
        """Close both, the one after the other."""
        began = time.monotonic()
        with self.calls.call("close"):
            await get_channel_layer(MAIN).close()
        self.journal.write(Kind.CLOSED, number=int((time.monotonic() - began) * 1000))
        with self.calls.call("close"):
            await get_channel_layer(SHORT).close()
