"""What the users of a site wait for: broadcasts and echoes through real WebSockets, and sockets that come and go.

Each server is a process with a uvicorn of its own, and the sockets are spread over them. The client is a further
process (`tests/benchmarks/visitors.py`), which counts bytes. CPU and memory are those of the servers' processes.
"""

import asyncio
import itertools
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.benchmarks.measures import Account, Metric, percentile
from tests.benchmarks.player import Player

from .base import Accounts, Role, Scenario
from .idle import resident_mib

__all__ = ["make_echoes", "make_websockets"]

_LINE_LIMIT_BYTES = 2**24
_LEAVING_LIMIT_S = 30.0
_WARM_UP_BROADCASTS = 5
_LAYERS = ("sqlite", "redis-core", "redis-pubsub")
_ECHO_WORKERS, _ECHO_SOCKETS = 2, 300


def make_websockets(*, workers: int, sockets: int, direct: bool) -> Scenario:
    """Return the scenario of broadcasts to all; ``direct``: by consumers with the mixin."""

    async def visit(player: Player) -> Account:
        account = Account()
        async with _visitors() as ask:
            read = _Questions(player, workers)
            ports = [int(port) for port in await player.wait_for("port", workers)]
            before_mib = await read("memory")
            opened = await ask(do="open", ports=ports, sockets=sockets)
            grown_mib = await read("memory") - before_mib
            await ask(do="burst", count=_WARM_UP_BROADCASTS)
            single = await ask(do="broadcast", seconds=player.effort.seconds / 2)
            trial = await ask(do="burst", count=_WARM_UP_BROADCASTS)
            count = max(_WARM_UP_BROADCASTS, int(_WARM_UP_BROADCASTS * player.effort.seconds / trial["seconds"]))
            before_s = await read("cpu")
            burst = await ask(do="burst", count=count)
            cpu_s = await read("cpu") - before_s
            closed = await ask(do="close")
            player.publish("closing")
            left_ns = max(int(ns) for ns in await player.wait_for("left", workers))
        delivered = count * sockets - burst["missing"]
        if single["missing"] or burst["missing"]:
            account.remark = f"{single['missing'] + burst['missing']} deliveries did not arrive"
        account.samples_us.update(
            {
                "single": single["times_us"],
                "rate": [delivered / burst["seconds"]],
                "cpu": [cpu_s / max(1, delivered) * 1e6],
                "memory": [grown_mib / sockets * 1024],
                "joins": [sockets / opened["seconds"]],
                "leaves": [sockets / ((left_ns - closed["start_ns"]) / 1e9)],
            }
        )
        return account

    return Scenario(
        key=f"websockets-{workers}x{sockets}{'-direct' if direct else ''}",
        title=f"Broadcast to {sockets:,} WebSockets of {workers} server{'s' if workers > 1 else ''}"
        f"{', DirectDispatch' if direct else ''}",
        roles=(_servers(workers, direct), Role(name="visitors", play=visit, opens=False)),
        metrics=(
            Metric(key="rate", title="rate", unit="deliveries/s", higher_is_better=True),
            Metric(key="cpu", title="servers' CPU per delivery", unit="us"),
            Metric(key="p50", title="all delivered p50", unit="us"),
            Metric(key="p99", title="all delivered p99", unit="us"),
            Metric(key="memory", title="servers' memory per socket", unit="KiB"),
            Metric(key="joins", title="joins", unit="sockets/s", higher_is_better=True),
            Metric(key="leaves", title="leaves", unit="sockets/s", higher_is_better=True),
        ),
        figures=_broadcast_figures,
        in_quick=False,
        varies=True,
        layers=_LAYERS if workers > 1 else (*_LAYERS, "memory"),
    )


def make_echoes(*, rate: int, direct: bool) -> Scenario:
    """Return the scenario of sockets that speak to pairs of sockets, ``rate`` times in a second."""

    async def visit(player: Player) -> Account:
        account = Account()
        async with _visitors() as ask:
            ports = [int(port) for port in await player.wait_for("port", _ECHO_WORKERS)]
            await ask(do="open", ports=ports, sockets=_ECHO_SOCKETS)
            await ask(do="echo", rate=rate, seconds=0.5)
            echoes = await ask(do="echo", rate=rate, seconds=player.effort.seconds)
            await ask(do="close")
            player.publish("closing")
            await player.wait_for("left", _ECHO_WORKERS)
        account.samples_us["echo"] = echoes["times_us"]
        if echoes["missing"] or echoes["skipped"]:
            account.remark = f"{echoes['missing']} echoes did not arrive, {echoes['skipped']} were not sent in time"
        return account

    return Scenario(
        key=f"websockets-echo-{rate}{'-direct' if direct else ''}",
        title=f"{rate:,} echoes a second by way of groups of two WebSockets{', DirectDispatch' if direct else ''}",
        roles=(_servers(_ECHO_WORKERS, direct), Role(name="visitors", play=visit, opens=False)),
        metrics=(Metric(key="p50", title="echo p50", unit="us"), Metric(key="p99", title="echo p99", unit="us")),
        figures=_echo_figures,
        stretch=2.0,
        in_quick=False,
        varies=True,
        layers=_LAYERS,
    )


# Servers


def _servers(workers: int, direct: bool) -> Role:
    async def serve(player: Player) -> Account:
        # Not before: Django has to be set up.
        import uvicorn

        from .websocket_consumers import Rooms

        rooms = Rooms(direct=direct)
        listening = socket.create_server(("127.0.0.1", 0), backlog=2048)
        config = uvicorn.Config(rooms, lifespan="off", log_level="error", ws="websockets-sansio", ws_ping_interval=None)
        server = uvicorn.Server(config)
        answering = [
            asyncio.ensure_future(_tell(player, "cpu", time.process_time)),
            asyncio.ensure_future(_tell(player, "memory", resident_mib)),
        ]
        serving = asyncio.ensure_future(server.serve(sockets=[listening]))
        try:
            player.publish("port", listening.getsockname()[1])
            await player.wait_for("closing")
            await asyncio.wait_for(rooms.all_left.wait(), _LEAVING_LIMIT_S)
            player.publish("left", rooms.left_ns)
        finally:
            server.should_exit = True
            for task in answering:
                task.cancel()
            await asyncio.wait([serving, *answering])
            listening.close()
        return Account()

    return Role(name="server", play=serve, count=workers)


async def _tell(player: Player, what: str, read: Callable[[], float]) -> None:
    """Answer each question for a figure of this process."""
    for number in itertools.count():
        await player.wait_for(f"{what}? {number}")
        player.publish(f"{what} {number}", f"{os.getpid()} {read()}")


# Visitors


class _Questions:
    """Asks the servers for figures of their processes."""

    def __init__(self, player: Player, servers: int) -> None:
        self._player = player
        self._servers = servers
        self._asked: Counter[str] = Counter()

    async def __call__(self, what: str) -> float:
        """Return the sum over the processes: two servers may be in one."""
        number = self._asked[what]
        self._asked[what] += 1
        self._player.publish(f"{what}? {number}")
        answers = await self._player.wait_for(f"{what} {number}", self._servers)
        return sum(float(value) for value in dict(str(answer).split() for answer in answers).values())


@asynccontextmanager
async def _visitors() -> AsyncIterator[Callable[..., Awaitable[dict[str, Any]]]]:
    """Run the client; what is yielded makes a request and returns the answer."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.visitors"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_LIMIT_BYTES,
    )

    async def ask(**request: object) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the visitors have ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    try:
        yield ask
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# Figures


def _broadcast_figures(accounts: Accounts) -> Mapping[str, float]:
    samples = accounts["visitors"][0].samples_us
    return {
        **{key: samples[key][0] for key in ("rate", "cpu", "memory", "joins", "leaves")},
        "p50": percentile(samples["single"], 50),
        "p99": percentile(samples["single"], 99),
    }


def _echo_figures(accounts: Accounts) -> Mapping[str, float]:
    times_us = accounts["visitors"][0].samples_us["echo"]
    return {"p50": percentile(times_us, 50), "p99": percentile(times_us, 99)}
