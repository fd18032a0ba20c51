"""Send, then receive, in one process: what a layer costs with nothing to wait for.

With a deep channel, what is received was sent long before, by the role that filled it.
"""

import math
import time
from collections.abc import Awaitable, Callable

from tests.benchmarks.layers import OURS
from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import SETTLING, Player, make_message
from tests.benchmarks.stores import Limits

from .base import START_LIMIT_S, Accounts, Role, Scenario
from .stored import DEEP, DEEP_LIMITS, FILLING_LIMIT_S, OTHERS_LIMITS, store_deep, store_in_others, store_later

__all__ = [
    "SEND_RECEIVE",
    "SEND_RECEIVE_DEEP",
    "SEND_RECEIVE_NORMAL",
    "SEND_RECEIVE_WITH_BACKLOG",
    "SEND_RECEIVE_WITH_SCHEDULED",
]

_NORMAL = "normal"


def _alternate_on(channel_name: str | None) -> Callable[[Player], Awaitable[Account]]:
    """Return what the role does, on the channel of that name, or on a process-specific one."""

    async def alternate(player: Player) -> Account:
        account = Account()
        durations_us = account.samples_us["pair"] = []
        layer = player.layer
        channel = channel_name or await layer.new_channel()
        if channel != DEEP:
            await player.settle(channel)
        for _ in player.warm_up_numbers():
            await layer.send(channel, make_message(SETTLING))
            message = await layer.receive(channel)
            if message["identity"] != SETTLING:
                account.received.append(message["identity"])
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

    return alternate


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["process"][0].samples_us["pair"]
    return {
        "rate": len(samples) / (sum(samples) / 1e6) if samples else math.nan,
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }


def _make(
    key: str,
    title: str,
    *,
    channel: str | None = None,
    filler: Role | None = None,
    limits: Limits | None = None,
    base: str | None = None,
    layers: tuple[str, ...] = (),
    in_quick: bool = True,
) -> Scenario:
    process = Role(name="process", play=_alternate_on(channel))
    return Scenario(
        key=key,
        title=title,
        roles=(filler, process) if filler else (process,),
        metrics=(
            Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
            Metric(key="p50", title="p50", unit="us"),
            Metric(key="p99", title="p99", unit="us"),
        ),
        figures=_figures,
        limits=limits or Limits(),
        start_limit_s=FILLING_LIMIT_S if filler else START_LIMIT_S,
        base=base,
        layers=layers,
        varies=channel == _NORMAL,
        open_ended=channel == DEEP,
        in_quick=in_quick,
    )


SEND_RECEIVE = _make("send-receive", "Send then receive in one process")
SEND_RECEIVE_NORMAL = _make(
    "send-receive-normal", "Send then receive in one process, on a normal channel", channel=_NORMAL, in_quick=False
)
SEND_RECEIVE_WITH_BACKLOG = _make(
    "send-receive-backlog",
    "Send then receive in one process, with unread messages stored on other channels",
    filler=store_in_others(),
    limits=OTHERS_LIMITS,
    base="send-receive",
)
SEND_RECEIVE_DEEP = _make(
    "send-receive-deep",
    "Send then receive in one process, on a normal channel that holds a backlog",
    channel=DEEP,
    filler=store_deep(is_read=True),
    limits=DEEP_LIMITS,
    base="send-receive-normal",
    in_quick=False,
)
SEND_RECEIVE_WITH_SCHEDULED = _make(
    "send-receive-scheduled",
    "Send then receive in one process, with messages scheduled for later",
    filler=store_later(),
    limits=OTHERS_LIMITS,
    base="send-receive",
    layers=(OURS.key,),
    in_quick=False,
)
