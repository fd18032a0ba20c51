"""Forks: a child never touches what its parent opened, and starts with nothing.

SQLite's connections must not cross a fork (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_),
not even to be closed: that would drop the parent's locks. So they are kept for ever, unused. Locks are taken before a
fork, for otherwise a thread of the parent could hold one, or a mutex inside SQLite, that nobody releases in the child.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

__all__ = ["immortalise", "register", "register_innermost"]

# How often to look, in all, for a thread that is inside of SQLite: it is there for the length of a transaction, or it
# waits for the disk. Who waits for the database's lock sleeps outside of it. Looks are counted and not seconds, so that
# a process which is suspended meanwhile has not lost its patience when it goes on.
LOOKS = 200
LOOK_S = 0.01


Locks = Callable[[], Iterable[threading.Lock]]

_participants: dict[int, tuple[weakref.WeakMethod[Callable[[], object]], weakref.WeakMethod[Locks] | None]] = {}
_numbers = itertools.count()
_held: list[list[threading.Lock]] = []  # of each fork under way: a signal handler may fork in the middle of another
_forking = threading.RLock()  # one fork at a time
_innermost: list[tuple[AbstractContextManager[object], Callable[[], object]]] = []


def register(in_child: Callable[[], object], locks: Locks | None = None) -> None:
    """Have an object take part in forks while it lives; both are its methods.

    `in_child` has it start with nothing, and with locks of its own: a thread of the parent may hold any lock for ever.
    `locks` returns those under which it uses SQLite, which must be free while the process forks.
    """
    number = next(_numbers)
    method = weakref.WeakMethod(in_child, lambda _: _participants.pop(number, None))
    _participants[number] = method, None if locks is None else weakref.WeakMethod(locks)


def register_innermost(lock: AbstractContextManager[object], in_child: Callable[[], object]) -> None:
    """Have a lock that is taken inside those of the participants be free while the process forks.

    It is taken after theirs: whoever holds one of those may wait for it, and would hold up the fork. `in_child` is
    called in the child before all else.
    """
    _innermost.append((lock, in_child))


def immortalise(thing: object) -> None:
    """Never free `thing` in this process, not even at its end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _before() -> None:
    _forking.acquire()
    looks = iter(range(LOOKS))
    held: list[threading.Lock] = []
    _held.append(held)
    for _, method in list(_participants.values()):
        locks = None if method is None else method()
        if locks is not None:
            held.extend(lock for lock in locks() if _acquired(lock, looks))
    for innermost, _ in _innermost:
        innermost.__enter__()


def _acquired(lock: threading.Lock, looks: Iterator[int]) -> bool:
    return lock.acquire(blocking=False) or any(lock.acquire(timeout=LOOK_S) for _ in looks)


def _release_innermost() -> None:
    for innermost, _ in reversed(_innermost):
        innermost.__exit__(None, None, None)


def _in_parent() -> None:
    _release_innermost()
    if _held:  # else this is the child of a signal handler, which came in the middle of that fork and forked as well
        for lock in reversed(_held.pop()):
            lock.release()
        _forking.release()


def _in_child() -> None:
    for _, begin in _innermost:
        begin()
    _release_innermost()
    for _ in _held:  # as often as it was taken
        _forking.release()
    _held.clear()
    for method, _ in list(_participants.values()):
        in_child = method()
        if in_child is not None:
            in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
