"""What the feed tells, and the group that carries it."""

from __future__ import annotations

import time
from typing import Literal, TypedDict

from channels_sqlite import Group

__all__ = ["Happened", "activity", "happened"]


class Happened(TypedDict):
    """Something happened, which the page ``link`` shows."""

    type: Literal["activity.happened"]
    text: str
    link: str
    at_ms: int


# Settings say how much of it is kept ("history"), for pages that come, and for those that come back.
activity: Group[Happened] = Group("activity")


def happened(text: str, link: str) -> Happened:
    """Return that something happened now."""
    return {"type": "activity.happened", "text": text, "link": link, "at_ms": time.time_ns() // 1_000_000}
