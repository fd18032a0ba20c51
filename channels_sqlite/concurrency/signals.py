"""Ending a loop on SIGTERM and SIGINT after the work in hand, without interrupting it.

A child that the work in hand forks (multiprocessing) has the handlers that were there before, for the loop is its
parent's. A signal that comes in the middle of the fork waits until they are back: Python would forget it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

__all__ = ["ended_by_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Handler:
    """Calls `end` once and puts back the handlers that it replaced: a second signal has its usual effect."""

    def __init__(self, end: Callable[[], object]) -> None:
        self._end = end
        self._replaced: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def install(self) -> None:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # None was not installed from Python and could not be put back; what is ignored stays so (nohup).
            if handler is not None and handler is not signal.SIG_IGN:
                self._replaced[number] = handler
                signal.signal(number, self)
        _installed.append(self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        outer = self._replaced.get(number)
        self.remove()
        self._end()
        if isinstance(outer, _Handler):  # a loop within a loop ends both
            outer(number, frame)

    def remove(self) -> None:
        if self in _installed:
            _installed.remove(self)
        while self._replaced:
            number, handler = self._replaced.popitem()
            if signal.getsignal(number) is self:  # else somebody else has replaced it since
                signal.signal(number, handler)


_installed: list[_Handler] = []


class _Fork(threading.local):
    """A fork under way in a thread: which signals it had blocked before."""

    blocked: set[int | signal.Signals] | None = None


_fork = _Fork()


def _before_fork() -> None:
    if _installed:
        _fork.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _after_fork() -> None:
    blocked, _fork.blocked = _fork.blocked, None
    if blocked is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _after_fork_in_child() -> None:
    for handler in reversed(_installed.copy()):
        handler.remove()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)


@contextmanager
def ended_by_signals(end: Callable[[], object]) -> Generator[None]:
    """Have the first SIGTERM or SIGINT call `end`, in the main thread; in other threads this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler(end)
    handler.install()
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # a generator may be closed by any thread
            handler.remove()
