"""People who look at an event stream in this very process, by way of Django's handler for ASGI."""

import asyncio
from collections.abc import Mapping
from typing import Any

from django.core.handlers.asgi import ASGIHandler

from tests.sse.event_source import EventSource, Heard
from tests.support.waiting import aeventually

DEADLINE_S = 10.0


class Visit:
    """One connection. Where it is `slow`, the server's `send` waits until `read` is called."""

    def __init__(
        self,
        path: str = "/events",
        *,
        source: EventSource | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "GET",
    ) -> None:
        """`source` is the browser's that comes back."""
        self.source = source or EventSource()
        self.source.connect()
        self._comments = self.source.comments
        self.status = 0
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.blocked = False
        sent = {"Last-Event-ID": self.source.last_event_id} if self.source.last_event_id else {}
        path, _, query = path.partition("?")
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode())
                for name, value in {"Host": "testserver", **sent, **(headers or {})}.items()
            ],
        }
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming.put_nowait({"type": "http.request"})
        handler: Any = ASGIHandler()  # Any: its types say less than it takes
        self.task: asyncio.Task[None] = asyncio.create_task(handler(self._scope, self._incoming.get, self._send))

    async def _send(self, message: dict[str, Any]) -> None:
        if not self.reads.is_set():
            self.blocked = True
            await self.reads.wait()
            self.blocked = False
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.chunks.append(message.get("body", b""))
            self.source.feed(self.chunks[-1])

    @property
    def events(self) -> list[Heard]:
        return self.source.events

    async def begun(self) -> "Visit":
        """Return once the stream is one of its groups."""
        await aeventually(lambda: self._has_begun or self.task.done(), DEADLINE_S, what="the beginning")
        assert self._has_begun, f"ended with status {self.status}"
        return self

    @property
    def _has_begun(self) -> bool:
        return self.source.comments > self._comments

    async def hears(self, *data: str) -> None:
        """Return once what was heard is exactly this."""
        await aeventually(lambda: len(self.events) >= len(data), DEADLINE_S, what=f"{data}, heard {self.events}")
        assert [event.data for event in self.events] == list(data)

    async def leave(self) -> None:
        """Be gone, and return once the server's side has ended."""
        self._incoming.put_nowait({"type": "http.disconnect"})
        await self.ended()

    async def ended(self) -> None:
        """Return once the server's side has ended."""
        done, _ = await asyncio.wait({self.task}, timeout=DEADLINE_S)
        assert done, "the stream goes on"
        if not self.task.cancelled():
            self.task.result()
