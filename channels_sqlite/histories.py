"""What a group was sent, as those see it who come back: entries, and positions to come back with.

A position is an opaque str for users. It names an epoch of the layer's store and an id in it. Ids of one epoch never
come back; where they might, the epoch changes, and positions of the old one are good for nothing but to say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = ["History", "HistoryEntry", "Position", "parse", "require_flag", "require_question"]

M = TypeVar("M", bound=Mapping[str, object])

EPOCH_CHARACTERS = 16
_POSITION = re.compile(rf"([0-9a-f]{{{EPOCH_CHARACTERS}}})-(0|[1-9][0-9]{{0,17}})", re.ASCII)


class Position(NamedTuple):
    """A place in the order of all that a layer was sent, after the message with this id."""

    epoch: str
    id: int

    def __str__(self) -> str:
        """Return it as users see it: at most 64 ASCII characters, fit for an SSE id, a URL and JSON."""
        return f"{self.epoch}-{self.id}"


def parse(position: object) -> Position | None:
    """Return a position that comes from a client, and so may be anything; None where it is none."""
    parts = _POSITION.fullmatch(position) if isinstance(position, str) else None
    return None if parts is None else Position(parts[1], int(parts[2]))


@dataclass(frozen=True, slots=True)
class HistoryEntry(Generic[M]):
    """A message that was kept."""

    position: str
    """To pass as `since`, for what came after this message."""
    sent_at: float
    """Seconds since 1970."""
    message: M


@dataclass(frozen=True, slots=True)
class History(Generic[M]):
    """What a group was sent."""

    entries: list[HistoryEntry[M]]
    """Oldest first."""
    position: str
    """The position after the newest message; to pass as `since` next time."""
    recovered: bool
    """True only if every message that the group was sent after `since`, and that was to be kept, is in `entries`."""


def require_question(since: object, last: object) -> None:
    """Raise TypeError or ValueError unless at most one of `since` and `last` is given, and `last` is a number >= 1.

    Any `since` will do: it comes from clients.
    """
    if last is None:
        return
    if since is not None:
        raise TypeError("since and last exclude each other, and both were given")
    if isinstance(last, bool) or not isinstance(last, int):
        raise TypeError(f"last must be a whole number of messages, not {last!r} ({type(last).__name__})")
    if last < 1:
        raise ValueError(f"last must be at least 1 message, not {last!r}")


def require_flag(history: object) -> None:
    """Raise TypeError unless `history` is True or False."""
    if history is not True and history is not False:
        raise TypeError(f"history must be True or False, not {history!r} ({type(history).__name__})")
