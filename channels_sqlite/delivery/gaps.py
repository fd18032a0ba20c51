"""Which channels have missed a message: for receivers that make up for it, or end.

Threads: `mailboxes` calls this under its lock, so that a gap is known before what follows it arrives. `missed` takes
none.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Gaps"]


class Gaps:
    """The channels whose receivers have asked for it."""

    def __init__(self) -> None:
        self._missed: dict[str, bool] = {}

    def watch(self, channel: str) -> None:
        """From now on, note what a channel misses; what it missed before is made up for."""
        self._missed[channel] = False

    def forget(self, channel: str) -> None:
        """Note nothing any more."""
        self._missed.pop(channel, None)

    def missed(self, channel: str) -> bool:
        """Whether a channel has missed a message since `watch` was called last."""
        return self._missed.get(channel, False)

    def note(self, channels: Iterable[str]) -> None:
        """These have missed one: they were full, or it has expired before it was received."""
        if self._missed:
            for channel in channels:
                if channel in self._missed:
                    self._missed[channel] = True

    def note_all(self) -> None:
        """All have, or may have."""
        for channel in self._missed:
            self._missed[channel] = True
