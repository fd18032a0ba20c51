"""Ping-pong in a ring: every process plays with the next one, all at the same time; one process plays with itself."""

import time

from tests.benchmarks.measures import Account, Metric, identity, percentile, rate
from tests.benchmarks.player import SETTLING, Player, make_message

from .base import Accounts, Role, Scenario

__all__ = ["make_ring"]


def make_ring(*, processes: int, in_quick: bool = False) -> Scenario:
    """Return the scenario with so many processes."""

    async def play(player: Player) -> Account:
        account = Account()
        durations_us = account.samples_us["half"] = []
        layer = player.layer
        mine = await layer.new_channel()
        asked = await layer.new_channel()

        async def echo() -> None:
            asker = f"answers to {(player.index - 1) % processes}"
            theirs = str((await player.wait_for(asker))[0])
            while True:
                message = await layer.receive(asked)
                if message["identity"] != SETTLING:
                    plain = {key: value for key, value in message.items() if key != "__asgi_channel__"}
                    await layer.send(theirs, plain)

        await player.settle(mine)
        await player.settle(asked)
        player.publish(f"answers to {player.index}", mine)
        async with player.background(echo()):
            player.publish(f"questions to {player.index}", asked)
            theirs = str((await player.wait_for(f"questions to {(player.index + 1) % processes}"))[0])
            for number in player.warm_up_numbers():
                name = identity(processes + player.index, number)
                await layer.send(theirs, make_message(name))
                # Messages of the settling may come first.
                while (await layer.receive(mine))["identity"] != name:
                    pass
            player.publish("warm")
            await player.wait_for("warm", processes)
            account.first_ns = time.perf_counter_ns()
            for number in player.numbers():
                name = identity(player.index, number)
                start_ns = time.perf_counter_ns()
                await layer.send(theirs, make_message(name))
                account.sent.append(name)
                message = await layer.receive(mine)
                account.last_ns = time.perf_counter_ns()
                durations_us.append((account.last_ns - start_ns) / 2000)
                account.received.append(message["identity"])
            player.publish("over")
            await player.wait_for("over", processes)
        return account

    return Scenario(
        key=f"ring-{processes}",
        title=f"Ping-pong in a ring of {processes} process{'es' if processes > 1 else ''}, all at once",
        roles=(Role(name="server", play=play, count=processes),),
        metrics=(
            Metric(key="rate", title="round trips", unit="1/s", higher_is_better=True),
            Metric(key="p50", title="half p50", unit="us"),
            Metric(key="p99", title="half p99", unit="us"),
        ),
        figures=_figures,
        in_quick=in_quick,
        stretch=0.5,
        varies=True,
    )


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = [sample for account in accounts["server"] for sample in account.samples_us["half"]]
    return {
        "rate": rate(accounts["server"]),
        "p50": percentile(samples, 50),
        "p99": percentile(samples, 99),
    }
