"""The notice board over which the processes of a run agree; line-wise JSON on pipes, through the parent.

Roles publish values under a key and wait until a key has so many values. The layer under test is never used for this,
and nothing is read or written here while a scenario is timing. The worker's end is used on its event loop alone.
"""

import asyncio
import json
import os
from collections import defaultdict
from typing import Any

__all__ = ["NoticeBoard", "Value", "WorkerEnd"]

Value = str | int


class WorkerEnd:
    """A worker's end: writes requests to one pipe, reads the answers from another."""

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


class NoticeBoard:
    """The parent's end: keeps what was published and answers each wish once it can."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[Value]] = defaultdict(list)
        self._wishes: defaultdict[str, list[tuple[int, int, asyncio.StreamWriter]]] = defaultdict(list)

    # Any: a decoded line of JSON, written by WorkerEnd above.
    def handle(self, line: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        """Deal with one request of the worker that listens to ``writer``."""
        if "publish" in line:
            key: str = line["publish"]
            self._values[key].append(line["value"])
        else:
            key = line["want"]
            self._wishes[key].append((line["count"], line["ticket"], writer))
        self._answer(key)

    def _answer(self, key: str) -> None:
        values = self._values[key]
        open_wishes = []
        for wish in self._wishes[key]:
            count, ticket, writer = wish
            if len(values) >= count:
                writer.write(json.dumps({"ticket": ticket, "values": values}).encode() + b"\n")
            else:
                open_wishes.append(wish)
        self._wishes[key] = open_wishes
