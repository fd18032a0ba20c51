"""What members have read from a history while it had not reached them yet: it must not reach them any more.

Whoever uses this holds `OpenDatabase.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Withdrawals"]

Range = tuple[int, int]
"""Of ids, (after, up_to)."""


class Withdrawals:
    """Ranges of ids by group and channel, until the log is read past them."""

    def __init__(self) -> None:
        self._ranges: dict[tuple[str, str], list[Range]] = {}

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, group: str, channel: str, after: int, up_to: int) -> Callable[[], None]:
        """Keep what the group was sent, with `after` < id <= `up_to`, from the channel; return what undoes it."""
        withdrawn = (after, up_to)
        self._ranges.setdefault((group, channel), []).append(withdrawn)

        def undo() -> None:
            left = self._ranges.get((group, channel), [])
            if withdrawn in left:
                left.remove(withdrawn)
            if not left:
                self._ranges.pop((group, channel), None)

        return undo

    def without(self, group: str, message_id: int, channels: Sequence[str]) -> list[str]:
        """Return those of the channels from which the message with this id is not kept."""
        return [
            channel
            for channel in channels
            if not any(after < message_id <= up_to for after, up_to in self._ranges.get((group, channel), ()))
        ]

    def passed(self, cursor: int) -> None:
        """Forget what ends at an id up to which the log was read."""
        for key, ranges in list(self._ranges.items()):
            left = [withdrawn for withdrawn in ranges if withdrawn[1] > cursor]
            if left:
                self._ranges[key] = left
            else:
                del self._ranges[key]
