"""A work queue: 2 producers and 2 workers, each a process of its own, on one normal channel."""

import time

from tests.benchmarks.measures import Account, Metric, identity, percentile, rate
from tests.benchmarks.player import Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["WORK_QUEUE"]

_PRODUCERS = 2
_WORKERS = 2
_CHANNEL = "work"


async def _produce(player: Player) -> Account:
    account = Account()
    durations_us = account.samples_us["send"] = []
    await player.settle()
    player.publish("ready")
    await player.wait_for("ready", _PRODUCERS + _WORKERS)
    account.first_ns = time.perf_counter_ns()
    for number in player.numbers():
        name = identity(player.index, number)
        start_ns = time.perf_counter_ns()
        await player.send(_CHANNEL, make_message(name), account)
        durations_us.append((time.perf_counter_ns() - start_ns) / 1000)
        account.sent.append(name)
    player.publish("sent", len(account.sent))
    return account


async def _work(player: Player) -> Account:
    account = Account()
    async with player.background(player.read(_CHANNEL, account)):
        await player.settle()
        player.publish("ready")
        await player.drain(account, readers=_WORKERS, senders=_PRODUCERS)
    return account


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = [sample for account in accounts["producer"] for sample in account.samples_us["send"]]
    return {
        "rate": rate([*accounts["producer"], *accounts["worker"]]),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }


WORK_QUEUE = Scenario(
    key="work-queue",
    title=f"Work queue, {_PRODUCERS} producers and {_WORKERS} workers",
    roles=(
        Role(name="producer", play=_produce, count=_PRODUCERS),
        Role(name="worker", play=_work, count=_WORKERS),
    ),
    metrics=(
        Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
        Metric(key="p50", title="send() p50", unit="us"),
        Metric(key="p99", title="send() p99", unit="us"),
    ),
    figures=_figures,
)
