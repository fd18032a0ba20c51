"""Broadcast to one group: the next one starts when every member in every process has received the last one.

The first process holds its share of the members and sends, as a server process does. A broadcast lasts from the call
of group_send() to the latest receive of any member, by the clock that all processes share, so the way on which the
processes tell each other that they are done is not part of the time.
"""

import asyncio
import itertools
import math
import time
from collections import Counter

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import SETTLING, Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["make_broadcast"]

_GROUP = "room"
_WARM_UP = 2
_COMPLETION_LIMIT_S = 20.0


def make_broadcast(
    *, processes: int, members: int, in_quick: bool = True, stretch: float = 1.0, varies: bool = False
) -> Scenario:
    """Return the scenario with ``members`` in each of ``processes``."""

    async def play(player: Player) -> Account:
        account = Account()
        channels = [await player.layer.new_channel() for _ in range(members)]
        arrived: Counter[int] = Counter()

        async def read(stream: int, channel: str) -> None:
            receive, received = player.layer.receive, account.received
            while True:
                message = await receive(channel)
                number: int = message["identity"]
                if number == SETTLING:
                    continue
                received.append(identity(stream, number))
                arrived[number] += 1
                if arrived[number] == members:
                    player.publish(f"complete {number}", time.perf_counter_ns())

        readers = (read(player.index * members + local, channel) for local, channel in enumerate(channels))
        async with player.background(*readers):
            for channel in channels:
                await player.layer.group_add(_GROUP, channel)
            await player.settle()
            player.publish("ready")
            await player.wait_for("ready", processes)
            if player.index == 0:
                await _broadcast(player, account, processes, members)
                player.publish("sent", len(account.sent))
            await player.drain(account, readers=processes, senders=1)
        return account

    return Scenario(
        key=f"broadcast-{processes}x{members}",
        title=f"Broadcast, {processes} process{'es' if processes > 1 else ''} x {members} members, each awaited",
        roles=(Role(name="server", play=play, count=processes),),
        metrics=(
            Metric(key="rate", title="rate", unit="deliveries/s", higher_is_better=True),
            Metric(key="p50", title="all delivered p50", unit="us"),
            Metric(key="p99", title="all delivered p99", unit="us"),
            Metric(key="call_p50", title="group_send() p50", unit="us"),
        ),
        figures=_figures,
        in_quick=in_quick,
        stretch=stretch,
        varies=varies,
    )


async def _broadcast(player: Player, account: Account, processes: int, members: int) -> None:
    """Send one after the other, each awaited. One that does not complete in time ends the run."""
    completions_us = account.samples_us["completion"] = []
    calls_us = account.samples_us["call"] = []
    completed: list[float] = []
    account.samples_us["completed deliveries"] = completed
    warm_up = itertools.islice(player.warm_up_numbers(), _WARM_UP)
    measured = (_WARM_UP + number for number in player.numbers())
    for number in itertools.chain(warm_up, measured):
        start_ns = time.perf_counter_ns()
        await player.layer.group_send(_GROUP, make_message(number))
        returned_ns = time.perf_counter_ns()
        waiting = player.wait_for(f"complete {number}", processes)
        try:
            times_ns = await asyncio.wait_for(waiting, _COMPLETION_LIMIT_S)
        except asyncio.TimeoutError:
            number_of = processes * members
            account.remark = f"a broadcast to {number_of:,} was not complete after {_COMPLETION_LIMIT_S:g} s"
            return
        finally:
            # Not before: thousands of entries would keep the readers of this process from running.
            account.sent.extend(identity(stream, number) for stream in range(processes * members))
        if number >= _WARM_UP:
            completions_us.append((max(int(time_ns) for time_ns in times_ns) - start_ns) / 1000)
            calls_us.append((returned_ns - start_ns) / 1000)
            completed.append(processes * members)


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["server"][0].samples_us
    completions_us = samples["completion"]
    busy_s = sum(completions_us) / 1e6
    return {
        "rate": sum(samples["completed deliveries"]) / busy_s if busy_s else math.nan,
        "p50": percentile(completions_us, 50),
        "p99": percentile(completions_us, 99),
        "call_p50": percentile(samples["call"], 50),
    }
