"""The interpreter's end: from when on no thread can be started, and what was closed for good is not opened to stay."""

from __future__ import annotations

import threading

__all__ = ["closed_for_good", "interpreter_is_ending", "thread_ends_unasked"]

closed_for_good = False
"""Whether all layers were closed at the interpreter's end: what is opened after that is closed after each call."""


def interpreter_is_ending() -> bool:
    """Whether the main thread has ended: threads that are left and `atexit` handlers still run, but no new threads.

    Python 3.12 and newer refuse to start them from then on
    (https://docs.python.org/3/whatsnew/3.12.html#changes-in-the-python-api).
    """
    return not threading.main_thread().is_alive()


def thread_ends_unasked() -> bool:
    """Whether the layers are closed because the interpreter ends, and this thread ends with it wherever it is.

    That is a daemon thread: the interpreter has waited for all others before
    (https://docs.python.org/3/library/threading.html#thread-objects).
    """
    return closed_for_good and threading.current_thread().daemon
