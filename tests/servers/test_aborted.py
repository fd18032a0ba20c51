"""Sockets that are reset in the middle of broadcasts: their members go, and those who live lose nothing."""

import asyncio
import json
import signal
import socket
import struct
import time

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.servers.site import CONSUMERS, DEADLINE_S, Site
from tests.support.programs import HOST
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

LIVING = 5
DOOMED = 60
EXPIRY_S = 1.0
ROUNDS = 5
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends a reset."""

INBOX = """

    class Looker(RoomConsumer):
        groups = []

        async def receive(self, text_data):
            inbox = self.channel_layer._engine.inbox
            boxes, members = inbox.boxes, inbox.members
            kept = [len(boxes._boxes), len(boxes._absent), len(boxes._lapsed), len(members._counts), len(members.all())]
            await self.send(text_data=json.dumps(kept))
"""


AS_CHANNELS_HAS_IT = "class RoomConsumer(AsyncWebsocketConsumer):"
DIRECT = """from channels_sqlite.consumers import DirectDispatch

    class RoomConsumer(DirectDispatch, AsyncWebsocketConsumer):"""


@pytest.fixture(params=[AS_CHANNELS_HAS_IT, DIRECT], ids=["channels", "direct"])
def short_lived(request: pytest.FixtureRequest, site: Site) -> Site:
    """The site with an expiry of a second, and a page that tells what its inbox keeps."""
    site.project.settings(f'CHANNEL_LAYERS["default"]["CONFIG"]["expiry"] = {EXPIRY_S}')
    assert AS_CHANNELS_HAS_IT in CONSUMERS
    site.project.write("project/consumers.py", CONSUMERS.replace(AS_CHANNELS_HAS_IT, request.param) + INBOX)
    asgi = (site.project.folder / "project" / "asgi.py").read_text()
    site.project.write(
        "project/asgi.py",
        asgi.replace("import RoomConsumer", "import Looker, RoomConsumer").replace(
            'URLRouter([path("room", RoomConsumer.as_asgi())',
            'URLRouter([path("look", Looker.as_asgi()), path("room", RoomConsumer.as_asgi())',
        ),
    )
    site.serve(
        "uvicorn", "project.asgi:application", "--host", HOST, "--port", str(site.port), "--log-level", "error",
        resource_warnings=True,
    )  # fmt: skip
    return site


class Visitors:
    """Those who live, each with what has come; the first of them speaks all the time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._connections: list[ClientConnection] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.got: list[list[int]] = [[] for _ in range(LIVING)]
        self.said = 0
        self._speaks = True

    async def visit(self, page: str = "room") -> ClientConnection:
        return await connect(f"ws://{HOST}:{self._site.port}/{page}", open_timeout=DEADLINE_S, ping_interval=None)

    async def come(self) -> None:
        self._connections = [await self.visit() for _ in range(LIVING)]
        self._tasks = [asyncio.create_task(self._hear(number)) for number in range(LIVING)]
        self._tasks.append(asyncio.create_task(self._speak()))

    async def _hear(self, number: int) -> None:
        async for heard in self._connections[number]:
            self.got[number].append(int(json.loads(heard)["text"]))

    async def _speak(self) -> None:
        while self._speaks:
            await self._connections[0].send(str(self.said))
            self.said += 1
            await asyncio.sleep(0.005)

    async def reset_some(self) -> None:
        """Come, hear something, and be cut off while more is on its way."""
        doomed = await asyncio.gather(*(self.visit() for _ in range(DOOMED)))
        await asyncio.gather(*(connection.recv() for connection in doomed))
        for connection in doomed:
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            connection.transport.abort()
            await asyncio.sleep(0.002)

    async def kept(self) -> list[int]:
        """How much the server's inbox keeps: mailboxes, absent consumers, lapsed channels, members, memberships."""
        looker = await self.visit("look")
        try:
            await looker.send("")
            numbers: list[int] = json.loads(await looker.recv())
        finally:
            await looker.close()
        return numbers

    async def fall_silent(self) -> None:
        self._speaks = False
        await self._tasks[-1]
        await aeventually(lambda: all(len(got) >= self.said for got in self.got), DEADLINE_S, what="all has come")

    async def go(self) -> None:
        for connection in self._connections:
            await connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def told(site: Site) -> list[str]:
    return [line for line in site.program.output.splitlines() if "taken out of their groups" in line]


async def test_members_whose_sockets_were_reset_leave_and_the_others_lose_nothing(short_lived: Site) -> None:
    site = short_lived
    visitors = Visitors(site)
    await visitors.come()
    try:
        began_at = time.monotonic()
        for _ in range(ROUNDS):
            await visitors.reset_some()
            await aeventually(lambda: len(site.members()) == LIVING, DEADLINE_S, what="the members that live are left")
            if told(site):  # else every server's receive() was quicker than its send()
                break
        assert 1 <= len(told(site)) <= time.monotonic() - began_at + 1

        async def nothing_is_kept() -> bool:
            # The visitors' own mailboxes, and that of who looks; mailboxes that are empty go within a second.
            return await visitors.kept() == [LIVING + 1, 0, 0, LIVING, LIVING]

        await aeventually(nothing_is_kept, DEADLINE_S)
        await visitors.fall_silent()
        assert visitors.got == [list(range(visitors.said))] * LIVING
        assert "receive faster" not in site.program.output
    finally:
        await visitors.go()
    site.signal(signal.SIGTERM)
    site.program.wait(DEADLINE_S)
    assert "Traceback" not in site.program.output
