"""Readers on event loops: of normal channels, of channels of their own, and members of a group."""

import asyncio
import time
from dataclasses import dataclass

from channels_sqlite import get_channel_layer
from channels_sqlite.exceptions import LayerClosedError
from tests.endurance.coroutines import AsyncChild
from tests.endurance.journal import Kind, Stuck
from tests.endurance.plan import FURNITURE, GROUP, GROUP_ID, LONG_LIVED, MAIN, MIXED, NORMAL, SHORT, Furniture
from tests.endurance.sending import OBSERVER_RATES, Sending
from tests.endurance.station import LAST, Directory, Station

CANCELLED_SHARE, CANCELLED_SHARE_OF_MEMBERS = 0.1, 0.004
CANCEL_AFTER_S = (0.0, 0.0005, 0.003, 0.02, 0.2)
PAUSE_SHARE, LONGEST_PAUSE_S = 0.05, 3.5
IN_DIRECTORY = 6
END_LOOKS, END_LOOK_S = 10, 1.0
"""A receive() of a closed layer has ended by then. Looks are counted: the process may be stopped meanwhile."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one task receives on."""

    id: int
    name: str
    alias: str = MAIN
    cancelled_share: float = CANCELLED_SHARE
    hasty: bool = False
    pauses: bool = False
    specific: bool = False


class Reader(AsyncChild):
    """A process that reads."""

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self.layers = {alias: get_channel_layer(alias) for alias in (MAIN, SHORT)}
        self._furniture = FURNITURE.get(self.slot, Furniture())
        self._directory = Directory(station.folder)
        self._places: dict[str, int] = {}  # of this process's own channels, by name
        self._pooled: dict[str, int] = {}  # of those read by the part up to the `!`, also of layers closed since
        self._reading: dict[asyncio.Task[None], Reading] = {}
        self._open = asyncio.Event()
        self._closing = asyncio.Lock()
        self._calm = False

    async def begin(self) -> None:
        self._open.set()
        await self._furnish()
        for channel in NORMAL:
            for _ in range(channel.receivers.get(self.slot, 0)):
                share = CANCELLED_SHARE if channel.cancels else 0.0
                self._read_on(Reading(channel.id, channel.name, channel.alias, share, channel.hasty, channel.pauses))
        if self.slot in MIXED.receivers:
            await self.join(MIXED.id, MIXED.name)

    async def join(self, place: int, name: str) -> None:
        self.journal.write(Kind.JOINING, target=GROUP_ID, place=place)
        with self.calls.call("group_add"):
            await self.layers[MAIN].group_add(GROUP, name)
        self.journal.write(Kind.JOINED, target=GROUP_ID, place=place)

    async def new_channel(self, prefix: str) -> tuple[int, str]:
        with self.calls.call("new_channel"):
            name = await self.layers[MAIN].new_channel(prefix)
        place = self._places[name] = self.new_place()
        return place, name

    async def _furnish(self) -> None:
        """Make this process's own channels, read them, and let them join the group."""
        wanted = self._furniture
        named = [await self.new_channel("seat") for _ in range(wanted.named)]
        pooled = [await self.new_channel("flock") for _ in range(wanted.pooled)]
        self._pooled.update({name: place for place, name in pooled})
        for place, name in named:
            self._read_on(Reading(place, name, cancelled_share=CANCELLED_SHARE_OF_MEMBERS, specific=True))
        for _ in range(wanted.pool_receivers):
            place, name = pooled[0]
            queue = name[: name.index("!") + 1]
            self._read_on(Reading(place, queue, cancelled_share=CANCELLED_SHARE_OF_MEMBERS, specific=True))
        for place, name in (*named, *pooled):
            # Elsewhere some channels stay outside.
            if self.slot in LONG_LIVED or place % 2:
                await self.join(place, name)
        self._directory.publish(self.slot, [*named[:IN_DIRECTORY], *pooled[:IN_DIRECTORY]])

    # Receiving

    def _read_on(self, reading: Reading) -> None:
        task = self.spawn(self._read(reading))
        self._reading[task] = reading
        task.add_done_callback(self._reading.pop)

    async def _read(self, reading: Reading) -> None:
        """Receive until the last message."""
        draw = self.random
        while True:
            if not self._calm and reading.pauses and draw.random() < PAUSE_SHARE:
                await asyncio.sleep(draw.uniform(0, LONGEST_PAUSE_S))
            try:
                if not self._calm and draw.random() < reading.cancelled_share:
                    last = await self._take_and_cancel(reading, draw.choice(CANCEL_AFTER_S))
                else:
                    last = await self.take(reading)
            except LayerClosedError:
                if reading.specific:
                    return
                if reading.hasty:
                    await asyncio.sleep(draw.choice((0.0, 0.0005, 0.003)))
                continue
            except ValueError:
                if reading.specific and reading.name not in self._places:
                    return  # its layer was closed before this call
                raise
            if last:
                return

    async def take(self, reading: Reading) -> bool:
        """Receive one message and write it down, in the same step of the loop; return whether it is the last."""
        if not (reading.hasty or reading.specific):
            await self._open.wait()  # a task of its own begins when a close() may have begun
        message = await self.layers[reading.alias].receive(reading.name)
        full_name = message.get("__asgi_channel__")
        return self.note(message, self._pooled[str(full_name)] if full_name is not None else reading.id)

    async def _take_and_cancel(self, reading: Reading, after_s: float) -> bool:
        """The same, cancelled when nothing came for a while.

        The message is written down inside the task: asyncio.wait_for() might throw a result away, and whoever looks at
        the finished task comes later than others who received after it.
        """
        task = asyncio.ensure_future(self.take(reading))
        try:
            await asyncio.wait({task}, timeout=after_s)
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})
        if task.cancelled():
            self.journal.write(Kind.CANCELLED)
            return False
        return task.result()

    # Commands

    async def do_close(self, times: int) -> None:
        for _ in range(times):
            async with self._closing:
                if self._calm:  # what is being waited on has been told
                    return
                await self._close()
                self._open.set()
                await self._furnish()
            await asyncio.sleep(self.random.uniform(0, 0.03))

    async def _close(self) -> None:
        self._open.clear()
        own = [task for task, reading in self._reading.items() if reading.specific]
        for place in self._places.values():
            self.journal.write(Kind.GONE, place=place)
        self._places.clear()
        self._directory.publish(self.slot, [])
        await self.close_layers()
        for _ in range(END_LOOKS):
            if not own:
                return
            _, pending = await asyncio.wait(own, timeout=END_LOOK_S)
            own = list(pending)
        for task in own:
            self.journal.write(Kind.STUCK, number=Stuck.RECEIVE, place=self._reading[task].id)
            self.show(task)
            task.cancel()

    async def do_calm(self) -> None:
        """Cancel no more, and say what is being waited on."""
        self._calm = True
        for task, reading in list(self._reading.items()):
            if reading.alias == SHORT:
                task.cancel()
        async with self._closing:
            names = {place: name for name, place in self._places.items()}
            self.say(
                waiting=[
                    [reading.id, names.get(reading.id, reading.name), reading.alias]
                    for reading in self._reading.values()
                    if reading.alias == MAIN
                ],
                own=list(self._places.values()),
            )

    async def do_explain(self) -> None:
        """Write down where those stand that have not received their last message."""
        for task in self._reading:
            self.show(task)

    async def end(self) -> None:
        async with self._closing:
            if self.random.random() < 0.7:  # as most servers do
                await self.cancel_all()
                await self.close_layers()
            else:
                await self._close()
                await self.cancel_all()


class Observer(Reader):
    """Lives from the beginning to the end, sends calmly, and sends the last messages."""

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self._sending = Sending(self, OBSERVER_RATES)

    async def begin(self) -> None:
        await super().begin()
        self._sending.begin()

    async def do_quiet(self) -> None:
        await self._sending.quiet()
        self.say(quiet=True)

    async def do_finish(self, channels: list[tuple[int, str]]) -> None:
        """Send a last message to each of `channels`, one for each receive() that waits there."""
        for target, name in channels:
            with self.calls.call("send"):
                await self.layers[MAIN].send(name, {"type": LAST, "t": target, "at": time.time()})
        self.say(finished=len(channels))


class Churner(Reader):
    """A process whose channels join the group, receive for a while, and leave."""

    MEMBERS = 4

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self._closes = 0  # begun so far

    async def begin(self) -> None:
        self._open.set()
        for _ in range(self.MEMBERS):
            _ = self.spawn(self._churn())

    async def _churn(self) -> None:
        while not self._calm:
            await self._open.wait()
            try:
                await self._one_membership()
            except LayerClosedError:
                pass

    async def _one_membership(self) -> None:
        closes = self._closes
        place, name = await self.new_channel("seat")
        task = self.spawn(self._receive(closes, Reading(place, name, cancelled_share=0.0, specific=True)))
        try:
            await self.join(place, name)
            await asyncio.sleep(self.random.choice((0.0, 0.05, 0.5, 2.0)))
            with self.calls.call("group_add"):  # renewed
                await self.layers[MAIN].group_add(GROUP, name)
            await asyncio.sleep(self.random.choice((0.0, 0.05, 0.5)))
            self.journal.write(Kind.GONE, place=place)
            with self.calls.call("group_discard"):
                await self.layers[MAIN].group_discard(GROUP, name)
        finally:
            self._places.pop(name, None)
            task.cancel()
            await asyncio.wait({task})

    async def _receive(self, closes: int, reading: Reading) -> None:
        try:
            while True:
                await self.take(reading)
        except (LayerClosedError, ValueError):
            if self._closes == closes:
                raise  # its layer was not closed

    async def do_close(self, times: int) -> None:
        for _ in range(times):
            async with self._closing:
                if self._calm:
                    return
                self._open.clear()
                self._closes += 1
                await self.close_layers()
                self._open.set()
            await asyncio.sleep(self.random.uniform(0, 0.03))

    async def end(self) -> None:
        self._closes += 1
        await super().end()

    async def do_calm(self) -> None:
        self._calm = True
        tasks = self._tasks - {task for task in (asyncio.current_task(),) if task is not None}
        if tasks:
            await asyncio.wait(tasks)
        self.say(waiting=[], own=[])
