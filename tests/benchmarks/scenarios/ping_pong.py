"""Ping-pong between two processes: half of the round trip."""

import time

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["PING_PONG"]

_WARM_UP = 20


async def _serve(player: Player) -> Account:
    account = Account()
    durations_us = account.samples_us["half"] = []
    layer = player.layer
    mine = await layer.new_channel()
    await player.settle()
    player.publish("serving", mine)
    theirs = str((await player.wait_for("returning"))[0])
    for number in range(_WARM_UP):
        await layer.send(theirs, make_message(identity(1, number)))
        await layer.receive(mine)
    for number in player.numbers():
        name = identity(0, number)
        start_ns = time.perf_counter_ns()
        await layer.send(theirs, make_message(name))
        account.sent.append(name)
        message = await layer.receive(mine)
        durations_us.append((time.perf_counter_ns() - start_ns) / 2000)
        account.received.append(message["identity"])
    player.publish("over")
    return account


async def _return(player: Player) -> Account:
    layer = player.layer
    mine = await layer.new_channel()
    await player.settle()
    player.publish("returning", mine)
    theirs = str((await player.wait_for("serving"))[0])

    async def echo() -> None:
        while True:
            message = await layer.receive(mine)
            await layer.send(theirs, {key: value for key, value in message.items() if key != "__asgi_channel__"})

    async with player.background(echo()):
        await player.wait_for("over")
    return Account()


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["server"][0].samples_us["half"]
    return {"p50": percentile(samples, 50), "p99": percentile(samples, 99)}


PING_PONG = Scenario(
    key="ping-pong",
    title="Ping-pong between two processes, half of the round trip",
    roles=(Role(name="server", play=_serve), Role(name="returner", play=_return)),
    metrics=(
        Metric(key="p50", title="p50", unit="us"),
        Metric(key="p99", title="p99", unit="us"),
    ),
    figures=_figures,
)
