"""Messages that are lost on purpose."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest import mock

from channels_sqlite import names
from channels_sqlite.engine import receive

if TYPE_CHECKING:
    from channels_sqlite.codec import Message
    from channels_sqlite.delivery.entries import Entry
    from channels_sqlite.engine.engine import Engine

__all__ = ["Losses", "lossy"]


@dataclass
class Losses:
    """What happened in a `lossy` block so far."""

    delivered: int = 0
    dropped: int = 0


@contextmanager
def lossy(share: float, seed: int = 0) -> Iterator[Losses]:
    """Drop a share of all deliveries in this process until the block ends, as a channel layer is allowed to.

    A message is dropped where it would be received, so the members of a group lose messages independently of each
    other, and `send` and `group_send` notice nothing. Which messages of a channel are lost depends on `seed` alone and,
    for channels of `new_channel()`, on how many the block has made before: no timing changes it.

    Args:
        share: from 0 (none) to 1 (all).
        seed: another one loses others.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, not {share!r}")
    losses = Losses()
    decisions: dict[str, random.Random] = {}
    lock = threading.Lock()
    real_decode = receive.decode
    real_new = names.new_specific

    def decide(channel: str) -> random.Random:
        label = channel
        if "!" in channel:  # the names themselves are random
            label = f"{sum('!' in known for known in decisions)}!"
        return decisions.setdefault(channel, random.Random(f"{seed} {label}"))

    def new_specific(prefix: str, client: str) -> str:
        channel = real_new(prefix, client)
        with lock:
            decide(channel)
        return channel

    def decode_or_drop(engine: Engine, channel: str, full_name: str, entry: Entry) -> Message | None:
        with lock:
            decision = decisions.get(full_name) or decide(full_name)
            if decision.random() < share:
                losses.dropped += 1
                return None
            losses.delivered += 1
        return real_decode(engine, channel, full_name, entry)

    with (
        mock.patch.object(receive, "decode", decode_or_drop),
        mock.patch.object(names, "new_specific", new_specific),
    ):
        yield losses
