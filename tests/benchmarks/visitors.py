"""The browsers of the WebSocket scenarios, in a process of their own. They count bytes, and do nothing else.

A client library would be what is measured. Requests come as lines of JSON on standard input, and each is answered by
one on standard output: `open`, `broadcast`, `burst`, `echo`, `close`.
"""

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

__all__ = ["FRAME_BYTES", "TEXT"]

TEXT = "x" * 100
FRAME_BYTES = 2 + len(TEXT)
"""What comes of it: https://www.rfc-editor.org/rfc/rfc6455#section-5.2; less than 126 bytes need no longer header."""

_LIMIT_S = 30.0
_CLOSE_FRAME = b"\x88\x82\0\0\0\0" + (1000).to_bytes(2, "big")


def _frame(text: str) -> bytes:
    """Return a text frame as a client sends it, masked with zeros."""
    payload = text.encode()
    return bytes([0x81, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


class _Visitor(asyncio.Protocol):
    """One socket."""

    def __init__(self, crowd: "_Crowd", path: str) -> None:
        self._crowd = crowd
        self._path = path
        self._head = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent_ns = 0
        self.heard: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.opened.set_exception(RuntimeError(f"the server refused a socket: {head!r}"))
                return
            self.opened.set_result(None)
        if self.sent_ns:
            self._crowd.echoes_us.append((time.perf_counter_ns() - self.sent_ns) / 1000)
            self.sent_ns = 0
            if self.heard is not None:
                self.heard.set_result(None)
        self._crowd.count(len(data))

    def connection_lost(self, exception: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(RuntimeError("the server closed a socket that was not open"))
        self.closed.set_result(None)


def _itself(visitor: _Visitor) -> _Visitor:
    return visitor


class _Crowd:
    """All sockets."""

    def __init__(self) -> None:
        self._visitors: list[_Visitor] = []
        self._missing = 0  # bytes
        self._all_here: asyncio.Future[None] | None = None
        self.echoes_us: list[float] = []

    def count(self, size: int) -> None:
        self._missing -= size
        if self._missing <= 0 and self._all_here is not None and not self._all_here.done():
            self._all_here.set_result(None)

    async def open(self, ports: Sequence[int], sockets: int) -> dict[str, Any]:
        """Open so many sockets, in turns to each of the ports, two in each pair."""
        loop = asyncio.get_running_loop()
        start_s = time.perf_counter()
        for number in range(sockets):
            visitor = _Visitor(self, f"/{number // 2}")
            self._visitors.append(visitor)
            await loop.create_connection(partial(_itself, visitor), "127.0.0.1", ports[number % len(ports)])
        await asyncio.wait_for(asyncio.gather(*(visitor.opened for visitor in self._visitors)), _LIMIT_S)
        return {"seconds": time.perf_counter() - start_s}

    async def burst(self, count: int) -> dict[str, Any]:
        """Have the first socket's server broadcast so many times, and wait until all sockets have all of them."""
        self._missing = count * len(self._visitors) * FRAME_BYTES
        self._all_here = asyncio.get_running_loop().create_future()
        start_s = time.perf_counter()
        self._visitors[0].transport.write(_frame(f"broadcast {count}"))
        await asyncio.wait([self._all_here], timeout=_LIMIT_S)
        seconds = time.perf_counter() - start_s
        return {"seconds": seconds, "missing": max(0, self._missing) // FRAME_BYTES}

    async def broadcast(self, seconds: float) -> dict[str, Any]:
        """Broadcast one after the other, each awaited."""
        times_us: list[float] = []
        end_s = time.perf_counter() + seconds
        missing = 0
        while time.perf_counter() < end_s and not missing:
            answer = await self.burst(1)
            times_us.append(answer["seconds"] * 1e6)
            missing = answer["missing"]
        return {"times_us": times_us, "missing": missing}

    async def echo(self, rate: int, seconds: float) -> dict[str, Any]:
        """Have sockets say something to their pairs, so many in a second; skip one that still waits."""
        self.echoes_us = []
        self._missing, self._all_here = 0, None
        speakers = self._visitors[::2]
        skipped = 0
        start_s = time.perf_counter()
        for number in range(max(1, int(rate * seconds))):
            await asyncio.sleep(start_s + number / rate - time.perf_counter())
            speaker = speakers[number % len(speakers)]
            if speaker.sent_ns:
                skipped += 1
                continue
            speaker.heard = asyncio.get_running_loop().create_future()
            speaker.sent_ns = time.perf_counter_ns()
            speaker.transport.write(_frame("echo"))
        waiting = [speaker.heard for speaker in speakers if speaker.sent_ns and speaker.heard is not None]
        if waiting:
            await asyncio.wait(waiting, timeout=_LIMIT_S)
        missing = sum(bool(speaker.sent_ns) for speaker in speakers)
        return {"times_us": self.echoes_us, "skipped": skipped, "missing": missing}

    async def close(self) -> dict[str, Any]:
        """Close all sockets as browsers do."""
        start_ns = time.perf_counter_ns()
        for visitor in self._visitors:
            visitor.transport.write(_CLOSE_FRAME)
        await asyncio.wait([visitor.closed for visitor in self._visitors], timeout=_LIMIT_S)
        return {"start_ns": start_ns}


async def _main() -> None:
    crowd = _Crowd()
    doing: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
        "open": crowd.open,
        "burst": crowd.burst,
        "broadcast": crowd.broadcast,
        "echo": crowd.echo,
        "close": crowd.close,
    }
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        request = json.loads(line)
        answer = await doing[request.pop("do")](**request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
