"""Stores many unread messages before a run, which is not timed.

Through send() where that is quick; with the other layers' own means of writing where it would take minutes.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

from .player import make_message

__all__ = ["store_unread"]

_BATCH = 1_000

# Any: whichever layer it is, with methods and attributes of its own.
_Filler = Callable[[Any, Sequence[tuple[str, int]]], Awaitable[None]]


# Any: see above.
async def store_unread(layer: Any, channels: Sequence[str], identities: Sequence[int]) -> None:
    """Store one message for each of ``identities``, in their order, spread evenly over the normal ``channels``."""
    fill = _FILLERS.get(type(layer).__module__.partition(".")[0], _fill_by_sending)
    pairs = [(channels[place % len(channels)], number) for place, number in enumerate(identities)]
    for start in range(0, len(pairs), _BATCH):
        await fill(layer, pairs[start : start + _BATCH])
    if fill is _fill_redis:
        # Its server keeps nothing by itself; the file is what the runs start from.
        await layer.connection(0).save()


async def _fill_by_sending(layer: Any, pairs: Sequence[tuple[str, int]]) -> None:
    await asyncio.gather(*(layer.send(channel, make_message(number)) for channel, number in pairs))


async def _fill_redis(layer: Any, pairs: Sequence[tuple[str, int]]) -> None:
    """As send() of channels_redis core does, in one round trip."""
    async with layer.connection(0).pipeline(transaction=False) as pipeline:
        for channel, number in pairs:
            key = layer.prefix + channel
            pipeline.zadd(key, {layer.serialize(make_message(number)): time.time()})
            pipeline.expire(key, int(layer.expiry))
        await pipeline.execute()


async def _fill_lite(layer: Any, pairs: Sequence[tuple[str, int]]) -> None:
    from django.utils import timezone

    event = _model("channels_lite", "Event")
    now = timezone.now()
    rows = [
        event(channel_name=channel, data=layer.serialize(make_message(number)), expires_at=now + _seconds(layer))
        for channel, number in pairs
    ]
    await event.objects.abulk_create(rows)


async def _fill_postgres(layer: Any, pairs: Sequence[tuple[str, int]]) -> None:
    from django.utils import timezone

    message = _model("channels_postgres", "Message")
    expire = timezone.now() + _seconds(layer)
    rows = [
        message(channel=channel, message=layer.serialize(make_message(number)), expire=expire)
        for channel, number in pairs
    ]
    await message.objects.using("channels_postgres").abulk_create(rows)


# Any: a model of another package, which type checkers do not see.
def _model(app: str, name: str) -> Any:
    from django.apps import apps

    return apps.get_model(app, name)


def _seconds(layer: Any) -> timedelta:
    return timedelta(seconds=layer.expiry)


_FILLERS: dict[str, _Filler] = {
    "channels_redis": _fill_redis,
    "channels_lite": _fill_lite,
    "channels_postgres": _fill_postgres,
}
"""By the package of the layer."""
