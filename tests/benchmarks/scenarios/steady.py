"""A steady 1,000 messages/s from one process to another for minutes, while what is older than 10 s is trimmed.

A layer that cannot hold the rate is stopped as soon as its sender or its receiver is 5 s behind; so its rate is the
one that it reached by then.
"""

import asyncio
import math
import time
from collections import defaultdict
from pathlib import Path

from tests.benchmarks.measures import Account, Metric, identity, percentile
from tests.benchmarks.player import SETTLING, Player, make_message
from tests.benchmarks.stores import Limits

from .base import Accounts, Role, Scenario

__all__ = ["STEADY"]

_INTERVAL_S = 1 / 1_000
_MINUTE_NS = 60_000_000_000
_LEAST_NS = 3_000_000_000
_LOOK_EVERY_S = 1.0
_BEHIND_LIMIT_S = 5.0


async def _send(player: Player) -> Account:
    account = Account()
    channel = str((await player.wait_for("channel"))[0])
    await player.warm_up(channel)
    receiver_is_behind = asyncio.ensure_future(player.wait_for("behind"))
    account.first_ns = time.perf_counter_ns()
    due_s = time.perf_counter()
    for number in player.numbers():
        name = identity(0, number)
        await player.send(channel, make_message(name), account)
        account.sent.append(name)
        due_s += _INTERVAL_S
        late_s = time.perf_counter() - due_s
        if late_s > _BEHIND_LIMIT_S or receiver_is_behind.done():
            after_s = (time.perf_counter_ns() - account.first_ns) / 1e9
            account.remark = f"cannot hold the rate: {_BEHIND_LIMIT_S:g} s behind after {after_s:.0f} s"
            break
        if late_s < 0:
            await asyncio.sleep(-late_s)
    receiver_is_behind.cancel()
    player.publish("sent", len(account.sent))
    return account


async def _receive(player: Player) -> Account:
    """Note latencies and sizes by the minute that they belong to: ``latency 0``, ``file 0``, ``wal 0`` and so on."""
    account = Account()
    samples: defaultdict[str, list[float]] = defaultdict(list)
    behind: list[int] = []
    layer = player.layer
    channel = await layer.new_channel()

    async def read() -> None:
        while True:
            message = await layer.receive(channel)
            now_ns = time.perf_counter_ns()
            if message["identity"] == SETTLING:
                continue
            sent_ns: int = message["sent_ns"]
            account.first_ns = account.first_ns or sent_ns
            account.last_ns = now_ns
            account.received.append(message["identity"])
            minute = (sent_ns - account.first_ns) // _MINUTE_NS
            samples[f"latency {minute}"].append((now_ns - sent_ns) / 1000)
            if now_ns - sent_ns > _BEHIND_LIMIT_S * 1e9 and not behind:
                behind.append(now_ns)
                player.publish("behind")

    async def look() -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if account.first_ns:
                minute = (time.perf_counter_ns() - account.first_ns) // _MINUTE_NS
                for name, path in player.store.files.items():
                    samples[f"{name} {minute}"].append(_size_mib(Path(path)))

    async with player.background(read(), look()):
        await player.settle()
        player.publish("channel", channel)
        await player.drain(account, readers=1, senders=1)
    account.samples_us.update(samples)
    return account


def _size_mib(path: Path) -> float:
    """Return the size; asked of the kernel, since opening the file would drop SQLite's locks on it."""
    try:
        return path.stat().st_size / 2**20
    except OSError:
        return math.nan


def _figures(accounts: Accounts) -> dict[str, float]:
    receiver = accounts["receiver"][0]
    latencies_us = [
        sample for name, samples in receiver.samples_us.items() if name.startswith("latency ") for sample in samples
    ]
    busy_s = (receiver.last_ns - receiver.first_ns) / 1e9
    return {
        "rate": len(latencies_us) / busy_s if busy_s else math.nan,
        "p50": percentile(latencies_us, 50),
        "p99": percentile(latencies_us, 99),
        "length": busy_s,
    }


def _minutes(accounts: Accounts) -> list[dict[str, float]]:
    receiver = accounts["receiver"][0]
    sent_ns = receiver.last_ns - receiver.first_ns
    rows = []
    # What the last messages were late by makes no minute of its own.
    for minute in range(max(1, math.ceil((sent_ns - _LEAST_NS) / _MINUTE_NS))):
        latencies_us = receiver.samples_us.get(f"latency {minute}", [])
        seconds = min(sent_ns - minute * _MINUTE_NS, _MINUTE_NS) / 1e9
        rows.append(
            {
                "minute": minute + 1,
                "rate": len(latencies_us) / seconds,
                "p99": percentile(latencies_us, 99),
                "file": percentile(receiver.samples_us.get(f"file {minute}", []), 100),
                "wal": percentile(receiver.samples_us.get(f"wal {minute}", []), 100),
            }
        )
    return rows


STEADY = Scenario(
    key="steady",
    title="A steady 1,000 messages/s between two processes, trimmed after 10 s",
    roles=(Role(name="receiver", play=_receive), Role(name="sender", play=_send)),
    metrics=(
        Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
        Metric(key="p50", title="latency p50", unit="us"),
        Metric(key="p99", title="latency p99", unit="us"),
        Metric(key="length", title="length", unit="s", compared=False),
    ),
    figures=_figures,
    limits=Limits(expiry_s=10, retention_s=10),
    series=(
        Metric(key="minute", title="minute", unit=""),
        Metric(key="rate", title="rate", unit="messages/s", higher_is_better=True),
        Metric(key="p99", title="latency p99", unit="us"),
        Metric(key="file", title="file", unit="MiB"),
        Metric(key="wal", title="WAL", unit="MiB"),
    ),
    make_series=_minutes,
    once=True,
    in_quick=False,
)
