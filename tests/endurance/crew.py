"""The processes of a storm, seen from the one that forks them."""

import asyncio
import ctypes
import faulthandler
import json
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.endurance.board import Board
from tests.endurance.journal import log_path
from tests.endurance.plan import SLOTS, Role, Slot
from tests.endurance.station import Station

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(eq=False)
class Member:
    """One process, until it has ended."""

    slot: Slot
    incarnation: int
    pid: int
    commands_fd: int
    reports_fd: int
    started_at: float = field(default_factory=time.monotonic)
    ready: bool = False
    stopped_at: float | None = None
    """Monotonic; while it is stopped."""
    stops: list[tuple[float, float]] = field(default_factory=list)
    killed_at: float | None = None
    """Seconds since 1970."""
    held_since: float = 0.0
    """When a killed process last ran, in seconds since 1970."""
    asked_to_end_at: float | None = None
    """Monotonic; of a SIGTERM."""
    unread: bytes = b""

    def stopped_s(self, since: float) -> float:
        """How long it was stopped after the monotonic time `since`."""
        stops = [*self.stops, (self.stopped_at, time.monotonic())] if self.stopped_at is not None else self.stops
        return sum(max(0.0, until - max(begin, since)) for begin, until in stops)


@dataclass(frozen=True)
class Death:
    """How a process ended. `held_since`: when it last ran, for one that was stopped before it was killed."""

    slot: str
    incarnation: int
    at: float
    held_since: float
    how: str
    """killed, ended, or crashed."""


class Crew:
    """Starts, signals, hears and buries them."""

    def __init__(self, seed: int, folder: Path, board: Board, pace: float) -> None:
        self._seed = seed
        self._folder = folder
        self._board = board
        self._pace = pace
        self.members: dict[str, Member] = {}
        self.deaths: list[Death] = []
        self.said: list[tuple[Member, dict[str, Any]]] = []
        self.faults: list[str] = []
        self._stops: dict[int, list[tuple[float, float]]] = {}
        self._incarnations = 0
        # What a killed process had forked off becomes a child of this one, and is waited for here.
        _prctl(PR_SET_CHILD_SUBREAPER, 1)

    def new_incarnation(self) -> int:
        self._incarnations += 1
        return self._incarnations

    def start(self, slot: Slot) -> Member:
        """Fork a process for `slot`. Nothing was opened in this process that a child must not have."""
        incarnation = self.new_incarnation()
        commands_fd, to_child = os.pipe()
        from_child, reports_fd = os.pipe()
        self._board.clear(slot.name)
        station = Station(slot, incarnation, self._seed, self._folder, self._board, self._pace, commands_fd, reports_fd)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            for inherited in (to_child, from_child, *self._fds()):
                os.close(inherited)
            _live(station, parent)
        os.close(commands_fd)
        os.close(reports_fd)
        os.set_blocking(from_child, False)
        member = self.members[slot.name] = Member(slot, incarnation, pid, to_child, from_child)
        return member

    def _fds(self) -> list[int]:
        return [fd for member in self.members.values() for fd in (member.commands_fd, member.reports_fd)]

    def tell(self, member: Member, do: str, **given: object) -> None:
        try:
            os.write(member.commands_fd, json.dumps({"do": do, **given}).encode() + b"\n")
        except BrokenPipeError:
            pass  # it has just ended

    def signal(self, member: Member, number: signal.Signals) -> None:
        """To this very process: it is ours and not yet waited for, so its pid is nobody else's."""
        os.kill(member.pid, number)

    def stop(self, member: Member) -> None:
        self.signal(member, signal.SIGSTOP)
        member.stopped_at = time.monotonic()

    def go_on(self, member: Member) -> None:
        if member.stopped_at is not None:
            self.signal(member, signal.SIGCONT)
            now = time.monotonic()
            member.stops.append((member.stopped_at, now))
            stopped_s = now - member.stopped_at
            self._stops.setdefault(member.incarnation, []).append((time.time() - stopped_s, time.time()))
            member.stopped_at = None

    def ask_to_end(self, member: Member) -> None:
        if member.asked_to_end_at is None:
            member.asked_to_end_at = time.monotonic()
        self.signal(member, signal.SIGTERM)

    def kill(self, member: Member) -> None:
        now = time.time()
        member.killed_at = now
        member.held_since = now if member.stopped_at is None else now - (time.monotonic() - member.stopped_at)
        self.signal(member, signal.SIGKILL)

    def explain(self, member: Member) -> None:
        """Have a process write down where its threads and its tasks stand, in its log."""
        self.signal(member, signal.SIGUSR1)
        self.tell(member, "explain")

    # Hearing and burying

    def poll(self) -> None:
        """Take in what was said, and bury who has ended."""
        for member in self.members.values():
            self._hear(member)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for member in [member for member in self.members.values() if member.pid == pid]:
                self._hear(member)
                self._bury(member, status)

    def _hear(self, member: Member) -> None:
        while True:
            try:
                data = os.read(member.reports_fd, 65536)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, member.unread = (member.unread + data).split(b"\n")
            for line in lines:
                said = json.loads(line)
                member.ready = member.ready or "ready" in said
                self.said.append((member, said))

    def _bury(self, member: Member, status: int) -> None:
        del self.members[member.slot.name]
        os.close(member.commands_fd)
        os.close(member.reports_fd)
        now = time.time()
        by_sigterm = os.waitstatus_to_exitcode(status) == -signal.SIGTERM and member.asked_to_end_at is not None
        how = "killed" if member.killed_at is not None else "ended" if status == 0 or by_sigterm else "crashed"
        if how == "crashed" or (how == "ended" and member.asked_to_end_at is None):
            log = log_path(self._folder, member.incarnation, member.slot.name)
            self.faults.append(
                f"{member.slot.name} (process {member.incarnation}) ended by itself, with "
                f"{os.waitstatus_to_exitcode(status)}; see {log}"
            )
        self.deaths.append(
            Death(
                member.slot.name,
                member.incarnation,
                member.killed_at or now,
                member.held_since or now,
                how,
            )
        )

    def stops_by_incarnation(self) -> dict[int, list[tuple[float, float]]]:
        """When processes were stopped, in seconds since 1970."""
        return self._stops

    def kill_all(self) -> None:
        """In the end, whatever happened: end every process that is still there, and what they forked off."""
        for member in list(self.members.values()):
            self.kill(member)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            self.poll()
            for pid in _children():
                os.kill(pid, signal.SIGKILL)
            if not self.members and not _children():
                return
            time.sleep(0.05)


def orphans(crew: Crew) -> list[int]:
    """Children of this process that are no members: forked off by processes that have ended since."""
    known = {member.pid for member in crew.members.values()}
    return [pid for pid in _children() if pid not in known]


def _children() -> list[int]:
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii")
    return [int(pid) for pid in text.split()]


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _live(station: Station, parent: int) -> None:
    """Be the process; does not return."""
    status = 1
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no process outlives a storm that was interrupted
        if os.getppid() != parent:
            os._exit(1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the storm ends its processes itself
        log = os.open(
            log_path(station.folder, station.incarnation, station.slot.name),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND,
            0o644,
        )
        for fd in (1, 2):
            os.dup2(log, fd)
        os.close(log)
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        # Forking with threads is what is tried here.
        warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
        _roles()[station.slot.role](station)
        status = 0
    except BaseException:  # noqa: BLE001  # the last frame: nothing above it may run in the fork
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _roles() -> dict[Role, Callable[[Station], None]]:
    from tests.endurance import reading, sending, threads

    return {
        "observer": lambda station: asyncio.run(reading.Observer(station).run()),
        "reader": lambda station: asyncio.run(reading.Reader(station).run()),
        "churner": lambda station: asyncio.run(reading.Churner(station).run()),
        "sender": lambda station: asyncio.run(sending.Sender(station).run()),
        "worker": lambda station: threads.Worker(station).run(),
        "taker": lambda station: threads.Taker(station).run(),
        "caller": lambda station: threads.Caller(station).run(),
        "locker": lambda station: threads.Locker(station).run(),
        "janitor": lambda station: threads.Janitor(station).run(),
    }


def warm_up() -> None:
    """Import what the processes need, so that they start quickly; SLOTS with unknown roles fail here."""
    known = _roles()
    missing = {slot.role for slot in SLOTS} - set(known)
    if missing:
        raise LookupError(f"roles without a function: {sorted(missing)}")
