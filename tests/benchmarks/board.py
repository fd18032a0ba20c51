"""The notice board over which the players of a run agree; line-wise JSON on pipes, through the parent.

Roles publish values under a key and wait until a key has so many values. The layer under test is never used for this,
and nothing is read or written here while a scenario is timing. A process that plays all roles of a run has a board of
its own: no pipe, and no wait for another process to wake up, disturbs what it measures.
"""

import asyncio
import json
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Board", "LocalBoard", "NoticeBoard", "Value", "WorkerEnd"]

Value = str | int


class Board(Protocol):
    """What a player needs of it. Used on the worker's event loop alone."""

    def publish(self, key: str, value: Value = 0) -> None:
        """Add ``value`` to what stands under ``key``."""

    async def wait_for(self, key: str, count: int = 1) -> list[Value]:
        """Return the values under ``key``, in the order of their arrival, once there are ``count`` of them."""


class NoticeBoard:
    """Keeps what was published and answers each wish once it can."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[Value]] = defaultdict(list)
        self._wishes: defaultdict[str, list[tuple[int, Callable[[list[Value]], None]]]] = defaultdict(list)

    def publish(self, key: str, value: Value = 0) -> None:
        """Add ``value`` to what stands under ``key``."""
        self._values[key].append(value)
        self._answer(key)

    def ask(self, key: str, count: int, answer: Callable[[list[Value]], None]) -> None:
        """Call ``answer`` with the values under ``key`` once there are ``count`` of them."""
        self._wishes[key].append((count, answer))
        self._answer(key)

    def _answer(self, key: str) -> None:
        values = self._values[key]
        wishes, self._wishes[key] = self._wishes[key], []
        for count, answer in wishes:
            if len(values) >= count:
                answer(list(values))
            else:
                self._wishes[key].append((count, answer))

    # Any: a decoded line of JSON, written by WorkerEnd below.
    def handle(self, line: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Deal with one request of the worker that listens to ``writer``."""

        def answer(values: list[Value]) -> None:
            writer.write(json.dumps({"ticket": line["ticket"], "values": values}).encode() + b"\n")

        if "publish" in line:
            self.publish(line["publish"], line["value"])
        else:
            self.ask(line["want"], line["count"], answer)


class LocalBoard:
    """The board of a process that plays all roles."""

    def __init__(self) -> None:
        self._board = NoticeBoard()
        self.publish = self._board.publish

    async def wait_for(self, key: str, count: int = 1) -> list[Value]:
        """Return the values under ``key``, in the order of their arrival, once there are ``count`` of them."""
        answered: asyncio.Future[list[Value]] = asyncio.get_running_loop().create_future()
        self._board.ask(key, count, lambda values: None if answered.done() else answered.set_result(values))
        return await answered


class WorkerEnd:
    """A worker's end of its parent's board: writes requests to one pipe, reads the answers from another."""

    def __init__(self, output_fd: int) -> None:
        self._output_fd = output_fd
        self._answers: dict[int, asyncio.Future[list[Value]]] = {}
        self._tickets = 0

    def publish(self, key: str, value: Value = 0) -> None:
        """Add ``value`` to what stands under ``key``."""
        self.write({"publish": key, "value": value})

    async def wait_for(self, key: str, count: int = 1) -> list[Value]:
        """Return the values under ``key``, in the order of their arrival, once there are ``count`` of them."""
        self._tickets += 1
        answer: asyncio.Future[list[Value]] = asyncio.get_running_loop().create_future()
        self._answers[self._tickets] = answer
        self.write({"want": key, "count": count, "ticket": self._tickets})
        return await answer

    def write(self, line: dict[str, object]) -> None:
        """Send one line to the parent, which always reads: this does not block for longer than that takes."""
        rest = memoryview(json.dumps(line).encode() + b"\n")
        while rest:
            rest = rest[os.write(self._output_fd, rest) :]

    async def listen(self, lines: asyncio.StreamReader) -> None:
        """Hand answers to their waiters. Ends the process when the parent is gone, so that none is left behind."""
        while line := await lines.readline():
            answer = json.loads(line)
            waiter = self._answers.pop(answer["ticket"])
            if not waiter.done():
                waiter.set_result(answer["values"])
        os._exit(1)
