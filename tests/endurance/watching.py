"""What is measured while a storm runs: the WAL, calls that hang, what long-lived processes hold."""

import os
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.endurance.board import Board, CallUnderWay
from tests.endurance.crew import Crew, Member
from tests.endurance.kernel import bytes_held, flock_holders
from tests.endurance.plan import LONG_LIVED
from tests.endurance.project import LOCK_TIMEOUT_S, database_path, housekeeping_lock

WAL_EVERY_S, LOCKS_EVERY_S, PROCESSES_EVERY_S = (0.05, 0.1, 1.0)
WAL_BOUND_BYTES = 64 * 2**20
BACK_S = 10.0
"""How long the WAL may take to come back below its bound once nothing keeps it from that any more."""
HANG_S = LOCK_TIMEOUT_S + 20.0

# Bytes of the -shm file, see https://www.sqlite.org/walformat.html#wal_locks
CHECKPOINT_BYTE = 121
READER_BYTES = range(123, 128)


@dataclass
class Belongings:
    """One look at one process."""

    at_s: float
    rss_kib: int
    descriptors: int
    threads: int


@dataclass
class WalWatch:
    """The size of the WAL, and when its growth was nobody's fault."""

    folder: Path
    largest_bytes: int = 0
    """While nothing was excused."""
    largest_excused_bytes: int = 0
    excused_s: dict[str, float] = field(default_factory=lambda: {"checkpointer stopped": 0.0, "reader stopped": 0.0})
    over: str = ""
    """What there was when it was largest, and larger than its bound."""
    _excused_until: float = 0.0
    _size: int = 0
    _looked_at: float = 0.0
    _locks_at: float = 0.0

    def poll(self, crew: Crew) -> None:
        now = time.monotonic()
        if now - self._looked_at < WAL_EVERY_S:
            return
        self._look_for_stopped(crew, now)
        self._looked_at = now
        try:
            # Never opened here: closing it would drop the locks that this process might have on it.
            size = os.stat(f"{database_path(self.folder)}-wal").st_size
        except FileNotFoundError:
            return
        if size > WAL_BOUND_BYTES and now >= self._excused_until:
            self._look_for_stopped(crew, now, at_once=True)  # it may have been stopped since the latest look
        if size > WAL_BOUND_BYTES and now < self._excused_until:
            self.largest_excused_bytes = max(self.largest_excused_bytes, size)
            self._size = size
            return
        if size < self._size and size <= WAL_BOUND_BYTES:
            self._excused_until = min(self._excused_until, now)  # it has come back
        self._size = size
        if size > max(WAL_BOUND_BYTES, self.largest_bytes):
            self.over = self._describe(crew, size)
        self.largest_bytes = max(self.largest_bytes, size)

    def _describe(self, crew: Crew, size: int) -> str:
        shared = Path(f"{database_path(self.folder)}-shm")
        stopped = [
            f"{member.slot.name} for {time.monotonic() - member.stopped_at:.1f} s, with SQLite's locks "
            f"{sorted(bytes_held(shared, {member.pid})) or 'none'}"
            + (", with the housekeeping lock" if member.pid in flock_holders(housekeeping_lock(self.folder)) else "")
            for member in crew.members.values()
            if member.stopped_at is not None
        ]
        return (
            f"{size / 2**20:.1f} MiB at {time.time():.3f}, {max(0.0, time.monotonic() - self._excused_until):.0f} s "
            f"after the latest excuse; stopped: {', '.join(stopped) or 'nobody'}"
        )

    def _look_for_stopped(self, crew: Crew, now: float, *, at_once: bool = False) -> None:
        """Whether a stopped process holds one of SQLite's own locks, which keep everybody else from resetting the WAL.

        The checkpointer's keeps others from checkpoints; a reader's snapshot keeps them from beginning the WAL anew.
        """
        stopped = {member.pid for member in crew.members.values() if member.stopped_at is not None}
        if not stopped:
            self._locks_at = now
            return
        if now - self._locks_at < LOCKS_EVERY_S and not at_once:
            return
        held = bytes_held(Path(f"{database_path(self.folder)}-shm"), stopped)
        for reason, excuses in (
            ("checkpointer stopped", CHECKPOINT_BYTE in held),
            ("reader stopped", not held.isdisjoint(READER_BYTES)),
        ):
            if excuses:
                self.excused_s[reason] += now - self._locks_at
                self._excused_until = now + BACK_S
        self._locks_at = now


class HangWatch:
    """Calls that do not come to their end. The time for which their own process was stopped does not count."""

    def __init__(self, crew: Crew, board: Board) -> None:
        self._crew = crew
        self._board = board
        self._polled_at = 0.0
        self._suspected: set[CallUnderWay] = set()
        self._known: set[CallUnderWay] = set()
        self.longest_s: defaultdict[str, float] = defaultdict(float)
        """By kind of call, while they were under way."""
        self.faults: list[str] = []

    def poll(self) -> None:
        now = time.monotonic()
        if now - self._polled_at < PROCESSES_EVERY_S:
            return
        self._polled_at = now
        suspected: set[CallUnderWay] = set()
        for member in list(self._crew.members.values()):
            for call in self._board.under_way(member.slot.name):
                lasts_s = now - call.began_at - member.stopped_s(call.began_at)
                self.longest_s[call.kind] = max(self.longest_s[call.kind], lasts_s)
                if lasts_s > HANG_S:
                    suspected.add(call)
                    if call in self._suspected - self._known:  # seen twice: it was no half-written number
                        self._report(member, call, lasts_s)
        self._suspected = suspected

    def _report(self, member: Member, call: CallUnderWay, lasts_s: float) -> None:
        self._known.add(call)
        self.faults.append(
            f"{call.kind} in {member.slot.name} (process {member.incarnation}) was under way for {lasts_s:.0f} s"
        )
        self._crew.explain(member)


class BelongingsWatch:
    """Memory, descriptors and threads of the processes that live through the whole storm."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._began = self._polled_at = time.monotonic()
        self.seen: defaultdict[str, list[Belongings]] = defaultdict(list)

    def poll(self) -> None:
        now = time.monotonic()
        if now - self._polled_at < PROCESSES_EVERY_S:
            return
        self._polled_at = now
        for name in LONG_LIVED:
            member = self._crew.members.get(name)
            if member is not None and member.stopped_at is None:
                self.seen[name].append(_belongings(member.pid, now - self._began))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _belongings(pid: int, at_s: float) -> Belongings:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines())
    return Belongings(
        at_s,
        int(status["VmRSS"].split()[0]),
        len(names_in(Path(f"/proc/{pid}/fd"))),
        int(status["Threads"]),
    )
