"""What each process says of itself in its lock file, for whoever looks: one that only sends has no row to say it in.

Writing there costs no transaction. The lock proves that the writer lives; the checksum that all of the note was read.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from channels_sqlite.counters import Counters
from channels_sqlite.processes import flocks

__all__ = ["Note", "living_notes"]

NOTE_BYTES = 1024  # always the same, so that a shorter note leaves nothing of the one before
LOOKS = 3  # while one is being written


@dataclass(frozen=True)
class Note:
    """One layer in one process."""

    client: str
    pid: int  # in the process's own namespace of pids
    prefix: str
    started_at: float  # seconds since 1970
    counters: Counters

    def encode(self) -> bytes:
        """Return it as the bytes of a file."""
        text = json.dumps(asdict(self)).encode()
        return b"%08x%s" % (zlib.crc32(text), text.ljust(NOTE_BYTES - 8))

    @classmethod
    def decode(cls, data: bytes) -> Note | None:
        """Return what was encoded, or None where that is not all of a note."""
        text = data[8:].rstrip()
        if data[:8] != b"%08x" % zlib.crc32(text):
            return None
        values = json.loads(text)
        known = {field.name for field in fields(Counters)}  # another version of this package may count other things
        counters = Counters(**{name: value for name, value in values.pop("counters").items() if name in known})
        return cls(**values, counters=counters)


def living_notes(folder: Path) -> list[Note]:
    """Return the notes of the processes that hold their lock files in `folder`, which need not exist."""
    if not flocks.have_flock():
        return []
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".lock")
    except OSError:  # missing, or another user's
        return []
    return [note for path in paths if (note := _read(path)) is not None]


def _read(path: Path) -> Note | None:
    try:
        for _ in range(LOOKS):
            note = Note.decode(path.read_bytes())
            if note is not None:
                break
        else:
            return None
        fd = flocks.take(str(path), create=False)
    except OSError:  # gone meanwhile, or another user's
        return None
    if fd is not None:  # nobody holds it
        flocks.give(fd)
        return None
    return note
