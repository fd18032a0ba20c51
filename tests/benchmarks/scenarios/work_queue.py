"""A work queue: 2 producers and 2 workers, each a process of its own, on one normal channel.

On a channel that holds a backlog, the workers stop when they have taken as many as the producers have sent: what they
take is older. So that the two can be compared, the clock stops then, too.
"""

import asyncio
import math
import time

from tests.benchmarks.layers import OURS
from tests.benchmarks.measures import Account, Metric, identity, percentile, rate
from tests.benchmarks.player import SETTLING, Player, make_message
from tests.benchmarks.stores import Limits

from .base import START_LIMIT_S, Accounts, Role, Scenario
from .stored import DEEP, DEEP_LIMITS, FILLING_LIMIT_S, OTHERS_LIMITS, store_deep, store_in_others, store_later

__all__ = ["WORK_QUEUE", "WORK_QUEUE_DEEP", "WORK_QUEUE_WITH_BACKLOG", "WORK_QUEUE_WITH_SCHEDULED"]

_PRODUCERS = 2
_WORKERS = 2
_CHANNEL = "work"
_LAST_MESSAGE_LIMIT_S = 2.0


async def _produce(player: Player) -> Account:
    return await _produce_on(_CHANNEL, player)


async def _produce_deep(player: Player) -> Account:
    return await _produce_on(DEEP, player)


async def _produce_on(channel: str, player: Player) -> Account:
    account = Account()
    durations_us = account.samples_us["send"] = []
    player.publish("ready")
    await player.wait_for("ready", _PRODUCERS + _WORKERS)
    await player.warm_up(channel)
    account.first_ns = time.perf_counter_ns()
    for number in player.numbers():
        name = identity(player.index, number)
        start_ns = time.perf_counter_ns()
        await player.send(channel, make_message(name), account)
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


async def _work_deep(player: Player) -> Account:
    account = Account()
    arrivals_us = account.samples_us["arrival"] = []
    over = asyncio.Event()

    async def work() -> None:
        while not over.is_set():
            message = await player.layer.receive(DEEP)
            if message["identity"] != SETTLING:
                account.received.append(message["identity"])
                arrivals_us.append(time.perf_counter_ns() / 1000)

    player.publish("ready")
    await player.wait_for("ready", _PRODUCERS + _WORKERS)
    working = asyncio.ensure_future(work())
    await player.drain(account, readers=_WORKERS, senders=_PRODUCERS, to_the_end=False)
    over.set()
    # Not cancelled at once: its last message would stay behind, and be taken for a loss.
    await asyncio.wait((working,), timeout=_LAST_MESSAGE_LIMIT_S)
    working.cancel()
    await asyncio.wait((working,))
    if not working.cancelled():
        working.result()
    return account


def _send_percentiles(accounts: Accounts) -> dict[str, float]:
    samples = [sample for account in accounts["producer"] for sample in account.samples_us["send"]]
    return {"p50": percentile(samples, 50), "p99": percentile(samples, 99)}


def _figures(accounts: Accounts) -> dict[str, float]:
    return {"rate": rate([*accounts["producer"], *accounts["worker"]]), **_send_percentiles(accounts)}


def _figures_deep(accounts: Accounts) -> dict[str, float]:
    start_us = min(account.first_ns for account in accounts["producer"]) / 1000
    sent = sum(len(account.sent) for account in accounts["producer"])
    arrivals_us = sorted(
        arrival_us
        for account in accounts["worker"]
        for arrival_us in account.samples_us["arrival"]
        if arrival_us >= start_us
    )[:sent]
    took_s = (arrivals_us[-1] - start_us) / 1e6 if arrivals_us else math.nan
    return {"rate": len(arrivals_us) / took_s, **_send_percentiles(accounts)}


def _make(
    key: str,
    title: str,
    *,
    filler: Role | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    layers: tuple[str, ...] = (),
    in_quick: bool = True,
) -> Scenario:
    is_deep = limits is DEEP_LIMITS
    players = (
        Role(name="worker", play=_work_deep if is_deep else _work, count=_WORKERS),
        Role(name="producer", play=_produce_deep if is_deep else _produce, count=_PRODUCERS),
    )
    return Scenario(
        key=key,
        title=title,
        roles=(filler, *players) if filler else players,
        metrics=(
            Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
            Metric(key="p50", title="send() p50", unit="us", detail=True),
            Metric(key="p99", title="send() p99", unit="us"),
        ),
        figures=_figures_deep if is_deep else _figures,
        limits=limits or Limits(),
        start_limit_s=FILLING_LIMIT_S if filler else START_LIMIT_S,
        base=base,
        layers=layers,
        open_ended=is_deep,
        in_quick=in_quick,
    )


WORK_QUEUE = _make("work-queue", f"Work queue, {_PRODUCERS} producers and {_WORKERS} workers")
WORK_QUEUE_WITH_BACKLOG = _make(
    "work-queue-backlog",
    "Work queue, with unread messages stored on other channels",
    filler=store_in_others(),
    limits=OTHERS_LIMITS,
    base="work-queue",
    in_quick=False,
)
WORK_QUEUE_DEEP = _make(
    "work-queue-deep",
    "Work queue on a channel that holds a backlog",
    filler=store_deep(is_read=True),
    limits=DEEP_LIMITS,
    base="work-queue",
    in_quick=False,
)
WORK_QUEUE_WITH_SCHEDULED = _make(
    "work-queue-scheduled",
    "Work queue, with messages scheduled for later",
    filler=store_later(),
    limits=OTHERS_LIMITS,
    base="work-queue",
    layers=(OURS.key,),
    in_quick=False,
)
