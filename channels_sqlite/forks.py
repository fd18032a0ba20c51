"""Forks: a child never touches what its parent opened, and starts with nothing.

SQLite's connections must not cross a fork (https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_connection_across_a_fork_),
not even to be closed: that would drop the parent's locks. So they are kept for ever, unused. Locks are taken before a
fork, for otherwise a thread of the parent could hold one, or a mutex inside SQLite, that nobody releases in the child.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterable
from typing import Protocol

__all__ = ["CrossesForks", "immortalise", "register"]

PATIENCE_S = 0.5  # a thread that waits for the database's lock sleeps outside of SQLite


class CrossesForks(Protocol):
    """What takes part: which locks must be free while the process forks, and what to do in the child."""

    def fork_locks(self) -> Iterable[threading.Lock]:
        """Return the locks under which this object uses SQLite."""

    def after_fork_in_child(self) -> None:
        """Start with nothing."""


_participants: weakref.WeakSet[CrossesForks] = weakref.WeakSet()
_held: list[threading.Lock] = []
_forking = threading.Lock()  # one fork at a time: `_held` is the fork's own


def register(participant: CrossesForks) -> None:
    """Have `participant` take part in forks while it lives."""
    _participants.add(participant)


def immortalise(thing: object) -> None:
    """Never free `thing` in this process, not even at its end."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _before() -> None:
    _forking.acquire()
    for participant in list(_participants):
        _held.extend(lock for lock in participant.fork_locks() if lock.acquire(timeout=PATIENCE_S))


def _in_parent() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


def _in_child() -> None:
    _held.clear()
    _forking.release()
    for participant in list(_participants):
        participant.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
