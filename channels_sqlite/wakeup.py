"""Wake-ups between processes, and the event loops that wait for them.

A reader binds one Unix datagram socket; after a commit the writer sends it one byte. The byte carries nothing: losing,
forging or doubling it does no harm, because whoever wakes up asks the database, and asks it every `polling_interval`
anyway. Where there are no such sockets (Windows) polling alone delivers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from channels_sqlite.loops import call_in, run_in
from channels_sqlite.presence import MeetingPlace
from channels_sqlite.store import Store

__all__ = ["LoopWatch", "LoopWatches", "Sender", "WakeSocket", "have_unix_datagrams"]

logger = logging.getLogger(__name__)

KNOWN_PATHS = 1000
LET_GO_S = 1.0
LONGEST_SOCKET_PATH_BYTES = 100  # sun_path holds 104 on macOS and 108 on Linux, with a zero at its end


def have_unix_datagrams() -> bool:
    """Whether this platform has Unix datagram sockets."""
    return hasattr(socket, "AF_UNIX")


class WakeSocket:
    """Where a reader is woken: bound under the client's name, in the meeting place if its path is short enough."""

    def __init__(self, place: MeetingPlace, client: str) -> None:
        self.address = f"{client}.sock"
        self._path = place.path(self.address)
        if len(os.fsencode(self._path)) > LONGEST_SOCKET_PATH_BYTES:
            self._path = self.address = MeetingPlace("").path(self.address)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        try:
            self.socket.bind(self._path)
            Path(self._path).chmod(0o666)  # anyone who may enter the folder may wake; see the module header
        except OSError:
            self.socket.close()
            raise

    def drain(self) -> None:
        """Take all bytes that have come; each asked for the same."""
        try:
            while self.socket.recv(16):
                pass
        except OSError:  # empty, or closed while this loop was told
            pass

    def missing(self) -> bool:
        """Whether something removed the socket's name, so that nobody can wake it."""
        return not os.path.exists(self._path)

    def abandon(self) -> None:
        """Close it and leave its name alone, which in a forked child is the parent's."""
        self.socket.close()

    def close(self) -> None:
        """Close it and remove its name."""
        self.socket.close()
        Path(self._path).unlink(missing_ok=True)


class Sender:
    """Sends the bytes. May be called by any thread, and never blocks."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}  # of the clients that were woken lately
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def locate(self, clients: set[str], store: Store, place: MeetingPlace) -> None:
        """Look up in the database where those clients are of whom that is not known yet."""
        for client in clients:
            if client not in self._paths and (process := store.process(client)) is not None and process.address:
                if len(self._paths) >= KNOWN_PATHS:
                    self._paths.clear()
                self._paths[client] = place.path(process.address)

    def forget(self) -> None:
        """Look all clients up again: the database is another one."""
        self._paths.clear()

    def wake(self, clients: set[str]) -> None:
        """Wake those clients whose place is known; polling delivers to the others."""
        for client in clients:
            path = self._paths.get(client)
            if path is not None and not self.send(path):
                self._paths.pop(client, None)

    def send(self, path: str) -> bool:
        """Wake the reader at `path`; return False when the kernel says that nobody is there."""
        try:
            self._socket.sendto(b"\0", path)
        except OSError as error:
            # A full buffer has wake-ups enough, and whatever else it is, polling delivers.
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
        return True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class LoopWatch:
    """What one event loop does for its waiting receivers: it watches the wake-up socket, and polls.

    It starts with the first receiver of the loop, and ends at the first tick without any, so that receivers which come
    and go cost nothing here. All of it runs on that loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval_s: float,
        *,
        wake_socket: Callable[[], WakeSocket | None],
        on_wake: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.waiting = 0  # receivers of this loop; guarded by the inbox's lock
        self._interval_s = interval_s
        self._wake_socket = wake_socket
        self._on_wake = on_wake
        self._on_tick = on_tick
        self._watched: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def active(self) -> bool:
        """Whether the loop watches, so that a message committed from now on wakes it."""
        return self._timer is not None

    def start(self) -> None:
        """Begin to watch; does nothing when it does."""
        if self._timer is None:
            self._timer = self.loop.call_later(self._interval_s, self._tick)
            self._watch()

    def stop(self) -> None:
        """End watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.unwatch()

    def unwatch(self) -> None:
        """Let go of the wake-up socket, which may be closed after that. The next tick looks for the new one."""
        if self._watched is not None:
            self.loop.remove_reader(self._watched.fileno())
            self._watched = None

    def _tick(self) -> None:
        if self.waiting <= 0:
            self.stop()
            return
        self._timer = self.loop.call_later(self._interval_s, self._tick)
        self._watch()
        self._on_tick()

    def _watch(self) -> None:
        wake = self._wake_socket()
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
        wake = self._wake_socket()
        if wake is None or wake.socket is not self._watched:
            self._watch()
            return
        wake.drain()
        self._on_wake()


class LoopWatches:
    """The watches of all event loops that have receivers. May be called by any thread."""

    def __init__(
        self,
        interval_s: float,
        *,
        wake_socket: Callable[[], WakeSocket | None],
        on_wake: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._interval_s = interval_s
        self._wake_socket = wake_socket
        self._on_wake = on_wake
        self._on_tick = on_tick
        self._watches: dict[asyncio.AbstractEventLoop, LoopWatch] = {}
        self._lock = threading.Lock()

    def of(self, loop: asyncio.AbstractEventLoop) -> LoopWatch:
        """Return the watch of `loop`, which runs in this thread."""
        watch = self._watches.get(loop)
        if watch is None:
            watch = LoopWatch(
                loop, self._interval_s, wake_socket=self._wake_socket, on_wake=self._on_wake, on_tick=self._on_tick
            )
            self.forget_closed()
            with self._lock:
                self._watches[loop] = watch
        return watch

    def forget_closed(self) -> None:
        """Keep nothing of loops that are closed."""
        with self._lock:
            for loop in [loop for loop in self._watches if loop.is_closed()]:
                del self._watches[loop]

    def let_go(self) -> None:
        """Have every loop let go of the wake-up socket, and wait for that. Not to be called on a loop."""
        with self._lock:
            watches = list(self._watches.values())
        for watch in watches:
            run_in(watch.loop, watch.unwatch, LET_GO_S)

    def stop(self) -> None:
        """End watching in every loop."""
        with self._lock:
            watches = list(self._watches.values())
            self._watches.clear()
        for watch in watches:
            call_in(watch.loop, watch.stop)
