"""What an event loop does for its receivers: it watches the wake-up socket, and polls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from channels_sqlite.concurrency.loops import call_in
from channels_sqlite.waking.pace import Duty, Pace
from channels_sqlite.waking.wake_socket import WakeSocket

__all__ = ["LoopWatch", "LoopWatches"]


class LoopWatch:
    """What one event loop does for its waiting receivers: it watches the wake-up socket, and polls.

    It starts with the first receiver of the loop, and ends at the first tick without any, so that receivers which come
    and go cost nothing here. All of it runs on that loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, duty: Duty) -> None:
        self.loop = loop
        self.waiting = 0  # receivers of this loop; for its thread alone
        self._duty = duty
        self._watched: WakeSocket | None = None
        self._watched_fd = -1
        self.pace = Pace(duty)
        self._alarm_fd = -1  # of the alarm that the loop watches
        self._piled_up = False  # the last wake-up was for what had been found before
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether the loop watches, so that a message committed from now on wakes it."""
        return self._timer is not None

    def start(self) -> None:
        """Begin to watch; does nothing when it does."""
        if self._timer is None:
            self.pace.rouse()
            self._schedule()
            self._attempt("watching the wake-up socket", self._watch)

    def stop(self) -> None:
        """End watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.unwatch()
        self._unwatch_alarm()
        self.close_alarm()

    def release(self) -> None:
        """Let go of everything from any thread: the loop is closed, and nobody watches."""
        watched, self._watched = self._watched, None
        if watched is not None:
            watched.let_go()
        self.close_alarm()

    def close_alarm(self) -> None:
        """Close the alarm, which nobody watches: the loop is closed, or the parent's of a forked child."""
        self.pace.alarm.close()

    def rouse(self) -> None:
        """Poll at every interval until all is quiet again."""
        self.pace.rouse()
        if self._timer is not None:
            self._timer.cancel()
            self._schedule()
            self._unwatch_alarm()

    def unwatch(self) -> None:
        """Let go of the wake-up socket. The next tick looks for the new one."""
        watched, self._watched = self._watched, None
        if watched is not None:
            try:
                self.loop.remove_reader(self._watched_fd)
            finally:
                watched.let_go()

    def _tick(self) -> None:
        if self.waiting <= 0:
            self.stop()
            return
        self._schedule()
        self._attempt("polling", self.pace.poll)
        self._attempt("watching the wake-up socket", self._watch)
        if self.pace.resting is not (self._alarm_fd >= 0):
            self._attempt("watching for writes", self._change_pace)

    def _attempt(self, what: str, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # nothing may keep the next step, or the next tick, from its work
            self._duty.failed(what, error)

    def _schedule(self) -> None:
        self._timer = self.loop.call_later(self.pace.interval_s, self._tick)

    def _change_pace(self) -> None:
        if not self.pace.resting:
            self.rouse()
        elif self._timer is not None:
            fd = self.pace.alarm.fileno()
            try:
                self.loop.add_reader(fd, self.rouse)
            except BaseException as error:
                self.pace.rouse()
                if isinstance(error, NotImplementedError):
                    return
                raise
            self._alarm_fd = fd
            self._timer.cancel()
            self._schedule()

    def _unwatch_alarm(self) -> None:
        fd, self._alarm_fd = self._alarm_fd, -1
        if fd >= 0:
            self.loop.remove_reader(fd)

    def _watch(self) -> None:
        current = self._duty.wake_socket
        if current is self._watched:
            return
        self.unwatch()
        if current is None or not current.hold():
            return
        fd = current.socket.fileno()
        try:
            self.loop.add_reader(fd, self._readable)
        except BaseException as error:
            current.let_go()
            if isinstance(error, NotImplementedError):  # Windows' proactor loop
                return
            raise
        self._watched, self._watched_fd = current, fd

    def _readable(self) -> None:
        wake = self._duty.wake_socket
        if wake is None or wake is not self._watched:
            self._attempt("watching the wake-up socket", self._watch)
            return
        # Mostly one byte has come, and asking for a second takes as long as taking the first. Where they have piled up,
        # the first look at the database finds what all of them were sent for.
        if self._piled_up:
            wake.drain()
        else:
            wake.take()
        self._piled_up = not self._duty.look()


class LoopWatches:
    """The watches of all event loops that have receivers. May be called by any thread."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._watches: dict[asyncio.AbstractEventLoop, LoopWatch] = {}
        self._closed = False  # a loop was, since somebody asked
        self._lock = threading.Lock()  # guards `_watches`; inside that of the wake-up socket may be waited for

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopWatch:
        """Return the watch of `loop`, which runs in this thread."""
        watch = self._watches.get(loop)
        if watch is None:
            watch = LoopWatch(loop, self._duty)
            with self._lock:
                self._forget_closed()
                self._watches[loop] = watch
        return watch

    def forget_closed(self) -> bool:
        """Keep nothing of loops that are closed; return whether there were any since the last call."""
        with self._lock:
            self._forget_closed()
            closed, self._closed = self._closed, False
        return closed

    def _forget_closed(self) -> None:
        for loop in [loop for loop in self._watches if loop.is_closed()]:
            self._watches.pop(loop).release()
            self._closed = True

    def let_go(self) -> None:
        """Have every loop let go of the wake-up socket soon."""
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            _call(watch, watch.unwatch)

    def rouse(self) -> None:
        """Poll in every loop until all is quiet again."""
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            call_in(watch.loop, watch.rouse)

    def stop(self) -> None:
        """End watching in every loop."""
        with self._lock:
            watches = list(self._watches.values())
            self._watches.clear()
        for watch in watches:
            _call(watch, watch.stop)

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without touching it."""
        self._lock = threading.Lock()
        for watch in list(self._watches.values()):
            watch.close_alarm()


def _call(watch: LoopWatch, what: Callable[[], object]) -> None:
    """Call a method of `watch` in its loop; a loop that does not run now has nobody whom it could disturb."""
    if watch.loop.is_closed():
        watch.release()
    elif watch.loop.is_running():
        if not call_in(watch.loop, what):
            watch.release()
    else:
        what()
