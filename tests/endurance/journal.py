"""What processes of the storm write down: fixed records, unbuffered, so that a killed process loses none of them.

A record has 32 bytes, and so never lies across two pages: a kill in the middle of a write could tear it there. Each
process has a file of its own, opened with O_APPEND; a reader writes before it asks for the next message.
"""

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

RECORD = struct.Struct("<BBHIIIId4x")
CHUNK_BYTES = RECORD.size * 8192

JOURNAL_SUFFIX = ".journal"
LOG_SUFFIX = ".txt"

Record = tuple[int, int, int, int, int, int, int, float]
"""kind, unit, unused, source, target, number, place, time (seconds since 1970); see `Kind` for what they hold."""


class Kind(IntEnum):
    """What a record tells.

    `source` and `number` are the message's, `target` is the channel or group that it was sent to. `place` is the
    channel where it was received, and `unit` the thread that did (0: the event loop).
    """

    SENDING = 1
    SENT = 2
    REFUSED = 3
    """ChannelFull: it was not sent."""
    CUT_OFF = 4
    """The layer was closed meanwhile: it may have been sent."""
    FAILED = 5
    RECEIVED = 6
    JOINING = 7
    """`place` is about to join the group `target`."""
    JOINED = 8
    GONE = 9
    """`place` is given up: its layer is closed, or it leaves its group."""
    CANCELLED = 10
    """A receive() was cancelled before it had a message."""
    CLOSED = 11
    """close() has returned; `number` is how many milliseconds it took."""
    FORKED = 12
    """fork() has returned in the parent, after `number` microseconds."""
    STUCK = 13
    """Something did not come to its end; `number` is one of `Stuck`."""
    UNEXPECTED = 14
    """A call raised what it must not raise; the text is in the process's log."""


class Stuck(IntEnum):
    """What did not come to its end."""

    RECEIVE = 1
    """A receive() on a channel of a layer that was closed."""
    FORK = 2
    """A forked child."""


OUTCOMES = (Kind.SENT, Kind.REFUSED, Kind.CUT_OFF, Kind.FAILED)


class Journal:
    """The file of one process. Any of its threads may write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(
        self,
        kind: Kind,
        *,
        source: int = 0,
        target: int = 0,
        number: int = 0,
        place: int = 0,
        unit: int = 0,
        at: float | None = None,
    ) -> None:
        """Append a record; `at` is in seconds since 1970, None: now."""
        os.write(self._fd, RECORD.pack(kind, unit, 0, source, target, number, place, time.time() if at is None else at))

    def close(self) -> None:
        os.close(self._fd)


@dataclass(frozen=True)
class JournalFile:
    """A journal with the process that wrote it; `incarnation` counts the processes of a storm as they are started."""

    path: Path
    incarnation: int
    slot: str

    def __iter__(self) -> Iterator[Record]:
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield from RECORD.iter_unpack(chunk[: len(chunk) // RECORD.size * RECORD.size])


def journal_path(folder: Path, incarnation: int, slot: str) -> Path:
    return folder / f"{incarnation:06d}-{slot}{JOURNAL_SUFFIX}"


def log_path(folder: Path, incarnation: int, slot: str) -> Path:
    """Where a process's log lines and its stderr go."""
    return folder / f"{incarnation:06d}-{slot}{LOG_SUFFIX}"


def journals(folder: Path) -> list[JournalFile]:
    """All journals in order of their processes' start."""
    found = []
    for path in sorted(folder.glob(f"*{JOURNAL_SUFFIX}")):
        incarnation, _, slot = path.stem.partition("-")
        found.append(JournalFile(path, int(incarnation), slot))
    return found
