"""What it costs that a group is kept, and what it costs to read that on joining; only ours can.

One process sends to two groups in turn, which differ in this alone, and then joins either with a channel of its own;
another one has a member in both.
"""

import math
import time
from typing import Any, cast

from tests.benchmarks.layers import OURS
from tests.benchmarks.measures import Account, Metric, percentile
from tests.benchmarks.player import Player, make_message
from tests.benchmarks.stores import Limits

from .base import Accounts, Role, Scenario

__all__ = ["HISTORY"]

_ENTRIES = 100
_PLAIN, _KEPT = "plain", "kept"
_LIMITS = Limits(history={_KEPT: {"size": _ENTRIES, "ttl": 3600}})


async def _send_and_join(player: Player) -> Account:
    account = Account()
    samples = account.samples_us = {"send-plain": [], "send-kept": [], "add": [], "subscribe": []}
    layer = cast("Any", player.layer)  # others have no history
    channel = await layer.new_channel()
    await player.wait_for("member")
    for number in range(_ENTRIES):
        await layer.group_send(_KEPT, make_message(number))
    for _ in player.warm_up_numbers():
        await layer.group_send(_PLAIN, make_message(0))
    account.first_ns = time.perf_counter_ns()
    for number in player.numbers():
        for group in (_PLAIN, _KEPT):
            start_ns = time.perf_counter_ns()
            await layer.group_send(group, make_message(number))
            samples[f"send-{group}"].append((time.perf_counter_ns() - start_ns) / 1000)
        # In between, not after it: what is sent meanwhile makes the log that both find.
        start_ns = time.perf_counter_ns()
        await layer.group_add(_PLAIN, channel)
        added_ns = time.perf_counter_ns()
        await layer.group_discard(_PLAIN, channel)
        read_ns = time.perf_counter_ns()
        history = await layer.group_subscribe(_KEPT, channel, last=_ENTRIES)
        account.last_ns = time.perf_counter_ns()
        await layer.group_discard(_KEPT, channel)
        if len(history.entries) != _ENTRIES:
            raise RuntimeError(f"{len(history.entries)} entries were read, and not {_ENTRIES}")
        samples["add"].append((added_ns - start_ns) / 1000)
        samples["subscribe"].append((account.last_ns - read_ns) / 1000)
    player.publish("done", len(samples["add"]))
    return account


async def _be_a_member(player: Player) -> Account:
    channel = await player.layer.new_channel()

    async def read() -> None:
        while True:
            await player.layer.receive(channel)

    async with player.background(read()):
        for group in (_PLAIN, _KEPT):
            await player.layer.group_add(group, channel)
        player.publish("member", 1)
        await player.wait_for("done")
    return Account()


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["sender"][0].samples_us
    p50 = {key: percentile(values, 50) if values else math.nan for key, values in samples.items()}
    return {
        "kept": p50["send-kept"],
        "plain": p50["send-plain"],
        "subscribe": p50["subscribe"],
        "add": p50["add"],
    }


HISTORY = Scenario(
    key="history",
    title=f"Sending to a group that is kept and to one that is not; joining, with {_ENTRIES} entries and with none",
    roles=(Role(name="member", play=_be_a_member), Role(name="sender", play=_send_and_join)),
    metrics=(
        Metric(key="kept", title="group_send() p50, kept", unit="us"),
        Metric(key="plain", title="group_send() p50, not kept", unit="us"),
        Metric(key="subscribe", title=f"group_subscribe() p50, {_ENTRIES} entries", unit="us"),
        Metric(key="add", title="group_add() p50", unit="us"),
    ),
    figures=_figures,
    limits=_LIMITS,
    varies=True,
    layers=(OURS.key,),
    in_quick=False,
)
