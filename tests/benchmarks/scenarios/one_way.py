"""Latency from one process to another at 50 messages a second, when both have time to fall asleep in between."""

import asyncio
import time

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import SETTLING, Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["ONE_WAY"]

_INTERVAL_S = 1 / 50


async def _send(player: Player) -> Account:
    account = Account()
    layer = player.layer
    channel = str((await player.wait_for("channel"))[0])
    await player.warm_up(channel)
    account.first_ns = time.perf_counter_ns()
    due_s = time.perf_counter()
    for number in player.numbers():
        name = identity(0, number)
        await layer.send(channel, make_message(name))
        account.sent.append(name)
        due_s += _INTERVAL_S
        await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
    player.publish("sent", len(account.sent))
    return account


async def _receive(player: Player) -> Account:
    account = Account()
    latencies_us = account.samples_us["latency"] = []
    layer = player.layer
    channel = await layer.new_channel()

    async def read() -> None:
        while True:
            message = await layer.receive(channel)
            account.last_ns = time.perf_counter_ns()
            if message["identity"] == SETTLING:
                continue
            latencies_us.append((account.last_ns - message["sent_ns"]) / 1000)
            account.received.append(message["identity"])

    async with player.background(read()):
        await player.settle()
        player.publish("channel", channel)
        await player.drain(account, readers=1, senders=1)
    return account


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["receiver"][0].samples_us["latency"]
    return {"p50": percentile(samples, 50), "p99": percentile(samples, 99)}


ONE_WAY = Scenario(
    key="one-way",
    title="One way between two processes at 50 messages/s, latency",
    roles=(Role(name="receiver", play=_receive), Role(name="sender", play=_send)),
    metrics=(
        Metric(key="p50", title="p50", unit="us"),
        Metric(key="p99", title="p99", unit="us"),
    ),
    figures=_figures,
    stretch=3.0,
)
