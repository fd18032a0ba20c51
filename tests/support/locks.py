"""Locks that know their names, and fail the test in which they are taken against the order of `docs/locks.md`.

On for the whole suite, and in the processes that it starts: `VARIABLE` names a folder for what they find there.
"""

import asyncio
import os
import re
import sys
import threading
import traceback
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import channels_sqlite
from tests.support import inside

__all__ = ["VARIABLE", "CheckedLock", "Order", "held_elsewhere", "install", "installed", "take_violations"]

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "locks.md"
VARIABLE = "CHANNELS_SQLITE_LOCKS"
PACKAGE = "channels_sqlite."
ABOUT_FORKS = f"{PACKAGE}concurrency.forks"
"""Takes the locks of all layers, each for a limited time."""

real_lock = threading.Lock


class Order:
    """What the table says."""

    def __init__(self, text: str) -> None:
        waited, never = text.split("## Locks that are never waited for")
        rows = [row.split("|") for row in waited.splitlines() if row.startswith("| `")]
        names = [_names(row[1])[0] for row in rows]
        short = {".".join(name.split(".")[-2:]): name for name in names}
        direct = {name: {short[inner] for inner in _names(row[3])} for name, row in zip(names, rows, strict=True)}
        self.inside = {name: _closure(name, direct) for name in names}
        """Lock to the locks that may be waited for inside it."""
        self.not_on_loops = {name for name, row in zip(names, rows, strict=True) if "event loops" in row[4]}
        """Locks that no thread waits for whose event loop runs."""
        self.flags = {_names(row)[0] for row in never.splitlines() if row.startswith("| `")}
        """Locks that are only tried for."""
        self.bells = {name for name in _names(never) if name.endswith("Gate._lock")}
        """Locks that stand for something that a thread waits for."""


def _names(text: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", text)


def _closure(name: str, direct: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = set(direct[name])
    while left:
        one = left.pop()
        found.add(one)
        left |= direct[one] - found
    return found


@lru_cache(1)
def order() -> Order:
    return Order(TABLE.read_text(encoding="utf-8"))


class _Held(threading.local):
    """What this thread holds."""

    def __init__(self) -> None:
        self.locks: list[CheckedLock] = []


_held = _Held()
_violations: list[str] = []
_sources: dict[str, list[str]] = {}  # path of a module to its lines


def _forget_held() -> None:
    """In a forked child: its only thread is another one."""
    _held.locks.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_held)


class CheckedLock:
    """A lock of the package."""

    def __init__(self, name: str, rules: Order | None = None) -> None:
        self.name = name
        self._rules = rules or order()
        self._lock = real_lock()
        self._made_in = os.getpid()
        self._holder: list[CheckedLock] | None = None
        if name not in {*self._rules.inside, *self._rules.flags, *self._rules.bells}:
            _violation(f"{name} is not in {TABLE.name}")

    @property
    def is_waited_for(self) -> bool:
        """Whether it stands between threads: it is more than a sign that something is being done."""
        return self.name in self._rules.inside

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # as threading's
        forking = sys._getframe(1).f_globals.get("__name__") == ABOUT_FORKS
        if blocking and not forking and self.name not in self._rules.bells:
            self._check()
        taken = self._lock.acquire(blocking, timeout)
        if taken and not forking and self.name not in {*self._rules.bells, *self._rules.flags}:
            self._holder = _held.locks
            self._holder.append(self)
        return taken

    def _check(self) -> None:
        if self._made_in != os.getpid():  # a thread of the parent may have held it at the fork, for ever
            _violation(f"{self.name} is its parent's, and is waited for in a forked child")
        if not self.is_waited_for:
            _violation(f"{self.name} is waited for")
        if self.name in self._rules.not_on_loops and asyncio._get_running_loop() is not None:
            _violation(f"{self.name} is waited for by an event loop")
        for held in _held.locks:
            if held is self:
                _violation(f"{self.name} is waited for by its holder")
            elif self.name not in self._rules.inside.get(held.name, ()) and not _in_finalizer():
                _violation(f"{self.name} is waited for inside {held.name}")

    def release(self) -> None:
        holder, self._holder = self._holder, None
        self._lock.release()
        if holder is not None and self in holder:
            holder.remove(self)

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        self._check()
        return self.acquire(blocking=False) or self.acquire_unchecked()

    def acquire_unchecked(self) -> bool:
        """Wait: it was checked."""
        taken = self._lock.acquire()
        self._holder = _held.locks
        self._holder.append(self)
        return taken

    def __exit__(self, *exception: object) -> None:
        self.release()


def _in_finalizer() -> bool:
    """Whether the garbage collector came by: it closes layers that nobody has, whose locks nobody else can hold."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__") == "weakref":
            return True
        frame = frame.f_back
    return False


@contextmanager
def held_elsewhere(locks: Collection[threading.Lock]) -> Iterator[None]:
    """Another thread holds the locks until the block ends. It takes all or none, and so minds no order."""
    held, let_go = threading.Event(), threading.Event()

    def take(lock: threading.Lock, stack: ExitStack) -> bool:
        taken = lock.acquire(blocking=False)
        if taken:
            stack.callback(lock.release)
        return taken

    def hold() -> None:
        with ExitStack() as stack:
            while not all(take(lock, stack) for lock in locks):
                stack.close()
                let_go.wait(0.001)
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        let_go.set()
        thread.join()


def _violation(text: str) -> None:
    where = "".join(traceback.format_stack(sys._getframe(2), limit=8))
    folder = os.environ.get(VARIABLE)
    if folder and Path(folder).is_dir():
        with Path(folder, f"{os.getpid()}.txt").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n{where}\n")
    else:
        _violations.append(f"{text}\n{where}")


def take_violations() -> list[str]:
    """What was found since the last call, in this process and in those that it has started."""
    found, _violations[:] = list(_violations), []
    folder = os.environ.get(VARIABLE)
    for file in sorted(Path(folder).glob("*.txt")) if folder else ():
        found.append(file.read_text(encoding="utf-8"))
        file.unlink()
    return found


def installed() -> bool:
    return threading.Lock is _make_lock


def install() -> None:
    """Have the package's modules make such locks from now on, and that lock anew which one of them made already."""
    if not installed():
        # Read now: a process may have no file descriptor left when it makes a lock.
        order()
        for path in Path(channels_sqlite.__file__).parent.rglob("*.py"):
            _sources[str(path)] = path.read_text(encoding="utf-8").splitlines()
        threading.Lock = _make_lock  # type: ignore[assignment]  # what is patched is a class for mypy
        inside.renew_lock_of_making_layers()


def _make_lock() -> Any:  # the lock of whoever asks
    frame = sys._getframe(1)
    module = str(frame.f_globals.get("__name__", ""))
    if not module.startswith(PACKAGE) or module.startswith(f"{PACKAGE}testing"):
        return real_lock()
    return CheckedLock(f"{module.removeprefix(PACKAGE)}.{_attribute(frame, module)}")


def _attribute(frame: FrameType, module: str) -> str:
    """`Class.attribute`, or the name of a variable, that the lock is assigned to."""
    line = _sources[frame.f_code.co_filename][frame.f_lineno - 1]
    assigned = re.match(r"\s*(?:self\.)?(\w+)(?:: [^=]+)? = threading\.Lock\(\)", line)
    attribute = assigned[1] if assigned else "?"
    owner = frame.f_locals.get("self")
    if owner is None:
        return attribute
    kind = next(kind for kind in type(owner).__mro__ if kind.__module__ == module)
    return f"{kind.__name__}.{attribute}"
