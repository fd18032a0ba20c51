"""What threads do while they wait: one of them watches the wake-up socket for all."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable

from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.concurrency.reentry import exclusive
from channels_sqlite.storage.errors import explaining_os
from channels_sqlite.waking.pace import Duty, Pace
from channels_sqlite.waking.wake_socket import WakeSocket

__all__ = ["ThreadWatch"]


CLOSED_RETRY_S = 0.01

# poll() opens no descriptor and takes any number of one; Windows has only select().
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class ThreadWatch:
    """What threads do while they wait: one of them watches the wake-up socket for all, the others sleep at their gates.

    When the one that watches leaves, another takes over. No thread is started for it.
    """

    def __init__(self, duty: Duty) -> None:
        self._duty = duty
        self._watching = threading.Lock()  # held by the thread that watches; only ever tried for
        self._lock = threading.Lock()  # guards `_sleepers` and `_bell`; nothing is waited for inside
        self._sleepers: dict[Gate, None] = {}
        self.pace = Pace(duty)
        self._bell: tuple[socket.socket, socket.socket] | None = None  # rung to get at the thread that watches

    def wait(self, gate: Gate, until: float | None) -> None:
        """Wait until `gate` is opened, or the monotonic time `until`."""
        with exclusive, self._lock:
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
            with exclusive, self._lock:
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
                    self._attempt(self.pace.poll)
                    tick_at = now + self.pace.interval_s
                elif until is not None and now >= until:
                    return
                elif self._select(bell, min(tick_at, tick_at if until is None else until) - now):
                    self._attempt(self._duty.look)
        finally:
            gate.poke = None

    def _attempt(self, look: Callable[[], object]) -> None:
        """Look for messages. What fails is told, and done again at the next tick: those who wait go on waiting."""
        try:
            with exclusive:
                look()
        except Exception as error:  # noqa: BLE001  # as above
            self._duty.failed("polling", error)

    def _select(self, bell: socket.socket, timeout_s: float) -> bool:
        """Sleep until something happens, at most `timeout_s`; return whether this process was woken."""
        wake = self._duty.wake_socket
        if wake is not None and not wake.hold():
            wake = None
        try:
            return self._select_held(bell, wake, timeout_s)
        finally:
            if wake is not None:
                wake.let_go()

    def _select_held(self, bell: socket.socket, wake: WakeSocket | None, timeout_s: float) -> bool:
        with _Selector() as selector:
            try:
                selector.register(bell, selectors.EVENT_READ)
                if wake is not None:
                    selector.register(wake.socket, selectors.EVENT_READ)
                if self.pace.resting:
                    selector.register(self.pace.alarm, selectors.EVENT_READ)
            except (ValueError, OSError):  # the layer was closed meanwhile
                time.sleep(min(timeout_s, CLOSED_RETRY_S))
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
        with exclusive, self._lock:
            if self._bell is None:
                with explaining_os("opening what a thread needs to wait for a message"):
                    self._bell = socket.socketpair()
                for end in self._bell:
                    end.setblocking(False)
            return self._bell[0]

    def close(self) -> None:
        """Close what was opened, when nobody waits any more."""
        with self._lock:
            self._close()

    def abandon(self) -> None:
        """In a forked child: close these copies."""
        self._lock = threading.Lock()
        self._close()

    def _close(self) -> None:
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
