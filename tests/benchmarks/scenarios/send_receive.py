"""Send, then receive, in one process: what a layer costs with nothing to wait for."""

import time

from tests.benchmarks.measures import Account, Metric, identity, percentile, rate
from tests.benchmarks.player import Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["SEND_RECEIVE"]


async def _alternate(player: Player) -> Account:
    account = Account()
    durations_us = account.samples_us["pair"] = []
    layer = player.layer
    channel = await layer.new_channel()
    await player.settle()
    account.first_ns = time.perf_counter_ns()
    for number in player.numbers():
        name = identity(0, number)
        start_ns = time.perf_counter_ns()
        await layer.send(channel, make_message(name))
        account.sent.append(name)
        message = await layer.receive(channel)
        account.last_ns = time.perf_counter_ns()
        durations_us.append((account.last_ns - start_ns) / 1000)
        account.received.append(message["identity"])
    return account


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["process"][0].samples_us["pair"]
    return {
        "rate": rate(accounts["process"]),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }


SEND_RECEIVE = Scenario(
    key="send-receive",
    title="Send then receive in one process",
    roles=(Role(name="process", play=_alternate),),
    metrics=(
        Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
        Metric(key="p50", title="p50", unit="us"),
        Metric(key="p99", title="p99", unit="us"),
    ),
    figures=_figures,
)
