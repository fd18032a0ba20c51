"""How late a 1 ms ticker is on an event loop that sends 500 messages a second to another process.

Where the store is an SQLite file of ours, a third process holds its write lock for 50 ms out of every 100 meanwhile.
"""

import asyncio
import sqlite3
import time

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["LAG"]

_TICK_S = 0.001
_INTERVAL_S = 1 / 500
_HELD_S = 0.05
_FREE_S = 0.05
_LOCK_LIMIT_S = 20.0


async def _serve(player: Player) -> Account:
    account = Account()
    lags_us = account.samples_us["lag"] = []
    channel = str((await player.wait_for("channel"))[0])
    await player.warm_up(channel)
    await player.wait_for("holding")

    async def tick() -> None:
        while True:
            start_ns = time.perf_counter_ns()
            await asyncio.sleep(_TICK_S)
            lags_us.append((time.perf_counter_ns() - start_ns) / 1000 - _TICK_S * 1e6)

    sends = []
    async with player.background(tick()):
        account.first_ns = time.perf_counter_ns()
        due_s = time.perf_counter()
        for number in player.numbers():
            name = identity(0, number)
            # A server's tasks do not wait for each other's sends, either.
            sends.append(asyncio.ensure_future(player.layer.send(channel, make_message(name))))
            account.sent.append(name)
            due_s += _INTERVAL_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
        await asyncio.gather(*sends)
        account.last_ns = time.perf_counter_ns()
    player.publish("sent", len(account.sent))
    return account


async def _receive(player: Player) -> Account:
    account = Account()
    channel = await player.layer.new_channel()
    async with player.background(player.read(channel, account)):
        await player.settle()
        player.publish("channel", channel)
        await player.drain(account, readers=1, senders=1)
    return account


async def _hold(player: Player) -> Account:
    """Take the write lock again and again, until all was sent."""
    path = player.store.lockable
    if path is None:
        player.publish("holding")
        return Account()
    over = asyncio.ensure_future(player.wait_for("sent"))
    connection = sqlite3.connect(path, timeout=_LOCK_LIMIT_S, isolation_level=None)
    try:
        player.publish("holding")
        while not over.done():
            connection.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(_HELD_S)
            connection.execute("ROLLBACK")
            await asyncio.sleep(_FREE_S)
    finally:
        connection.close()
    return Account()


def _figures(accounts: Accounts) -> dict[str, float]:
    server = accounts["server"][0]
    samples = server.samples_us["lag"]
    return {
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
        "worst": percentile(samples, 100),
        "rate": len(server.sent) / ((server.last_ns - server.first_ns) / 1e9),
    }


LAG = Scenario(
    key="lag",
    title="Lag of a 1 ms ticker beside 500 sends/s; channels_sqlite alone with its write lock held half of the time",
    roles=(
        Role(name="receiver", play=_receive),
        Role(name="server", play=_serve),
        Role(name="holder", play=_hold, opens=False),
    ),
    metrics=(
        Metric(key="p50", title="lag p50", unit="us", detail=True),
        Metric(key="p99", title="lag p99", unit="us"),
        Metric(key="worst", title="lag worst", unit="us", detail=True),
        Metric(key="rate", title="sends done", unit="1/s", higher_is_better=True),
    ),
    figures=_figures,
)
