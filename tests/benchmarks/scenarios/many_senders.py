"""64 concurrent senders in one process to one channel of another process."""

import asyncio
import time

from tests.benchmarks.measures import Account, Metric, identity, percentile, rate
from tests.benchmarks.player import Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["MANY_SENDERS"]

_SENDERS = 64


async def _send(player: Player) -> Account:
    account = Account()
    durations_us = account.samples_us["send"] = []
    channel = str((await player.wait_for("channel"))[0])
    await player.warm_up(channel)
    numbers = player.numbers()

    async def send(stream: int) -> None:
        for number in numbers:
            name = identity(stream, number)
            start_ns = time.perf_counter_ns()
            await player.send(channel, make_message(name), account)
            durations_us.append((time.perf_counter_ns() - start_ns) / 1000)
            account.sent.append(name)

    account.first_ns = time.perf_counter_ns()
    await asyncio.gather(*(send(stream) for stream in range(_SENDERS)))
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


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["sender"][0].samples_us["send"]
    return {
        "rate": rate([*accounts["sender"], *accounts["receiver"]]),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }


MANY_SENDERS = Scenario(
    key="many-senders",
    title=f"{_SENDERS} concurrent senders in one process to one channel of another",
    roles=(Role(name="receiver", play=_receive), Role(name="sender", play=_send)),
    metrics=(
        Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
        Metric(key="p50", title="send() p50", unit="us", detail=True),
        Metric(key="p99", title="send() p99", unit="us"),
    ),
    figures=_figures,
)
