"""A call of the sync facade that interrupts another one in the same thread: a signal handler's, a finalizer's.

The interrupted call may hold locks, and its transaction the database's: waiting for either would wait for ever, because
the interrupted call goes on only when the handler returns. So such a call is refused.
"""

from __future__ import annotations

import threading

__all__ = ["exclusive"]


class _Exclusive(threading.local):
    """A block of code that the sync facade may not be entered from, marked for the thread that is in it."""

    def __init__(self) -> None:
        self._entered = False

    def __enter__(self) -> None:
        if self._entered:
            raise RuntimeError(
                "the channel layer was called while another call of it is under way in this very thread, which can "
                "only go on when this one is over: from a signal handler, a __del__ method or a logging handler. Call "
                "it from another thread that is not waited for here, as in "
                "threading.Thread(target=layer.send, args=(channel, message)).start(); or have the handler set a "
                "flag; or, with an event loop, use loop.add_signal_handler()"
            )
        self._entered = True

    def __exit__(self, *exception: object) -> None:
        self._entered = False


exclusive = _Exclusive()
