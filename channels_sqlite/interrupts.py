"""Ending a loop on SIGTERM and SIGINT after the work in hand, without interrupting it."""

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
        self._pid = os.getpid()
        self._replaced: dict[int, Callable[[int, FrameType | None], object] | int] = {}

    def install(self) -> None:
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # None was not installed from Python and could not be put back; what is ignored stays so (nohup).
            if handler is not None and handler is not signal.SIG_IGN:
                self._replaced[number] = handler
                signal.signal(number, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        outer = self._replaced.get(number)
        self.remove()
        if os.getpid() != self._pid:  # forked by the work in hand (multiprocessing): the loop is its parent's
            signal.raise_signal(number)
            return
        self._end()
        if isinstance(outer, _Handler):  # a loop within a loop ends both
            outer(number, frame)

    def remove(self) -> None:
        while self._replaced:
            number, handler = self._replaced.popitem()
            if signal.getsignal(number) is self:  # else somebody else has replaced it since
                signal.signal(number, handler)


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
