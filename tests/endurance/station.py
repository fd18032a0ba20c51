"""A process of the storm, seen from inside: where it writes, what it is told, what it says."""

import json
import os
import random
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channels.exceptions import ChannelFull

from channels_sqlite.exceptions import LayerClosedError
from tests.endurance.board import Board, Calls
from tests.endurance.journal import Journal, Kind, journal_path
from tests.endurance.plan import CHANNEL_OF, FIRST_SPECIFIC_ID, GROUP_ID, SLOTS, SPECIFIC_IDS, Slot

SOURCES = 100
"""A process numbers what sends in it from its incarnation times this."""
LARGE_BYTES = 300_000
"""Written by the background thread, as a copy of it would hold up the loop."""

Command = Mapping[str, Any]
"""What the storm tells a process: `do`, and what that needs. Any: it was JSON."""

LAST = "storm.last"


@dataclass(frozen=True)
class Station:
    """What a process gets from the storm that forks it."""

    slot: Slot
    incarnation: int
    seed: int
    folder: Path
    board: Board
    pace: float
    commands_fd: int
    reports_fd: int


class Child:
    """What every process has."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.slot = station.slot.name
        self.random = random.Random(f"{station.seed} {self.slot} {station.incarnation}")
        self.journal = Journal(journal_path(station.folder, station.incarnation, self.slot))
        self.calls = Calls(station.board, self.slot)
        self._sources_made = 0
        self._channels_made = 0
        self._unread = b""

    # The storm

    def say(self, **value: object) -> None:
        """Tell the storm something."""
        line = json.dumps(value).encode() + b"\n"
        while line:
            line = line[os.write(self.station.reports_fd, line) :]

    def commands(self) -> list[Command]:
        """What the storm has told since; waits where the pipe blocks."""
        *lines, self._unread = (self._unread + os.read(self.station.commands_fd, 65536)).split(b"\n")
        return [json.loads(line) for line in lines]

    # Sending

    def new_source(self) -> "Source":
        """Something that sends one message after the other, in an order that readers must see."""
        self._sources_made += 1
        if self._sources_made >= SOURCES:
            raise ValueError(f"more than {SOURCES} sources in one process")
        return Source(self.journal, self.station.incarnation * SOURCES + self._sources_made, self.random)

    # Receiving

    def new_place(self) -> int:
        """The number of a new process-specific channel."""
        self._channels_made += 1
        if self._channels_made >= SPECIFIC_IDS:
            self._channels_made = 1  # a churner's: nobody sends to its channels directly
        return FIRST_SPECIFIC_ID + self.station.incarnation * SPECIFIC_IDS + self._channels_made

    def note(self, message: Mapping[str, Any], place: int, unit: int = 0) -> bool:
        """Write down what was received; return whether it is the last one on its channel."""
        if message["type"] == LAST:
            self.say(last=message["t"])
            return True
        target = message["t"]
        self.journal.write(
            Kind.RECEIVED, source=message["s"], target=target, number=message["n"], place=place, unit=unit
        )
        self.station.board.note_lag(
            target if target in CHANNEL_OF else GROUP_ID + 2 + SLOTS.index(self.station.slot),
            time.time() - message["at"],
        )
        return False

    def unexpected(self, what: str) -> None:
        """Write down that a call raised what it must not; called while that is handled."""
        print(f"UNEXPECTED in {self.slot}: {what}", file=sys.stderr)
        traceback.print_exc()
        self.journal.write(Kind.UNEXPECTED)


class Source:
    """Numbers the messages of one sender for each target, and writes down what became of them."""

    def __init__(self, journal: Journal, number: int, draw: random.Random) -> None:
        self._journal = journal
        self._random = draw
        self.number = number
        self._next: defaultdict[int, int] = defaultdict(int)

    def message(self, target: int, *, small: bool = False) -> dict[str, object]:
        """The next message to `target`, written down as being sent."""
        number = self._next[target]
        self._next[target] += 1
        pad = self._pad(small=small)
        self._journal.write(Kind.SENDING, source=self.number, target=target, number=number)
        return {"type": "storm.message", "s": self.number, "t": target, "n": number, "at": time.time(), "pad": pad}

    def _pad(self, *, small: bool) -> str:
        dice = self._random.random()
        if small or dice < 0.9:
            return "x" * self._random.randrange(200)
        return "y" * (2000 if dice < 0.999 else LARGE_BYTES)

    def done(self, message: Mapping[str, Any], error: BaseException | None) -> bool:
        """Write down what became of a message; return whether `error` is one that may be."""
        kind = Kind.SENT
        if isinstance(error, ChannelFull):
            kind = Kind.REFUSED
        elif isinstance(error, LayerClosedError):
            kind = Kind.CUT_OFF
        elif error is not None:
            kind = Kind.FAILED
        self._journal.write(kind, source=message["s"], target=message["t"], number=message["n"])
        return kind is not Kind.FAILED


class Directory:
    """The process-specific channels that there are, which their processes write into files, for all who send."""

    LOOK_EVERY_S = 0.25

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "directory"
        self._looked_at = 0.0
        self._found: list[tuple[int, str]] = []

    def publish(self, slot: str, channels: list[tuple[int, str]]) -> None:
        """Say which channels the process in `slot` has."""
        new = self._folder / f"{slot}.new"
        new.write_text(json.dumps(channels))
        new.rename(self._folder / f"{slot}.json")

    def channels(self) -> list[tuple[int, str]]:
        """(number, name) of what may be sent to; some may be of processes that have just ended."""
        now = time.monotonic()
        if now - self._looked_at >= self.LOOK_EVERY_S:
            self._looked_at = now
            self._found = [
                (number, name)
                for path in sorted(self._folder.glob("*.json"))
                for number, name in json.loads(path.read_text())
            ]
        return self._found
