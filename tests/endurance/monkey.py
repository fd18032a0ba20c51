"""What happens to the processes: the plan's actions, each at its time."""

import heapq
import itertools
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.endurance.crew import Crew, Member
from tests.endurance.kernel import flock_holders
from tests.endurance.plan import SLOT_OF, Action, Slot
from tests.endurance.project import housekeeping_lock, wake_folder

MOST_STOPPED = 2
RESTART_S = (0.05, 0.5)
END_AGAIN_S = 20.0
FREEZE_PATIENCE_S = 5.0
"""How long a freeze waits for somebody who holds the housekeeping lock; that is for some milliseconds a second."""
DEAFEN_S = 0.1
"""After the loop was told to block: the sockets go while it does."""


class Monkey:
    """Carries out a plan; `poll` does what is due. Nothing here waits."""

    def __init__(self, crew: Crew, folder: Path, actions: Iterator[Action], seed: int) -> None:
        self._crew = crew
        self._wake = wake_folder(folder)
        self._housekeeping = housekeeping_lock(folder)
        self._freezes: list[tuple[float, float]] = []  # under way: until when (monotonic), for how many seconds
        self._actions = actions
        self._next: Action | None = next(actions, None)
        self._random = random.Random(f"monkey {seed}")
        self._began = time.monotonic()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._restarting: set[str] = set()
        self.done: Counter[str] = Counter()
        self.removed_folder_at: list[float] = []
        """Seconds since 1970."""

    @property
    def finished(self) -> bool:
        return self._next is None

    def poll(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()
        while self._next is not None and self._began + self._next.at_s <= now:
            action, self._next = self._next, next(self._actions, None)
            if self._carry_out(action):
                self.done[action.kind] += action.times
        self._freeze()
        for name, slot in SLOT_OF.items():
            if name not in self._crew.members and name not in self._restarting:
                self._restarting.add(name)
                self._in(self._random.uniform(*RESTART_S), partial(self._restart, slot))

    def _restart(self, slot: Slot) -> None:
        self._restarting.discard(slot.name)
        self._crew.start(slot)

    def _in(self, seconds: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), act))

    def calm_down(self) -> None:
        """Let everything go on; from now on nothing but restarts is done."""
        self._next = None
        self._freezes.clear()
        for member in self._crew.members.values():
            self._crew.go_on(member)

    def _carry_out(self, action: Action) -> bool:
        """Do it; return whether it could be done."""
        if action.kind == "folder":
            return self._remove_folder()
        if action.kind == "freeze":
            self._freezes.append((time.monotonic() + FREEZE_PATIENCE_S, action.seconds))
            return False  # counted when it is done
        if action.kind == "sockets":
            return self._remove_sockets(action.draw)
        member = self._crew.members.get(action.slot)
        if member is None or not member.ready or member.asked_to_end_at is not None or member.killed_at is not None:
            return False
        if action.kind == "kill":
            self._crew.kill(member)
        elif action.kind == "term":
            if member.stopped_at is not None:
                return False
            self._end(member)
        elif action.kind == "stop":
            return self._stop(member, action.seconds)
        elif action.kind == "fork":
            self._crew.tell(member, "fork", incarnation=self._crew.new_incarnation(), how=action.how)
        elif action.kind == "close":
            self._crew.tell(member, "close", times=action.times)
        elif action.kind == "lock":
            self._crew.tell(member, "lock", seconds=action.seconds)
        elif action.kind in ("trim", "vacuum"):
            self._crew.tell(member, action.kind)
        elif action.kind == "block":
            self._crew.tell(member, "block", seconds=action.seconds)
        elif action.kind == "deafen":
            self._crew.tell(member, "block", seconds=action.seconds)
            self._in(DEAFEN_S, lambda: self._remove_sockets(1.0))
        return True

    def _end(self, member: Member) -> None:
        """SIGTERM, once more where the first one came at a bad time (a listen() that just began anew)."""
        if self._crew.members.get(member.slot.name) is member and member.killed_at is None:
            self._crew.ask_to_end(member)
            self._in(END_AGAIN_S, lambda: self._end(member))

    def _stop(self, member: Member, seconds: float) -> bool:
        stopped = [other for other in self._crew.members.values() if other.stopped_at is not None]
        if member in stopped or len(stopped) >= MOST_STOPPED:
            return False
        self._crew.stop(member)

        def go_on() -> None:
            if self._crew.members.get(member.slot.name) is member:
                self._crew.go_on(member)

        self._in(seconds, go_on)
        return True

    def _freeze(self) -> None:
        """Stop whoever holds the housekeeping lock, unless it has let go of it by then."""
        if not self._freezes:
            return
        until, seconds = self._freezes[0]
        holders = flock_holders(self._housekeeping)
        for member in self._crew.members.values():
            if member.pid in holders and "stop" in member.slot.suffers and member.stopped_at is None:
                if not self._stop(member, seconds):
                    return
                if member.pid in flock_holders(self._housekeeping):
                    self.done["freeze"] += 1
                    del self._freezes[0]
                else:
                    self._crew.go_on(member)
                return
        if time.monotonic() >= until:
            del self._freezes[0]

    def _remove_sockets(self, share: float) -> bool:
        removed = 0
        for path in sorted(self._wake.glob("*.sock")):
            if self._random.random() <= share:
                path.unlink(missing_ok=True)
                removed += 1
        self.done["socket files"] += removed
        return bool(removed)

    def _remove_folder(self) -> bool:
        """As a cleaner of temporary files does it; processes make files in it meanwhile."""
        self.removed_folder_at.append(time.time())
        shutil.rmtree(self._wake, ignore_errors=True)
        return True
