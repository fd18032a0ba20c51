"""Ping-pong between two processes: half of the round trip."""

import time

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import Player, make_message
from tests.benchmarks.stores import Limits

from .base import START_LIMIT_S, Accounts, Role, Scenario
from .stored import DEEP_LIMITS, FILLING_LIMIT_S, OTHERS_LIMITS, store_deep, store_in_others

__all__ = ["PING_PONG", "PING_PONG_BESIDE_DEEP", "PING_PONG_WITH_BACKLOG"]


async def _serve(player: Player) -> Account:
    account = Account()
    durations_us = account.samples_us["half"] = []
    layer = player.layer
    mine = await layer.new_channel()
    await player.settle(mine)
    player.publish("serving", mine)
    theirs = str((await player.wait_for("returning"))[0])
    for number in player.warm_up_numbers():
        name = identity(1, number)
        await layer.send(theirs, make_message(name))
        # Messages of the settling may come first.
        while (await layer.receive(mine))["identity"] != name:
            pass
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
    await player.settle(mine)
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


def _make(
    key: str,
    title: str,
    *,
    filler: Role | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    in_quick: bool = True,
) -> Scenario:
    players = (Role(name="returner", play=_return), Role(name="server", play=_serve))
    return Scenario(
        key=key,
        title=title,
        roles=(filler, *players) if filler else players,
        metrics=(
            Metric(key="p50", title="p50", unit="us"),
            Metric(key="p99", title="p99", unit="us"),
        ),
        figures=_figures,
        limits=limits or Limits(),
        start_limit_s=FILLING_LIMIT_S if filler else START_LIMIT_S,
        base=base,
        in_quick=in_quick,
    )


PING_PONG = _make("ping-pong", "Ping-pong between two processes, half of the round trip")
PING_PONG_WITH_BACKLOG = _make(
    "ping-pong-backlog",
    "Ping-pong between two processes, with unread messages stored on other channels",
    filler=store_in_others(),
    limits=OTHERS_LIMITS,
    base="ping-pong",
    in_quick=False,
)
PING_PONG_BESIDE_DEEP = _make(
    "ping-pong-deep",
    "Ping-pong between two processes, beside one channel that holds a backlog",
    filler=store_deep(is_read=False),
    limits=DEEP_LIMITS,
    base="ping-pong",
    in_quick=False,
)
