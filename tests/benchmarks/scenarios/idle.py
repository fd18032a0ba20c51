"""What a process costs in which 1,000 receivers wait and nothing is sent.

Only the process is measured: the servers that the other layers need come on top. In the end each receiver is sent one
message, to show that it was waiting indeed.
"""

import asyncio
import math
import os
import time
from pathlib import Path

from tests.benchmarks.measures import Account, Metric, identity
from tests.benchmarks.player import SETTLING, Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["IDLE", "resident_mib"]

_RECEIVERS = 1_000
_QUIET_S = 0.5


async def _wait(player: Player) -> Account:
    account = Account()
    channels = [await player.layer.new_channel() for _ in range(_RECEIVERS)]

    async def read(stream: int, channel: str) -> None:
        while True:
            message = await player.layer.receive(channel)
            if message["identity"] != SETTLING:
                account.received.append(identity(stream, message["identity"]))

    async with player.background(*(read(stream, channel) for stream, channel in enumerate(channels))):
        await player.settle()
        await asyncio.sleep(_QUIET_S)
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.sleep(player.effort.seconds)
        cpu_s = time.process_time() - start_cpu_s
        account.samples_us["cpu per second"] = [cpu_s / (time.perf_counter() - start_s)]
        account.samples_us["memory"] = [resident_mib()]
        for stream, channel in enumerate(channels):
            await player.layer.send(channel, make_message(0))
            account.sent.append(identity(stream, 0))
        player.publish("sent", len(account.sent))
        await player.drain(account, readers=1, senders=1)
    return account


def resident_mib() -> float:
    """Return the memory of this process that is in RAM; NaN where the kernel does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["process"][0].samples_us
    return {"cpu": samples["cpu per second"][0], "memory": samples["memory"][0]}


IDLE = Scenario(
    key="idle",
    title=f"Idle process with {_RECEIVERS:,} waiting receivers",
    roles=(Role(name="process", play=_wait),),
    metrics=(
        Metric(key="cpu", title="CPU", unit="s/s"),
        Metric(key="memory", title="resident memory", unit="MiB"),
    ),
    figures=_figures,
    stretch=2.0,
)
