"""The threads of a worker process. One of them drives: it runs quick tasks one after another, and the others sleep.

Python runs one thread at a time, and to pass that on takes longer than a quick task. So the thread that drives runs
what was claimed, task by task, and then writes what became of all of it together with the next claim, in one
transaction. Nothing is claimed ahead of a free thread: for each task that waits here another thread sleeps, and is
called up once the main thread sees that a task holds up the driver (`watch`). Whoever comes back from a task then, or
while nobody drives, drives on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from channels_sqlite.storage.tasks import Outcome, TaskRow
from channels_sqlite.tasks.runner import Start

__all__ = ["Crew", "Ended", "Work", "Written"]

logger = logging.getLogger(__name__)

HELD_UP_S = 0.001  # a driver that is in one task for so long drives no more
LONGEST_PAUSE_S = 0.004  # between two looks at a driver that gets on: each costs it 0.1 ms
BEHIND_S = 0.0003  # ... or for so long, where another thread is at hand
STALLED_S = 0.05  # ... or in one transaction, for others have the database
LINGER_S = 0.001  # how long an end may wait for those of other quick tasks


class Ended(NamedTuple):
    """A task that was run, and what became of it."""

    start: Start
    outcome: Outcome


class Written(NamedTuple):
    """An end that is in the database; `row` is None where the attempt was taken from this worker."""

    end: Ended
    row: TaskRow | None


class Work(Protocol):
    """What a crew is for. No method raises."""

    def turn(self, ends: Sequence[Ended], free: int) -> tuple[list[Written], list[Start] | None]:
        """Write the ends, and claim tasks for `free` threads.

        Returns those that were written; and what was claimed, None where the main thread has to look first.
        """

    def tell(self, written: Written) -> None:
        """Tell whoever cares of an end."""

    def is_heard(self) -> bool:
        """Whether anybody's code is called by `tell`, which may take long."""


@dataclass(eq=False)
class Driver:
    """A thread that drives, or has driven."""

    began: float | None = None  # monotonic time at which it went into code of others; None: it is in ours
    turned: float = 0.0  # monotonic time at which it came back, or its last transaction began
    seen: float | None = None  # monotonic: `began` or `turned` when it was looked at
    pause_s: float = HELD_UP_S  # until the next look


class Crew:
    """The threads, and what they have in hand."""

    def __init__(self, threads: int, work: Work, wake: Callable[[], object]) -> None:
        """`wake` has the main thread look: at a driver that may be held up, or because a thread has become free."""
        self._size = threads
        self._work = work
        self._wake = wake
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="channels-worker")
        # Guards all that follows; nothing is waited for inside.
        self._lock = threading.Lock()
        self._waiting: deque[Start] = deque()  # claimed, and not begun
        self._ended: list[Ended] = []  # not written yet
        self._ended_at = 0.0  # monotonic: the first of these
        self._inside = 0  # threads that are not asleep ...
        self._called = 0  # ... those included that were called up, and are on their way
        self._driver: Driver | None = None
        self._claiming = False  # somebody claims, and so knows alone how many threads are free
        self._watched = False  # the main thread looks at the driver from time to time

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        with self._lock:
            return bool(self._inside or self._waiting or self._ended)

    def submit(self, work: Callable[[], object]) -> None:
        """Do something else in one of the threads, once one is free."""
        self._pool.submit(work)

    def close(self) -> None:
        """End the threads, when they have nothing in hand any more."""
        self._pool.shutdown()

    # On the main thread

    def watch(self) -> float | None:
        """See that a driver which is held up is replaced.

        Returns the monotonic time at which to look again, or None where nobody drives.
        """
        now = time.monotonic()
        with self._lock:
            driver = self._driver
            self._watched = driver is not None or self._called > 0
            if driver is None:
                if self._called:
                    return now + HELD_UP_S
            elif driver.began is None:
                if now < driver.turned + STALLED_S:
                    return now + _pause_s(driver)
            elif now < driver.began + HELD_UP_S:
                return now + _pause_s(driver)
            self._driver = None
            called = self._call(len(self._waiting))
            self._watched = called > 0
        self._submit(called)
        return None

    def begin_claim(self) -> int | None:
        """Return how many threads are free, for who claims and calls `end_claim` then; None: somebody else claims."""
        with self._lock:
            if self._claiming:
                return None
            self._claiming = True
            return max(0, self._free())

    def end_claim(self, starts: Sequence[Start]) -> None:
        """Take over what was claimed."""
        with self._lock:
            self._claiming = False
            self._waiting.extend(starts)
            called = self._call() if self._driver is None else 0
        self._submit(called)

    def _submit(self, called: int) -> None:
        for _ in range(called):
            self._pool.submit(self._drive)

    # Anywhere, under the lock

    def _call(self, wanted: int = 1) -> int:
        """Count threads as called up, where there is something to do; the caller submits them. At least one."""
        called = min(max(wanted, 1), self._size - self._inside) if self._waiting or self._ended else 0
        self._inside += called
        self._called += called
        return called

    def _free(self) -> int:
        """How many threads neither have something in hand nor are to take what waits."""
        return self._size - (self._inside - self._called) - len(self._waiting)

    def _drives(self, driver: Driver) -> bool:
        """Let a thread that comes out of others' code drive, unless another one is at it: then it leaves."""
        driver.began, driver.turned = None, time.monotonic()
        other = self._driver
        if other is None or (other.began is not None and driver.turned - other.began >= BEHIND_S):
            self._driver = driver
        if self._driver is not driver:
            self._inside -= 1
            return False
        return True

    # In the threads

    def _drive(self) -> None:
        driver = Driver()
        try:
            with self._lock:
                self._called -= 1
                goes_on = self._drives(driver)
            while goes_on:
                start = self._next(driver)
                goes_on = start is not None and self._run(driver, start)
        except BaseException:
            logger.exception("a thread of the worker failed")
            with self._lock:
                self._inside -= 1
                if self._driver is driver:
                    self._driver = None
        self._wake()

    def _next(self, driver: Driver) -> Start | None:
        """Return what to run next, once what became of others is written; None: this thread leaves."""
        all_claimed = False
        while True:
            now = time.monotonic()
            start: Start | None = None
            ends: list[Ended] = []
            free = 0
            watched = True
            with self._lock:
                if self._driver is not driver and not self._drives(driver):
                    return None
                if self._waiting and (not self._ended or now - self._ended_at < LINGER_S):
                    start = self._waiting.popleft()
                    driver.began = now
                    watched = self._watched or not (self._waiting or self._ended)
                else:
                    ends, self._ended = self._ended, []
                    driver.turned = now
                    claims = not self._claiming and not all_claimed
                    if claims:
                        self._claiming = True
                        free = self._free() + 1
                    if not claims and not ends and not self._waiting:
                        self._driver = None
                        self._inside -= 1
                        return None
            if start is not None:
                if not watched:
                    self._wake()
                return start
            all_claimed = self._turn(driver, ends, free, claims=claims)

    def _turn(self, driver: Driver, ends: list[Ended], free: int, *, claims: bool) -> bool:
        """Write ends and claim; return whether there is nothing more to claim now."""
        is_told = bool(ends) and self._work.is_heard()
        if is_told:  # this thread is not free before that
            free -= 1
        written: list[Written] = []
        starts: list[Start] | None = []
        try:
            written, starts = self._work.turn(ends, free if claims else 0)
        finally:
            with self._lock:
                if claims:
                    self._claiming = False
                self._waiting.extend(starts or ())
                if ends and self._driver is driver:
                    driver.began = time.monotonic()
        for one in written:
            self._work.tell(one)
        with self._lock:
            driver.began = None
        return starts is None or (claims and free > 0 and not starts)

    def _run(self, driver: Driver, start: Start) -> bool:
        """Run a task; return whether this thread goes on."""
        outcome: Outcome | None = None
        try:
            outcome = start.attempt()
        except BaseException:
            logger.exception("task %s: its end could not be written", start.row.key)
        ended = time.monotonic()
        with self._lock:
            if outcome is not None:
                if not self._ended:
                    self._ended_at = ended
                self._ended.append(Ended(start, outcome))
            return self._drives(driver)


def _pause_s(driver: Driver) -> float:
    """Return how long not to look at a driver: longer and longer, as long as it gets on."""
    before, driver.seen = driver.seen, driver.turned if driver.began is None else driver.began
    gets_on = before is not None and before != driver.seen
    driver.pause_s = min(driver.pause_s * 2, LONGEST_PAUSE_S) if gets_on else HELD_UP_S
    return driver.pause_s
