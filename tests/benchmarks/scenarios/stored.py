"""Roles that store a backlog of unread messages before anybody else opens the layer."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from tests.benchmarks.backlog import store_unread
from tests.benchmarks.measures import Account, identity
from tests.benchmarks.player import Player, make_message
from tests.benchmarks.stores import Limits

from .base import Role

__all__ = ["DEEP", "DEEP_LIMITS", "FILLING_LIMIT_S", "OTHERS_LIMITS", "store_deep", "store_in_others", "store_later"]

DEEP = "deep"
"""The channel that holds all of a backlog."""
_EXPIRY_S = 14_400
"""A backlog is stored once for all runs of a layer."""
DEEP_LIMITS = Limits(capacity=200_000, expiry_s=_EXPIRY_S)
OTHERS_LIMITS = Limits(expiry_s=_EXPIRY_S)
FILLING_LIMIT_S = 120.0

_BATCH = 1_000
_STREAM = 9_000
_OTHERS = tuple(f"stored.{number}" for number in range(100))


def store_in_others() -> Role:
    """Return a role that spreads the backlog over channels that nobody reads."""

    async def play(player: Player) -> Account:
        await _store(player, _OTHERS)
        return Account()

    return Role(name="filler-others", play=play, prepares=True)


def store_deep(*, is_read: bool) -> Role:
    """Return a role that stores the backlog in ``DEEP``; its messages are accounted for where the scenario reads it."""

    async def play(player: Player) -> Account:
        identities = await _store(player, (DEEP,))
        return Account(sent=identities) if is_read else Account()

    return Role(name="filler-read" if is_read else "filler-unread", play=play, prepares=True)


def store_later() -> Role:
    """Return a role that schedules the backlog for a time when nobody is there any more; only ours can."""

    async def play(player: Player) -> Account:
        layer = cast("Any", player.layer)
        for start in range(0, player.effort.backlog, _BATCH):
            await asyncio.gather(
                *(
                    layer.send_later(_OTHERS[number % len(_OTHERS)], make_message(number), delay=_EXPIRY_S + number)
                    for number in range(start, start + _BATCH)
                )
            )
        return Account()

    return Role(name="filler-later", play=play, prepares=True)


async def _store(player: Player, channels: Sequence[str]) -> list[int]:
    identities = [identity(_STREAM, number) for number in range(player.effort.backlog)]
    await store_unread(player.layer, channels, identities)
    return identities
