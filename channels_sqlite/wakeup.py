"""Wake-ups between processes.

A reader binds one Unix datagram socket; after a commit the writer sends it one byte. The byte carries nothing: losing,
forging or doubling it does no harm, because whoever wakes up asks the database, and asks it every `polling_interval`
anyway. Where there are no such sockets (Windows) polling alone delivers.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from pathlib import Path

from channels_sqlite.presence import MeetingPlace
from channels_sqlite.store import Store

__all__ = ["Sender", "WakeSocket", "have_unix_datagrams"]

logger = logging.getLogger(__name__)

KNOWN_PATHS = 1000
CONNECTED = 100  # sockets
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

    def take(self) -> bool:
        """Take one byte; return whether there was one."""
        try:
            return bool(self.socket.recv(16))
        except OSError:  # empty, or closed while this loop was told
            return False

    def drain(self) -> bool:
        """Take all bytes that have come, each of which asked for the same; return whether there were any."""
        any_came = False
        while self.take():
            any_came = True
        return any_came

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
    """Sends the bytes. May be called by any thread, and never blocks.

    Each client has a socket connected to its own, so that the kernel need not look up a path for every byte. None is
    closed while others may use it: the socket of one that is gone is connected to the next, and a byte that goes astray
    does no harm.
    """

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}  # of the clients that were woken lately
        self._connected: dict[str, socket.socket] = {}  # by path
        self._spare: list[socket.socket] = []
        self._unconnected = _datagram_socket()  # for those beyond the number of connected ones

    def locate(self, clients: set[str], store: Store, place: MeetingPlace) -> None:
        """Look up in the database where those clients are of whom that is not known yet."""
        for client in clients:
            if client not in self._paths and (process := store.process(client)) is not None and process.address:
                if len(self._paths) >= KNOWN_PATHS:
                    self.forget()
                self._paths[client] = place.path(process.address)

    def forget(self) -> None:
        """Look all clients up again: the database is another one."""
        self._paths.clear()
        for path in list(self._connected):
            self._disconnect(path)

    def wake(self, clients: set[str]) -> int:
        """Wake those clients whose place is known, and return how many; polling delivers to the others."""
        woken = 0
        for client in clients:
            path = self._paths.get(client)
            if path is None:
                continue
            if self.send(path):
                woken += 1
            else:
                self._paths.pop(client, None)
        return woken

    def send(self, path: str) -> bool:
        """Wake the reader at `path`; return False when the kernel says that nobody is there."""
        connected = self._connected.get(path)
        if connected is not None:
            try:
                connected.send(b"\0")
            except ConnectionError:  # nobody there; or somebody who has a new socket by that name
                self._disconnect(path)
            except OSError:  # a full buffer has wake-ups enough, and whatever else it is, polling delivers
                return True
            else:
                return True
        try:
            self._connect(path)
            self._unconnected.sendto(b"\0", path)
        except OSError as error:
            return error.errno not in (errno.ECONNREFUSED, errno.ENOENT)
        return True

    def _connect(self, path: str) -> None:
        if self._spare:
            spare = self._spare.pop()
        elif len(self._connected) < CONNECTED:
            spare = _datagram_socket()
        else:
            return
        try:
            spare.connect(path)
        except OSError:
            self._spare.append(spare)
            raise
        self._connected[path] = spare

    def _disconnect(self, path: str) -> None:
        spare = self._connected.pop(path, None)
        if spare is not None:
            self._spare.append(spare)

    def close(self) -> None:
        """Close the sockets."""
        for each in (self._unconnected, *self._connected.values(), *self._spare):
            each.close()


def _datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made
