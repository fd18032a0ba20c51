"""What the kernel says of locks on files (/proc/locks), also of those that a stopped process holds."""

from collections.abc import Iterator
from pathlib import Path

LOCKED_BYTES = 200
"""Only the first ones are looked at: SQLite's locks in the -shm file lie there."""


def bytes_held(path: Path, pids: set[int]) -> set[int]:
    """The bytes of a file on which these processes have POSIX locks."""
    held: set[int] = set()
    for kind, pid, first, last in _locks(path):
        if kind == "POSIX" and pid in pids:
            held.update(range(first, last + 1))
    return held


def flock_holders(path: Path) -> set[int]:
    """The processes that took a flock on a file."""
    return {pid for kind, pid, _, _ in _locks(path) if kind == "FLOCK"}


def _locks(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """(kind, pid, first byte, last byte) of each lock on a file."""
    try:
        inode = f":{path.stat().st_ino}"
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        words = line.split()
        # 1: POSIX  ADVISORY  WRITE 1234 08:01:5678 121 121; one that waits has "->" in front
        if len(words) == 8 and words[5].endswith(inode):
            last = LOCKED_BYTES if words[7] == "EOF" else min(int(words[7]), LOCKED_BYTES)
            yield words[1], int(words[4]), int(words[6]), last
