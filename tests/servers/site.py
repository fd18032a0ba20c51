"""A site with one WebSocket consumer, what its servers are told, and what they may not leave behind."""

import json
import re
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection

from tests.django.project import Project
from tests.settings import RUN_FOLDER
from tests.support.programs import HOST, READY_DEADLINE_S, Program, Started, family, free_port, listens, runs
from tests.support.waiting import eventually

DEADLINE_S = 30.0

SETTINGS = """
    import sys

    if "runserver" in sys.argv:  # other servers need not load daphne and Twisted
        INSTALLED_APPS = ["daphne", *INSTALLED_APPS]
    ASGI_APPLICATION = "project.asgi.application"
    LOGGING = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"layer": {"format": "THE LAYER SAYS %(message)s"}},
        "handlers": {"layer": {"class": "logging.StreamHandler", "formatter": "layer"}},
        "loggers": {"channels_sqlite": {"handlers": ["layer"], "level": "WARNING"}},
    }
"""

CONSUMERS = """
    import json
    import os

    from channels.generic.websocket import AsyncWebsocketConsumer


    class RoomConsumer(AsyncWebsocketConsumer):
        groups = ["room"]

        async def receive(self, text_data):
            await self.channel_layer.group_send("room", {"type": "room.say", "text": text_data, "pid": os.getpid()})

        async def room_say(self, message):
            await self.send(text_data=json.dumps(message))
"""

ASGI = """
    import asyncio
    import os
    import threading

    from channels.routing import ProtocolTypeRouter, URLRouter
    from django.core.asgi import get_asgi_application
    from django.urls import path

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    pages = get_asgi_application()

    from channels_sqlite import get_channel_layer
    from channels_sqlite.lifespan import lifespan

    from project.consumers import RoomConsumer

    application = ProtocolTypeRouter({
        "http": pages,
        "websocket": URLRouter([path("room", RoomConsumer.as_asgi())]),
        "lifespan": lifespan,
    })

    # Every process that loads the site reads from the layer, workers without visitors and parents that fork too.
    thread = threading.Thread(target=lambda: asyncio.run(get_channel_layer().new_channel()))
    thread.start()
    thread.join()
"""

BARE_ASGI = """
    from channels.routing import ProtocolTypeRouter
    from project.asgi import application as complete

    application = ProtocolTypeRouter({"websocket": complete.application_mapping["websocket"]})
"""
"""The same without lifespan."""

WRONG = re.compile(r"Traceback|ResourceWarning|Exception ignored|was never awaited|Task was destroyed|THE LAYER SAYS")


class Site:
    """The project, served by one program at a time."""

    def __init__(self, project: Project, started: Started) -> None:
        self.project = project
        self.port = free_port()
        self._started = started
        self._program: Program | None = None
        self._seen: set[psutil.Process] = set()
        self._folder = project.folder / "channels.sqlite3.wake"
        self._sockets: set[Path] = set()

    @property
    def program(self) -> Program:
        assert self._program is not None, "not served"
        return self._program

    def serve(self, module: str, *options: str, resource_warnings: bool) -> None:
        """Start `python -m module options` in the project's folder, and wait until it takes connections."""
        environment = {
            **self.project.environment(),
            # Django and Twisted are compiled once a run, whatever the environment says, not at every start.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(RUN_FOLDER / "pycache"),
            "PYTHONWARNINGS": "error" if resource_warnings else "error,ignore::ResourceWarning",
            # Where gunicorn puts a socket of its own.
            "HOME": str(self.project.folder),
            "XDG_RUNTIME_DIR": str(self.project.folder),
        }
        command = [sys.executable, *(["manage.py"] if module == "manage.py" else ["-m", module]), *options]
        self._program = program = self._started(*command, folder=self.project.folder, environment=environment)
        eventually(
            lambda: listens(self.port) or program.process.poll() is not None,
            READY_DEADLINE_S,
            what=f"a server on port {self.port}",
        )
        assert program.process.poll() is None, f"the server ended:\n{program.output}"

    def processes(self) -> list[psutil.Process]:
        """The server's processes that run now; remembered, so that those without a parent are found again."""
        now = family(self.program)
        self._seen.update(now)
        return now

    def visit(self) -> ClientConnection:
        """A visitor's connection."""
        return connect(f"ws://{HOST}:{self.port}/room", open_timeout=DEADLINE_S, close_timeout=DEADLINE_S)

    def readers(self) -> dict[str, int]:
        """The registered readers: client to pid."""
        rows = self.project.query("channels.sqlite3", "SELECT client, pid, address FROM channels_sqlite_process")
        # An address is a name in the folder, or where the folder's path is too long for a socket a path.
        self._sockets.update(self._folder / str(address) for _, _, address in rows)
        return {str(client): int(str(pid)) for client, pid, _ in rows}

    def files(self) -> set[Path]:
        """The lock files and sockets that readers have now."""
        locks = {path for path in self._folder.glob("*") if not path.name.startswith("housekeeping")}
        return locks | {path for path in self._sockets if path.exists()}

    def members(self) -> list[tuple[object, ...]]:
        return self.project.query("channels.sqlite3", "SELECT * FROM channels_sqlite_membership")

    def serves_again(self, pid: int) -> bool:
        """Whether a server takes visitors, and the one with this `pid` has ended."""
        return not any(process.pid == pid for process in self._running()) and listens(self.port)

    def reloads(self, former: dict[str, int]) -> bool:
        """Whether the `former` readers have gone; while they are there, change a source file once more.

        A change is not seen in a module that the server has not looked at yet.
        """
        gone = not former.keys() & self.readers().keys()
        if not gone:
            self.project.write("project/consumers.py", CONSUMERS + "\n    changed = True\n")
        return gone

    def signal(self, number: signal.Signals, *, everybody: bool = False) -> None:
        """Send a signal to the program, or to its whole family, children first, as Ctrl-C in a terminal does."""
        processes = self.processes()
        for process in reversed(processes) if everybody else processes[:1]:
            process.send_signal(number)

    def assert_nothing_is_left(self) -> None:
        """The program has ended by itself, and with it all that it brought."""
        self.program.wait(DEADLINE_S)
        output = self.program.output
        eventually(lambda: not self._running(), DEADLINE_S, what=f"the end of all processes of the server:\n{output}")
        assert self.readers() == {}, output
        assert self.files() == set(), output
        assert self.members() == [], output
        assert not WRONG.search(output), output

    def _running(self) -> list[psutil.Process]:
        return [process for process in self._seen if runs(process)]

    def kill_what_is_left(self) -> None:
        for process in self._running():
            process.kill()
        psutil.wait_procs(self._seen, DEADLINE_S)


def say(visitor: Connection, text: str) -> dict[str, Any]:
    """Say something in the room; return what arrives, which has gone through the layer."""
    visitor.send(text)
    heard: dict[str, Any] = json.loads(visitor.recv(DEADLINE_S))
    assert heard["text"] == text
    return heard
