"""What the processes of these tests do."""

import asyncio
import math
import random
from typing import Any

from channels_sqlite.engine import checkpoints
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.processes.given_ids import GivenIds
from tests.processes.evidence import Journal
from tests.support.child import Parent

GROUP = "room"


async def send_numbers(parent: Parent, *, sender: int, count: int, journal: str) -> None:
    """Once told to, send so many messages, and write each down that was sent."""
    layer = parent.make_layer()
    out = Journal(journal)
    parent.say("ready")
    await parent.ahear()
    for number in range(count):
        await layer.group_send(GROUP, {"type": "chat", "sender": sender, "n": number})
        out.write([sender, number])
    out.close()
    parent.say("done")


class Visitor:
    """Somebody who loses the connection again and again, and writes down what is seen."""

    def __init__(self, layer: SqliteChannelLayer, position: str, out: Journal, seed: int) -> None:
        self.layer = layer
        self.position = position
        self.out = out
        self.dice = random.Random(seed)

    def see(self, message: dict[str, Any], position: str) -> None:
        self.out.write([message["sender"], message["n"], position])
        self.position = position

    async def subscribe(self, channel: str) -> None:
        history = await self.layer.group_subscribe(GROUP, channel, since=self.position)
        if not history.recovered:
            self.out.write("not recovered")
        for entry in history.entries:
            self.see(entry.message, entry.position)
        self.position = history.position

    async def visit(self) -> None:
        """Come, hear a few messages, maybe lose a subscription half-way, maybe subscribe once more, and go."""
        channel = await self.layer.new_channel()
        if self.dice.random() < 0.3:
            # Cancelled at some await, or done: whoever was cancelled has seen nothing.
            lost = asyncio.create_task(self.layer.group_subscribe(GROUP, channel, since=self.position))
            await asyncio.sleep(0)
            lost.cancel()
            await asyncio.wait([lost])
        await self.subscribe(channel)
        for _ in range(self.dice.randrange(4)):
            for _ in range(self.dice.randrange(6)):
                try:
                    message = await asyncio.wait_for(self.layer.receive(channel), 0.05)
                except asyncio.TimeoutError:
                    break
                self.see(message, message["__position__"])
            if self.dice.random() < 0.5:
                await self.subscribe(channel)  # what waits unread is withdrawn
        await self.layer.group_discard(GROUP, channel)


async def come_and_go(parent: Parent, *, position: str, journals: list[str]) -> None:
    """Be so many visitors until told to stop; then come once more each."""
    layer = parent.make_layer()
    outs = [Journal(journal) for journal in journals]
    stopping = asyncio.Event()

    async def be(visitor: Visitor) -> None:
        while not stopping.is_set():
            await visitor.visit()
        await visitor.subscribe(await layer.new_channel())

    visitors = [Visitor(layer, position, out, seed) for seed, out in enumerate(outs)]
    tasks = [asyncio.create_task(be(visitor)) for visitor in visitors]
    parent.say("ready")
    await parent.ahear()
    stopping.set()
    await asyncio.gather(*tasks)
    for out in outs:
        out.close()
    parent.say("done")


async def read_until_killed(parent: Parent, *, journal: str) -> None:
    """Join, and write down the position of each message that comes."""
    layer = parent.make_layer()
    out = Journal(journal)
    channel = await layer.new_channel()
    await layer.group_subscribe(GROUP, channel)
    parent.say("ready")
    while True:
        message = await layer.receive(channel)
        out.write([message["sender"], message["n"], message["__position__"]])


async def send_and_wait(parent: Parent, *, noting: bool = True) -> None:
    """Send as many as told, and say so, until killed. Without `noting`, as if it was killed before it could."""
    checkpoints.CHECKPOINT_IDLE_S = math.inf
    if not noting:
        GivenIds.note = _note_nothing  # type: ignore[method-assign]  # in this process
    layer = parent.make_layer()
    parent.say("ready")
    number = 0
    while True:
        for _ in range(await parent.ahear()):
            await layer.group_send(GROUP, {"type": "chat", "sender": 0, "n": number})
            number += 1
        parent.say(number)


async def listen_and_tell(parent: Parent) -> None:
    """Join, and tell the position of each message that comes."""
    checkpoints.CHECKPOINT_IDLE_S = math.inf
    layer = parent.make_layer()
    channel = await layer.new_channel()
    await layer.group_subscribe(GROUP, channel)
    parent.say("ready")
    while True:
        parent.say((await layer.receive(channel))["__position__"])


def _note_nothing(self: GivenIds, row_id: int) -> None:
    pass
