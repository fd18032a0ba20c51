"""Memory that all processes of a storm share: calls under way, and how far readers are behind.

A process that is stopped, blocked or killed cannot tell what it is doing; here it has told before.
"""

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.endurance.plan import SLOTS

CALL_KINDS = (
    "",
    "send",
    "group_send",
    "group_add",
    "group_discard",
    "new_channel",
    "close",
    "receive with a time-out",
    "trim",
    "lock",
    "flush",
)
CALLS = 128
CHANNELS = 64
FRESH_S = 3.0

_NUMBER_OF = {slot.name: number for number, slot in enumerate(SLOTS)}
_LAG_AT = len(SLOTS) * CALLS * 2


@dataclass(frozen=True)
class CallUnderWay:
    """`index` and `began_at` (monotonic) tell one call from another."""

    slot: str
    index: int
    kind: str
    began_at: float


class Board:
    """Made before the processes are forked. Every number is written by one process, in one store of eight bytes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, (_LAG_AT + 2 * CHANNELS) * 8)
        self._numbers = memoryview(self._memory).cast("d")

    # Calls

    def begin(self, slot: str, index: int, kind: str) -> None:
        at = (_NUMBER_OF[slot] * CALLS + index) * 2
        self._numbers[at + 1] = CALL_KINDS.index(kind)
        self._numbers[at] = time.monotonic()

    def end(self, slot: str, index: int) -> None:
        self._numbers[(_NUMBER_OF[slot] * CALLS + index) * 2] = 0.0

    def clear(self, slot: str) -> None:
        """Forget what a process that has ended was doing."""
        for index in range(CALLS):
            self.end(slot, index)

    def under_way(self, slot: str) -> list[CallUnderWay]:
        first = _NUMBER_OF[slot] * CALLS * 2
        numbers = self._numbers[first : first + CALLS * 2].tolist()
        return [
            CallUnderWay(slot, index, CALL_KINDS[int(numbers[2 * index + 1])], numbers[2 * index])
            for index in range(CALLS)
            if numbers[2 * index]
        ]

    # Pace

    def note_lag(self, channel_id: int, lag_s: float) -> None:
        """A reader has received a message of that age."""
        self._numbers[_LAG_AT + 2 * channel_id] = lag_s
        self._numbers[_LAG_AT + 2 * channel_id + 1] = time.monotonic()

    def lag_s(self) -> float:
        """The age of what is being received now, where it is highest."""
        numbers = self._numbers[_LAG_AT:].tolist()
        since = time.monotonic() - FRESH_S
        return max((numbers[at] for at in range(0, len(numbers), 2) if numbers[at + 1] >= since), default=0.0)


class Calls:
    """The calls of one process, as it tells the board of them."""

    def __init__(self, board: Board, slot: str) -> None:
        self._board = board
        self._slot = slot
        self._free = list(range(CALLS))

    @contextmanager
    def call(self, kind: str) -> Iterator[None]:
        """Around a call that must come to an end by itself."""
        index = self._free.pop()
        self._board.begin(self._slot, index, kind)
        try:
            yield
        finally:
            self._board.end(self._slot, index)
            self._free.append(index)
