"""How late what is sent later is: one process schedules a message to itself, again and again."""

import math
import time
from typing import Any, cast

from tests.benchmarks.layers import OURS
from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import SETTLING, Player, make_message

from .base import START_LIMIT_S, Accounts, Role, Scenario
from .stored import FILLING_LIMIT_S, OTHERS_LIMITS, store_later

__all__ = ["LATER", "LATER_WITH_SCHEDULED"]

_DELAY_S = 0.01


async def _schedule(player: Player) -> Account:
    account = Account()
    late_us = account.samples_us["late"] = []
    layer = cast("Any", player.layer)  # others send at once
    channel = await layer.new_channel()
    await player.settle(channel)
    for _ in player.warm_up_numbers():
        await layer.send_later(channel, make_message(SETTLING), delay=0)
        await layer.receive(channel)
    account.first_ns = time.perf_counter_ns()
    for number in player.numbers():
        name = identity(0, number)
        start_ns = time.perf_counter_ns()
        await layer.send_later(channel, make_message(name), delay=_DELAY_S)
        account.sent.append(name)
        message = await layer.receive(channel)
        account.last_ns = time.perf_counter_ns()
        late_us.append((account.last_ns - start_ns) / 1000 - _DELAY_S * 1e6)
        account.received.append(message["identity"])
    return account


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["process"][0].samples_us["late"]
    return {key: percentile(samples, share) if samples else math.nan for key, share in (("p50", 50), ("p99", 99))}


def _make(key: str, title: str, *, filler: Role | None = None, base: str | None = None) -> Scenario:
    process = Role(name="process", play=_schedule)
    return Scenario(
        key=key,
        title=title,
        roles=(filler, process) if filler else (process,),
        metrics=(Metric(key="p50", title="p50", unit="us"), Metric(key="p99", title="p99", unit="us")),
        figures=_figures,
        limits=OTHERS_LIMITS,
        start_limit_s=FILLING_LIMIT_S if filler else START_LIMIT_S,
        base=base,
        varies=base is None,
        layers=(OURS.key,),
        in_quick=False,
    )


LATER = _make("later", "Lateness of a message that is sent 10 ms later")
LATER_WITH_SCHEDULED = _make(
    "later-scheduled", "The same, with other messages scheduled", filler=store_later(), base="later"
)
