"""Who watches the wake-up socket for those who wait: their event loops, and one of the waiting threads.

Every `polling_interval` each of them also looks whether the database has changed, in case a wake-up was lost. After a
few polls that found nothing that is left to the kernel, where it tells of the next write; see `Pace`.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from channels_sqlite.alarms import WriteAlarm
from channels_sqlite.loops import call_in, run_in
from channels_sqlite.waiters import Gate
from channels_sqlite.wakeup import WakeSocket

__all__ = ["Duty", "LoopWatch", "LoopWatches", "ThreadWatch"]

LET_GO_S = 1.0
QUIET_POLLS = 4  # that found nothing, one after the other, until polling rests
REST_S = 1.0  # from poll to poll while it rests

# poll() opens no descriptor and takes any number of one; Windows has only select().
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


@dataclass(frozen=True)
class Duty:
    """What there is to watch, and what to do."""

    interval_s: float
    wake_socket: Callable[[], WakeSocket | None]
    on_wake: Callable[[], bool]
    """Reads what is new; returns whether there was anything."""
    on_tick: Callable[[], bool]
    """Polls; returns whether there was or may have been anything new."""
    rest: Callable[[WriteAlarm], bool]
    """Sets the alarm; returns whether whatever is committed after the latest poll rings it."""


class Pace:
    """When to poll: at every interval, and only now and then while an alarm tells of writes.

    For one thread, but for `rouse`.
    """

    def __init__(self, duty: Duty) -> None:
        self.alarm = WriteAlarm()
        self._duty = duty
        self._quiet = 0  # polls that found nothing
        self._roused = 0  # times
        self._resting_since = -1  # roused so many times

    @property
    def resting(self) -> bool:
        """Whether the alarm is relied on."""
        return self._resting_since == self._roused

    @property
    def interval_s(self) -> float:
        """The seconds until the next poll."""
        return REST_S if self.resting else self._duty.interval_s

    def poll(self) -> None:
        """Poll, and rest or go on with it."""
        if self._duty.on_tick():
            self.rouse()
            return
        self._quiet += 1
        if not self.resting and self._quiet >= QUIET_POLLS:
            self._quiet = 0  # the next try, if this one fails
            roused = self._roused  # by another thread maybe, while the alarm is set
            if self._duty.interval_s < REST_S and self._duty.rest(self.alarm):
                self._resting_since = roused

    def rouse(self) -> None:
        """Poll at every interval again: somebody writes, but may not have committed yet."""
        self._quiet = 0
        self._roused += 1


class LoopWatch:
    """What one event loop does for its waiting receivers: it watches the wake-up socket, and polls.

    It starts with the first receiver of the loop, and ends at the first tick without any, so that receivers which come
    and go cost nothing here. All of it runs on that loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, duty: Duty) -> None:
        self.loop = loop
        self.waiting = 0  # receivers of this loop; guarded by the inbox's lock
        self._duty = duty
        self._watched: socket.socket | None = None
        self.pace = Pace(duty)
        self._alarmed = False  # the loop watches the alarm
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
            self._watch()

    def stop(self) -> None:
        """End watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.unwatch()
        self._unwatch_alarm()
        self.close_alarm()

    def close_alarm(self) -> None:
        """Close the alarm, which nobody watches: the loop is closed, or the parent's of a forked child."""
        self.pace.alarm.close()

    def rouse(self) -> None:
        """Poll at every interval until all is quiet again."""
        self.pace.rouse()
        if self._timer is not None:
            self._timer.cancel()
            self._unwatch_alarm()
            self._schedule()

    def unwatch(self) -> None:
        """Let go of the wake-up socket, which may be closed after that. The next tick looks for the new one."""
        if self._watched is not None:
            self.loop.remove_reader(self._watched.fileno())
            self._watched = None

    def _tick(self) -> None:
        if self.waiting <= 0:
            self.stop()
            return
        self._schedule()
        self._watch()
        self.pace.poll()
        if self.pace.resting is not self._alarmed:
            self._change_pace()

    def _schedule(self) -> None:
        self._timer = self.loop.call_later(self.pace.interval_s, self._tick)

    def _change_pace(self) -> None:
        if not self.pace.resting:
            self.rouse()
        elif self._timer is not None:
            try:
                self.loop.add_reader(self.pace.alarm.fileno(), self.rouse)
            except NotImplementedError:
                self.pace.rouse()
                return
            self._alarmed = True
            self._timer.cancel()
            self._schedule()

    def _unwatch_alarm(self) -> None:
        if self._alarmed:
            self.loop.remove_reader(self.pace.alarm.fileno())
            self._alarmed = False

    def _watch(self) -> None:
        wake = self._duty.wake_socket()
        current = None if wake is None else wake.socket
        if current is self._watched:
            return
        self.unwatch()
        if current is not None and current.fileno() >= 0:
            try:
                self.loop.add_reader(current.fileno(), self._readable)
            except NotImplementedError:  # Windows' proactor loop
                return
            self._watched = current

    def _readable(self) -> None:
        wake = self._duty.wake_socket()
        if wake is None or wake.socket is not self._watched:
            self._watch()
            return
        # Mostly one byte has come, and asking for a second takes as long as taking the first. Where they have piled up,
        # the first look at the database finds what all of them were sent for.
        if self._piled_up:
            wake.drain()
        else:
            wake.take()
        self._piled_up = not self._duty.on_wake()


class LoopWatches:
    """The watches of all event loops that have receivers. May be called by any thread."""

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._watches: dict[asyncio.AbstractEventLoop, LoopWatch] = {}
        self._closed = False  # a loop was, since somebody asked
        self._lock = threading.Lock()

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
            self._watches.pop(loop).close_alarm()
            self._closed = True

    def let_go(self) -> None:
        """Have every loop let go of the wake-up socket, and wait for that. Not to be called on a loop."""
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            run_in(watch.loop, watch.unwatch, LET_GO_S)

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
            if not call_in(watch.loop, watch.stop):
                watch.close_alarm()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, without touching it."""
        for watch in self._watches.values():
            watch.close_alarm()


class ThreadWatch:
    """What threads do while they wait: one of them watches the wake-up socket for all, the others sleep at their gates.

    When the one that watches leaves, another takes over. No thread is started for it.
    """

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._watching = threading.Lock()  # held by the thread that watches
        self._lock = threading.Lock()
        self._sleepers: dict[Gate, None] = {}
        self.pace = Pace(duty)
        self._bell: tuple[socket.socket, socket.socket] | None = None  # rung to get at the thread that watches

    def wait(self, gate: Gate, until: float | None) -> None:
        """Wait until `gate` is opened, or the monotonic time `until`."""
        with self._lock:
            self._sleepers[gate] = None
        try:
            while not gate.opened:
                if self._watching.acquire(blocking=False):
                    try:
                        self._watch(gate, until)
                    finally:
                        self._watching.release()
                    return
                if not gate.sleep(until):
                    return
        finally:
            with self._lock:
                del self._sleepers[gate]
                successor = next(iter(self._sleepers), None)
            if successor is not None:
                successor.nudge()

    def _watch(self, gate: Gate, until: float | None) -> None:
        bell = self._open_bell()
        self.pace.rouse()
        tick_at = time.monotonic() + self.pace.interval_s
        gate.poke = self.poke
        try:
            while not gate.opened:
                now = time.monotonic()
                tick_at = min(tick_at, now + self.pace.interval_s)
                if now >= tick_at:
                    self.pace.poll()
                    tick_at = now + self.pace.interval_s
                elif until is not None and now >= until:
                    return
                elif self._select(bell, min(tick_at, tick_at if until is None else until) - now):
                    self._duty.on_wake()
        finally:
            gate.poke = None

    def _select(self, bell: socket.socket, timeout_s: float) -> bool:
        """Sleep until something happens, at most `timeout_s`; return whether this process was woken."""
        wake = self._duty.wake_socket()
        with _Selector() as selector:
            try:
                selector.register(bell, selectors.EVENT_READ)
                if wake is not None:
                    selector.register(wake.socket, selectors.EVENT_READ)
                if self.pace.resting:
                    selector.register(self.pace.alarm, selectors.EVENT_READ)
            except (ValueError, OSError):  # closed meanwhile
                time.sleep(min(timeout_s, LET_GO_S / 100))
                return False
            ready = [key.fileobj for key, _ in selector.select(timeout_s)]
        if bell in ready:
            _drain(bell)
        if self.pace.alarm in ready:
            self.pace.rouse()
        if wake is not None and wake.socket in ready:
            wake.drain()
            return True
        return False

    def rouse(self) -> None:
        """Poll at every interval until all is quiet again."""
        self.pace.rouse()
        self.poke()

    def poke(self) -> None:
        """Have the thread that watches look around. May be called in a signal handler."""
        if self._bell is not None:
            try:
                self._bell[1].send(b"\0")
            except OSError:  # rung often enough, or closed
                pass

    def _open_bell(self) -> socket.socket:
        with self._lock:
            if self._bell is None:
                self._bell = socket.socketpair()
                for end in self._bell:
                    end.setblocking(False)
            return self._bell[0]

    def close(self) -> None:
        """Close what was opened, when nobody waits any more, or in a forked child."""
        with self._lock:
            bell, self._bell = self._bell, None
            self.pace.alarm.close()
        for end in bell or ():
            end.close()


def _drain(bell: socket.socket) -> None:
    try:
        while bell.recv(64):
            pass
    except OSError:  # empty
        pass
