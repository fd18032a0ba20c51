"""Senders on event loops."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from channels_sqlite import get_channel_layer
from tests.endurance.coroutines import AsyncChild
from tests.endurance.plan import GROUP, GROUP_ID, MAIN, SENT_TO, SENT_TO_SHORT, SHARES, SHORT
from tests.endurance.station import Directory, Source, Station

BURST = 10
LAG_LIMIT_S, LAG_FINE_S = 2.0, 1.0
CATCH_UP_S = 0.2

Rates = dict[str, float]
"""Calls a second of each kind."""

SENDER_RATES: Rates = {"normal": 100, "specific": 30, "broadcast": 20, "burst": 5, "short": 15}
OBSERVER_RATES: Rates = {"normal": 10, "specific": 10, "broadcast": 10, "short": 2}


class Sending:
    """The senders of one process: a task for each kind of call."""

    def __init__(self, child: AsyncChild, rates: Rates) -> None:
        self._child = child
        self._rates = rates
        self._layers = {alias: get_channel_layer(alias) for alias in (MAIN, SHORT)}
        self._directory = Directory(child.station.folder)
        self._quiet = False
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        kinds: dict[str, Callable[[Source], Awaitable[None]]] = {
            "normal": self._normal,
            "specific": self._specific,
            "broadcast": self._broadcast,
            "burst": self._burst,
            "short": self._short,
        }
        for kind, rate in self._rates.items():
            pace = rate * self._child.station.pace
            self._tasks.append(self._child.spawn(self._paced(pace, kinds[kind], self._child.new_source())))

    async def quiet(self) -> None:
        """Bring what is under way to its end, and send no more."""
        self._quiet = True
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _paced(self, rate: float, act: Callable[[Source], Awaitable[None]], source: Source) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        while not self._quiet:
            await asyncio.sleep(max(0.0, due - now()))
            due = max(due + self._child.random.uniform(0.5, 1.5) / rate, now() - CATCH_UP_S)
            if self._child.station.board.lag_s() > LAG_LIMIT_S:
                while self._child.station.board.lag_s() > LAG_FINE_S and not self._quiet:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await act(source)

    # One call of each kind

    async def _normal(self, source: Source) -> None:
        channel = self._child.random.choices(SENT_TO, SHARES)[0]
        await self._send(MAIN, channel.name, source, channel.id)

    async def _short(self, source: Source) -> None:
        channel = self._child.random.choice(SENT_TO_SHORT)
        await self._send(SHORT, channel.name, source, channel.id)

    async def _specific(self, source: Source) -> None:
        channels = self._directory.channels()
        if channels:
            number, name = self._child.random.choice(channels)
            await self._send(MAIN, name, source, number)

    async def _burst(self, source: Source) -> None:
        """Sends that are gathered keep the order of their calls."""
        channel = self._child.random.choices(SENT_TO, SHARES)[0]
        await asyncio.gather(*(self._send(MAIN, channel.name, source, channel.id) for _ in range(BURST)))

    async def _broadcast(self, source: Source) -> None:
        message = source.message(GROUP_ID, small=True)
        await self._told("group_send", source, message, self._layers[MAIN].group_send(GROUP, message))

    async def _send(self, alias: str, name: str, source: Source, target: int) -> None:
        message = source.message(target)
        await self._told("send", source, message, self._layers[alias].send(name, message))

    async def _told(self, kind: str, source: Source, message: dict[str, Any], call: Awaitable[None]) -> None:
        error: BaseException | None = None
        with self._child.calls.call(kind):
            try:
                await call
            except Exception as raised:  # noqa: BLE001  # written down, and judged
                error = raised
                if not source.done(message, error):
                    self._child.unexpected(kind)
        if error is None:
            source.done(message, None)


class Sender(AsyncChild):
    """A process that only sends."""

    def __init__(self, station: Station) -> None:
        super().__init__(station)
        self._sending = Sending(self, SENDER_RATES)

    async def begin(self) -> None:
        self._sending.begin()

    async def do_quiet(self) -> None:
        await self._sending.quiet()
        self.say(quiet=True)

    async def do_close(self, times: int) -> None:
        for _ in range(times):
            await self.close_layers()
            await asyncio.sleep(self.random.uniform(0, 0.05))

    async def end(self) -> None:
        await self.cancel_all()
        await self.close_layers()
