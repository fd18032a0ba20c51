"""Sending from a plain thread through ``channels_sqlite.get_sync_channel_layer``, to receivers in another process.

Over our layer it needs no event loop; over the others it is ``async_to_sync``, and a new event loop at each call.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import SETTLING, Player, make_message
from tests.benchmarks.protocols import SyncLayer

from .base import Accounts, Role, Scenario

__all__ = ["SYNC_GROUP_SEND", "SYNC_SEND"]

_GROUP = "room"
_MEMBERS = 10


async def _call_send(player: Player) -> Account:
    channel = str((await player.wait_for("channel"))[0])
    return await _call_from_thread(player, channel, members=1)


async def _call_group_send(player: Player) -> Account:
    await player.wait_for("channel")
    return await _call_from_thread(player, None, members=_MEMBERS)


async def _call_from_thread(player: Player, channel: str | None, *, members: int) -> Account:
    """Return what the thread saw: it sends to ``channel``, or to the group of so many ``members``."""
    account = Account()
    with ThreadPoolExecutor(1) as executor:
        await asyncio.get_running_loop().run_in_executor(executor, _call, player, account, channel, members)
    player.publish("sent", len(account.sent))
    return account


def _call(player: Player, account: Account, channel: str | None, members: int) -> None:
    layer = _sync_layer()
    durations_us = account.samples_us["call"] = []

    def send(number: int) -> None:
        if channel is None:
            layer.group_send(_GROUP, make_message(number))
        else:
            layer.send(channel, make_message(number))

    for _ in player.warm_up_numbers():
        send(SETTLING)
    for number in player.numbers():
        start_ns = time.perf_counter_ns()
        send(number)
        durations_us.append((time.perf_counter_ns() - start_ns) / 1000)
        account.sent.extend(identity(stream, number) for stream in range(members))


def _sync_layer() -> SyncLayer:
    from channels_sqlite import get_sync_channel_layer

    return get_sync_channel_layer()


async def _receive(player: Player) -> Account:
    return await _receive_on(player, channels=1)


async def _receive_as_group(player: Player) -> Account:
    return await _receive_on(player, channels=_MEMBERS)


async def _receive_on(player: Player, *, channels: int) -> Account:
    account = Account()
    names = [await player.layer.new_channel() for _ in range(channels)]

    async def read(stream: int, channel: str) -> None:
        while True:
            message = await player.layer.receive(channel)
            if message["identity"] != SETTLING:
                account.received.append(identity(stream, message["identity"]))

    async with player.background(*(read(stream, name) for stream, name in enumerate(names))):
        for name in names:
            await player.layer.group_add(_GROUP, name)
        await player.settle()
        player.publish("channel", names[0])
        await player.drain(account, readers=1, senders=1)
    return account


def _figures(accounts: Accounts) -> dict[str, float]:
    samples = accounts["caller"][0].samples_us["call"]
    return {"p50": percentile(samples, 50), "p99": percentile(samples, 99)}


_METRICS = (Metric(key="p50", title="call p50", unit="us"), Metric(key="p99", title="call p99", unit="us"))

SYNC_SEND = Scenario(
    key="sync-send",
    title="Sync send() from a plain thread to another process",
    roles=(Role(name="receiver", play=_receive), Role(name="caller", play=_call_send)),
    metrics=_METRICS,
    figures=_figures,
)
SYNC_GROUP_SEND = Scenario(
    key="sync-group-send",
    title=f"Sync group_send() from a plain thread to {_MEMBERS} members in another process",
    roles=(Role(name="receiver", play=_receive_as_group), Role(name="caller", play=_call_group_send)),
    metrics=_METRICS,
    figures=_figures,
)
