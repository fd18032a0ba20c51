"""A site with an event stream, served by real servers, and listeners over real sockets."""

import asyncio
import contextlib
import socket
import struct
import sys

import psutil

from tests.django.project import Project
from tests.settings import RUN_FOLDER
from tests.sse.event_source import EventSource, Heard
from tests.support.databases import ChannelDatabase
from tests.support.programs import HOST, READY_DEADLINE_S, Program, Started, family, free_port, listens, runs
from tests.support.waiting import aeventually, eventually

__all__ = ["DEADLINE_S", "SERVERS", "EventSite", "Listener"]

DEADLINE_S = 30.0

SERVERS = {
    "uvicorn": ("--host", HOST, "--port", "{port}", "--log-level", "warning", "--timeout-graceful-shutdown", "1"),
    "daphne": ("--bind", HOST, "--port", "{port}", "--verbosity", "0"),
    "hypercorn": ("--bind", HOST + ":{port}", "--graceful-timeout", "1", "--log-level", "warning"),
}
"""Options of each; `{port}` stands for the port. What ends a server must not wait for streams, which never end."""

SETTINGS = """
    ROOT_URLCONF = "project.events"
    MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", *MIDDLEWARE]
    DATABASES["channels"]["NAME"] = {path!r}
    CHANNEL_LAYERS["default"]["CONFIG"].update({config!r})
    LOGGING = {{
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {{"layer": {{"format": "THE LAYER SAYS %(message)s"}}}},
        "handlers": {{"layer": {{"class": "logging.StreamHandler", "formatter": "layer"}}}},
        "loggers": {{"channels_sqlite": {{"handlers": ["layer"], "level": "INFO"}}}},
    }}
"""

EVENTS = '''
    from django.http import HttpResponse
    from django.urls import path

    from channels_sqlite.sse import event_stream

    PAGE = """<!doctype html><title>Events</title><script>
      const heard = [];
      let opened = 0;
      const source = new EventSource("/events");
      source.onopen = () => { opened += 1; };
      for (const type of ["room.said", "reset"])
        source.addEventListener(type, (event) => heard.push([type, event.data, event.lastEventId]));
    </script>"""

    async def events(request):
        groups = request.GET.getlist("group") or ["room"]
        return event_stream(request, *groups, heartbeat=float(request.GET.get("heartbeat", "15")))

    async def page(request):
        return HttpResponse(PAGE)

    urlpatterns = [path("events", events), path("", page)]
'''

ASGI = """
    import os

    from channels.routing import ProtocolTypeRouter
    from django.core.asgi import get_asgi_application

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    pages = get_asgi_application()

    from channels_sqlite.lifespan import lifespan

    application = ProtocolTypeRouter({"http": pages, "lifespan": lifespan})
"""


class EventSite:
    """The project, served by one server at a time, on one port."""

    def __init__(self, project: Project, started: Started, database: ChannelDatabase) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.project = project
        self._started = started
        self._database = database
        self._program: Program | None = None
        project.write("project/events.py", EVENTS)
        project.write("project/asgi.py", ASGI)

    def configure(self, **config: object) -> None:
        """Write settings, with these options of CONFIG."""
        self.project.settings(SETTINGS.format(path=str(self._database.path), config=config))

    @property
    def program(self) -> Program:
        assert self._program is not None, "not served"
        return self._program

    def start(self, server: str) -> None:
        """Start a server, and return once it takes connections."""
        environment = {
            **self.project.environment(),
            # Django and Twisted are compiled once a run, whatever the environment says, not at every start.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(RUN_FOLDER / "pycache"),
        }
        options = [option.format(port=self.port) for option in SERVERS[server]]
        command = (sys.executable, "-m", server, *options, "project.asgi:application")
        self._program = program = self._started(*command, folder=self.project.folder, environment=environment)
        eventually(
            lambda: listens(self.port) or program.process.poll() is not None,
            READY_DEADLINE_S,
            what=f"a server on port {self.port}",
        )
        assert program.process.poll() is None, f"the server ended:\n{program.output}"

    def kill(self) -> None:
        """SIGKILL for the server, children included; return once its port is free."""
        processes = family(self.program)
        for process in reversed(processes):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.program.process.wait(DEADLINE_S)
        eventually(lambda: not any(map(runs, processes)), DEADLINE_S, what="the end of all processes")


class Listener:
    """One connection to a stream, read as it comes."""

    def __init__(self, site: EventSite, path: str = "/events", *, source: EventSource | None = None) -> None:
        self.source = source or EventSource()
        self.source.connect()
        self.head = b""
        self._site = site
        self._path = path
        self._task: asyncio.Task[None] | None = None

    @property
    def events(self) -> list[Heard]:
        return self.source.events

    async def connect(self, *, slow: bool = False) -> "Listener":
        """Connect, and return once the stream has begun; a slow one has a small buffer and reads no further."""
        raw = socket.socket()
        if slow:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (HOST, self._site.port))
        self._reader, self._writer = await asyncio.open_connection(sock=raw, limit=4096)
        sent = f"Last-Event-ID: {self.source.last_event_id}\r\n" if self.source.last_event_id else ""
        self._writer.write(f"GET {self._path} HTTP/1.1\r\nHost: {HOST}\r\nAccept-Encoding: gzip\r\n{sent}\r\n".encode())
        self.head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        before = self.source.comments
        while self.source.comments == before:
            assert await self._read(), "the stream has ended"
        if not slow:
            self.read()
        return self

    async def _read(self) -> bool:
        """Read one chunk of the body; return whether there was one more."""
        size = int((await asyncio.wait_for(self._reader.readline(), DEADLINE_S)).strip() or b"0", 16)
        if size:
            self.source.feed(await self._reader.readexactly(size))
        await self._reader.readexactly(2)
        return size > 0

    def read(self) -> None:
        """Read on until the end."""

        async def read_on() -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._read():
                    pass

        self._task = asyncio.create_task(read_on())

    async def hears(self, *data: str) -> None:
        """Return once what was heard is exactly this."""
        await aeventually(lambda: len(self.events) >= len(data), DEADLINE_S, what=f"{data}, heard {self.events}")
        assert [event.data for event in self.events] == list(data)

    async def ended(self) -> None:
        """Return once the server has ended the stream."""
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=DEADLINE_S)
        assert done, "the stream goes on"
        self._task.result()

    async def leave(self, *, reset: bool = False) -> None:
        """Close the connection; with a `reset` as where a network or a process has died."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if reset:
            self._writer.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            self._writer.transport.abort()
        else:
            self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
