"""One storm, from an empty folder to a verdict: processes start, the monkey works, all is read out, all end."""

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.endurance.board import Board
from tests.endurance.crew import Crew, Member, orphans, warm_up
from tests.endurance.kernel import flock_holders
from tests.endurance.monkey import Monkey
from tests.endurance.plan import SLOTS, plan
from tests.endurance.project import configure, database_path, migrate, wake_folder
from tests.endurance.watching import BelongingsWatch, HangWatch, WalWatch, names_in

STEP_S = 0.01
START_S, QUIET_S, DRAIN_S, END_S = 60.0, 90.0, 60.0, 60.0
RESIDUE_S = 10.0
RESIDUE_WATCHED_S = 75.0
"""How long what stays is watched, to say when it went."""


KEPT = {"housekeeping.lock", "checkpoint.lock"}
"""Files in the wake folder that belong to nobody, and stay."""


class StormError(Exception):
    """The storm itself could not go on; the text says what it waited for."""


@dataclass
class Residue:
    """What was left of processes that had ended."""

    gone_after_s: float | None = None
    """None: it was not gone when the storm stopped looking."""
    after_deadline: list[str] = field(default_factory=list)
    after_all_ended: list[str] = field(default_factory=list)


@dataclass
class Evidence:
    """What a storm leaves to be judged, beside the journals and the logs."""

    folder: Path
    seed: int
    minutes: float
    crew: Crew
    monkey: Monkey
    wal: WalWatch
    hangs: HangWatch
    belongings: BelongingsWatch
    residue: Residue
    stuck: list[str]
    late: list[str]
    """What did not come within its time."""
    living: set[int]
    integrity: str
    descriptors: tuple[int, int]
    """Of the observer: when the storm began, and when everybody else had ended."""


class Storm:
    """Runs one; `run` returns the evidence."""

    def __init__(self, folder: Path, seed: int, minutes: float, pace: float, without: Collection[str] = ()) -> None:
        """`pace`: times the usual rate of sending. `without`: what the monkey leaves out."""
        self._folder = folder
        self._without = without
        self._seed = seed
        self._minutes = minutes
        self._board = Board()
        self._crew = Crew(seed, folder, self._board, pace)
        self._wal = WalWatch(folder)
        self._hangs = HangWatch(self._crew, self._board)
        self._belongings = BelongingsWatch(self._crew)
        self._living: set[int] = set()
        self._late: list[str] = []
        self._random = random.Random(f"end {seed}")

    def run(self) -> Evidence:
        configure(self._folder)
        (self._folder / "directory").mkdir()
        _in_child(migrate)
        warm_up()
        try:
            return self._run()
        finally:
            self._crew.kill_all()

    def _run(self) -> Evidence:
        for slot in SLOTS:
            self._crew.start(slot)
        self._until(lambda: all(member.ready for member in self._crew.members.values()), START_S, "all are ready")
        descriptors = _descriptors(self._member("observer"))
        monkey = Monkey(self._crew, self._folder, plan(self._seed, self._minutes * 60, self._without), self._seed)
        while not monkey.finished:
            self._step(monkey)
        monkey.calm_down()
        self._expect(self._all_there, START_S, "all processes are there again", monkey)
        stuck = self._drain(monkey)
        residue = self._end()
        observer = self._member("observer")
        descriptors_at_end = _descriptors(observer)
        self._crew.ask_to_end(observer)
        self._expect(lambda: not self._crew.members, END_S, "the observer has ended")
        residue.after_all_ended = _left_in_folder(self._folder, set())
        return Evidence(
            self._folder,
            self._seed,
            self._minutes,
            self._crew,
            monkey,
            self._wal,
            self._hangs,
            self._belongings,
            residue,
            stuck,
            self._late,
            self._living,
            _integrity(self._folder),
            (descriptors, descriptors_at_end),
        )

    # Steps

    def _step(self, monkey: Monkey | None = None) -> None:
        time.sleep(STEP_S)
        self._crew.poll()
        if monkey is not None:
            monkey.poll()
        self._wal.poll(self._crew)
        self._hangs.poll()
        self._belongings.poll()

    def _until(self, condition: Callable[[], bool], deadline_s: float, what: str, monkey: Monkey | None = None) -> None:
        if not self._within(condition, deadline_s, monkey):
            raise StormError(f"not within {deadline_s:g} s: {what}; {self._situation()}")

    def _expect(
        self, condition: Callable[[], bool], deadline_s: float, what: str, monkey: Monkey | None = None
    ) -> None:
        """The same; that it did not come is a finding, and the storm goes on."""
        if not self._within(condition, deadline_s, monkey):
            self._late.append(f"not within {deadline_s:g} s: {what}; {self._situation()}")

    def _within(self, condition: Callable[[], bool], deadline_s: float, monkey: Monkey | None = None) -> bool:
        ends = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() >= ends:
                return False
            self._step(monkey)
        return True

    def _situation(self) -> str:
        calls = [
            f"{call.kind} in {name} for {time.monotonic() - call.began_at:.1f} s"
            for name in self._crew.members
            for call in self._board.under_way(name)
        ]
        there = [f"{name}{'' if member.ready else ' (not ready)'}" for name, member in self._crew.members.items()]
        return f"there are {', '.join(there)}; under way: {', '.join(calls) or 'nothing'}"

    def _member(self, name: str) -> Member:
        return self._crew.members[name]

    def _all_there(self) -> bool:
        members = self._crew.members.values()
        return len(members) == len(SLOTS) and all(
            member.ready and member.asked_to_end_at is None and member.killed_at is None for member in members
        )

    # The quiet phase

    def _drain(self, monkey: Monkey) -> list[str]:
        """Let all that waits be read out; return what waits in vain.

        Each receive() gets a last message of its own, sent after everything else: who does not come back from it never
        would have.
        """
        self._tell_all("quiet", "quiet", ("sender", "caller", "observer"), monkey)
        heard = self._tell_all("calm", "waiting", ("observer", "reader", "churner", "worker", "taker"), monkey)
        expected: Counter[int] = Counter()
        names: dict[int, str] = {}
        for said in heard:
            for number, name, _ in said["waiting"]:
                expected[number] += 1
                names[number] = name
            self._living.update(said["own"])
        self._crew.said.clear()
        channels = [(number, names[number]) for number in expected.elements()]
        self._crew.tell(self._member("observer"), "finish", channels=channels)
        came: Counter[int] = Counter()

        def all_came() -> bool:
            for _, said in self._crew.said:
                if "last" in said:
                    came[said["last"]] += 1
            self._crew.said.clear()
            return not expected - came

        if self._within(all_came, DRAIN_S, monkey):
            return []
        for member in self._crew.members.values():
            if member.slot.role in ("observer", "reader", "taker", "worker"):
                self._crew.explain(member)
        self._within(lambda: False, 2.0, monkey)
        return [f"{count} on {names[number]}" for number, count in (expected - came).items()]

    def _tell_all(self, do: str, answer: str, roles: tuple[str, ...], monkey: Monkey) -> list[dict[str, Any]]:
        members = [member for member in self._crew.members.values() if member.slot.role in roles]
        self._crew.said.clear()
        for member in members:
            self._crew.tell(member, do)

        def answered() -> set[Member]:
            return {member for member, said in self._crew.said if answer in said}

        self._expect(lambda: answered() >= set(members), QUIET_S, f"all answer to {do!r}", monkey)
        return [said for _, said in self._crew.said if answer in said]

    # The end

    def _end(self) -> Residue:
        """End all but the observer, one half by SIGTERM, and see what is left of them."""
        ending = [member for name, member in self._crew.members.items() if name != "observer"]
        for member in ending:
            if member.slot.role == "locker":
                self._crew.tell(member, "end")
                member.asked_to_end_at = time.monotonic()
            elif self._random.random() < 0.5 and member.slot.role != "janitor":
                self._crew.ask_to_end(member)
            else:
                self._crew.kill(member)
        self._expect(
            lambda: set(self._crew.members) == {"observer"} and not orphans(self._crew), END_S, "all have ended"
        )
        for member in [member for name, member in self._crew.members.items() if name != "observer"]:
            self._crew.kill(member)
        for pid in orphans(self._crew):
            self._late.append(f"a forked child, process {pid}, had not ended")
            os.kill(pid, signal.SIGKILL)
        return self._look_at_residue()

    def _look_at_residue(self) -> Residue:
        residue = Residue()
        began = time.monotonic()
        pid = self._member("observer").pid
        while time.monotonic() < began + RESIDUE_WATCHED_S:
            left = _left_in_database(self._folder, pid)
            if not left:
                residue.gone_after_s = time.monotonic() - began
                break
            if time.monotonic() >= began + RESIDUE_S and not residue.after_deadline:
                residue.after_deadline = left
            self._within(lambda: False, 0.25)
        return residue


def _in_child(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own: what it opens, this one must not have when it forks others."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if status:
        raise StormError(f"{work.__name__} failed")


def _left_in_database(folder: Path, pid: int) -> list[str]:
    """Rows and files that belong to nobody but processes that have ended; `pid` is the one that lives."""
    left: list[str] = []
    with closing(sqlite3.connect(database_path(folder), timeout=5, isolation_level=None)) as connection:
        own = {
            client
            for (client,) in connection.execute("SELECT client FROM channels_sqlite_process WHERE pid = ?", (pid,))
        }
        for table, column in (("process", "client"), ("membership", "client"), ("listener", "client")):
            rows = connection.execute(f"SELECT {column} FROM channels_sqlite_{table}").fetchall()
            others = Counter(client for (client,) in rows if client and client not in own)
            left += [f"{count} rows of client {client} in {table}" for client, count in others.items()]
    # One that only sends has a lock file and no row.
    alive = {path.stem for path in wake_folder(folder).glob("*.lock") if pid in flock_holders(path)}
    return left + _left_in_folder(folder, own | alive)


def _left_in_folder(folder: Path, clients: set[str]) -> list[str]:
    wake = wake_folder(folder)
    if not wake.is_dir():
        return []
    known = {f"{client}.{ending}" for client in clients for ending in ("lock", "sock")}
    return sorted(f"file {name}" for name in names_in(wake) if name not in known and name not in KEPT)


def _integrity(folder: Path) -> str:
    with closing(sqlite3.connect(database_path(folder), timeout=5)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def _descriptors(member: Member) -> int:
    return len(names_in(Path(f"/proc/{member.pid}/fd")))
