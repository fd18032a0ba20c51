"""Coming into a room and leaving it again, and how soon another process is told; only ours can.

The crowd are people who are there all the time, of a process of its own that does nothing else. They stand in the file
and hear of nothing: what is measured is whoever comes, and one who watches.
"""

import math
import time
from typing import Any, cast

from channels_sqlite.codec import Codec
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.storage.transactions import Transaction
from tests.benchmarks.layers import OURS
from tests.benchmarks.measures import Account, Metric, percentile
from tests.benchmarks.player import Player

from .base import Accounts, Role, Scenario
from .stored import FILLING_LIMIT_S

__all__ = ["PRESENCE", "PRESENCE_CROWD"]

_ROOM = "room"
_CROWD = 5_000


async def _come_and_go(player: Player) -> Account:
    account = Account()
    join_us = account.samples_us["join"] = []
    leave_us = account.samples_us["leave"] = []
    layer = cast("Any", player.layer)  # others have no presence
    channel = await layer.new_channel()
    await player.wait_for("watching")
    for _ in player.warm_up_numbers():
        await layer.presence_join(_ROOM, channel, "warm-up")
        await layer.presence_leave(_ROOM, channel)
    account.first_ns = time.perf_counter_ns()
    for _ in player.numbers():
        start_ns = time.perf_counter_ns()
        await layer.presence_join(_ROOM, channel, "ada", {"name": "Ada", "sent_ns": start_ns})
        joined_ns = time.perf_counter_ns()
        await layer.presence_leave(_ROOM, channel)
        account.last_ns = time.perf_counter_ns()
        join_us.append((joined_ns - start_ns) / 1000)
        leave_us.append((account.last_ns - joined_ns) / 1000)
    player.publish("done", len(join_us))
    return account


async def _watch(player: Player) -> Account:
    account = Account()
    told_us = account.samples_us["told"] = []
    layer = cast("Any", player.layer)
    await player.wait_for("crowd")
    channel = await layer.new_channel()
    await layer.presence_watch(_ROOM, channel)

    async def read() -> None:
        while True:
            message = await layer.receive(channel)
            now_ns = time.perf_counter_ns()
            infos = message["joins"].values()
            told_us.extend((now_ns - info["sent_ns"]) / 1000 for info in infos if "sent_ns" in info)

    async with player.background(read()):
        player.publish("watching", 1)
        await player.wait_for("done")
    return account


def _crowd_of(size: int) -> Role:
    async def be_there(player: Player) -> Account:
        layer = cast("SqliteChannelLayer", player.layer)
        channel = await layer.new_channel()
        engine = engine_of(layer)
        info = Codec(max_message_size=1000).encode({"name": "One of the crowd"})

        def come(transaction: Transaction) -> None:
            # Not by joining: each would get the list.
            for number in range(size):
                name = f"{channel}{number}"
                store = transaction.store
                store.join(_ROOM, engine.client, name, joined_id=0, expires_at=None, now=transaction.now)
                store.attend(
                    _ROOM,
                    engine.client,
                    name,
                    f"key{number}",
                    info,
                    heard_id=transaction.newest,
                    expires_at=None,
                    now=transaction.now,
                )

        await engine.outbox.write(come)
        player.publish("crowd", size)
        await player.wait_for("done")
        return Account()

    return Role(name="crowd", play=be_there)


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["visitor"][0].samples_us
    told = accounts["watcher"][0].samples_us["told"]
    return {
        "join": percentile(samples["join"], 50) if samples["join"] else math.nan,
        "join_p99": percentile(samples["join"], 99) if samples["join"] else math.nan,
        "leave": percentile(samples["leave"], 50) if samples["leave"] else math.nan,
        "told": percentile(told, 50) if told else math.nan,
    }


def _make(key: str, title: str, *, crowd: int) -> Scenario:
    return Scenario(
        key=key,
        title=title,
        roles=(_crowd_of(crowd), Role(name="watcher", play=_watch), Role(name="visitor", play=_come_and_go)),
        metrics=(
            Metric(key="join", title="join p50", unit="us"),
            Metric(key="join_p99", title="join p99", unit="us"),
            Metric(key="leave", title="leave p50", unit="us"),
            Metric(key="told", title="told p50", unit="us"),
        ),
        figures=_figures,
        start_limit_s=FILLING_LIMIT_S,
        varies=True,
        layers=(OURS.key,),
        in_quick=False,
    )


PRESENCE = _make("presence", "Coming into a room and leaving it, watched by another process", crowd=10)
PRESENCE_CROWD = _make("presence-crowd", f"The same, with {_CROWD:,} people in the room", crowd=_CROWD)
