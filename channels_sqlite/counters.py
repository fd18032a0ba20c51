"""What a layer has done in one process, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

__all__ = ["Counters", "total"]


@dataclass(slots=True)
class Counters:
    """Counts since the layer was made in this process, or since the process was forked; times in seconds.

    `SqliteChannelLayer.counters` gives a copy, so that two of them can be compared.
    """

    sent: int = 0
    """Messages that were committed; a broadcast counts once."""
    received: int = 0
    """Messages that were given to a `receive()`."""
    refused: int = 0
    """Sends that ended with ChannelFull."""
    scheduled: int = 0
    """Messages that were stored to be sent later; sent, they count as such in the process that does it."""
    cancelled: int = 0
    """Of these, the ones that were cancelled in time."""
    dropped_full: int = 0
    """Messages that a member of a group, or a channel of this process, had no room for, or that were due later and
    tried in vain for as long as they may wait."""
    dropped_expired: int = 0
    """Messages that nobody received in time, counted by the process that finds them, or that went with a channel
    whose consumer had died."""
    dropped_undecodable: int = 0
    """Rows that are no messages, or that no key of this layer decrypts."""
    retried: int = 0
    """Transactions that found the database locked and were tried again."""
    wakeups_sent: int = 0
    """Other processes woken after a commit."""
    wakeups_missed: int = 0
    """Times that polling found messages for which nobody had woken this process."""
    trimmed: int = 0
    """Rows that were deleted as past their retention."""
    trim_s: float = 0.0
    """Time spent on that."""
    checkpoints: int = 0
    """Checkpoints of the write-ahead log."""
    checkpoint_s: float = 0.0
    """Time spent on them."""


def total(counters: Iterable[Counters]) -> Counters:
    """Return the sums."""
    summed = Counters()
    for one in counters:
        for field in fields(Counters):
            setattr(summed, field.name, getattr(summed, field.name) + getattr(one, field.name))
    return summed
