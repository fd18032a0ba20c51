"""Waking readers after a commit: one byte to the socket of each."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterable

from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.storage.store import Store
from channels_sqlite.waking.wake_socket import address_and_path

__all__ = ["Sender"]


KNOWN_PATHS = 1000
GONE = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
CONNECTED = 100  # sockets


class Sender:
    """Sends the bytes. May be called by any thread, and never blocks.

    Each client has a socket connected to its own, so that the kernel need not look up a path for every byte. `_lock`
    guards all state and is held while a connected socket is used, so that none is closed under a sender; who finds it
    taken sends by way of a socket of its own. Nothing else is locked inside it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # see above; nothing is waited for inside, and who sends only tries for it
        self._paths: dict[str, str] = {}  # of the clients that were woken lately
        self._connected: dict[str, socket.socket] = {}  # by path
        self._closed = False

    def locate(self, clients: set[str], store: Store, place: MeetingPlace) -> None:
        """Look up in the database where those clients are of whom that is not known yet."""
        for client in clients:
            if client not in self._paths and (process := store.process(client)) is not None and process.address:
                self._note(client, place.path(process.address))

    def _note(self, client: str, path: str) -> None:
        with self._lock:
            if len(self._paths) >= KNOWN_PATHS:
                self._forget()
            self._paths[client] = path

    def forget(self) -> None:
        """Look all clients up again: the database is another one."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._paths.clear()
        self._disconnect(list(self._connected))

    def forget_gone(self) -> None:
        """Close what is connected to readers that are no more: their sockets have no name any longer."""
        with self._lock:
            gone = {path for path in {*self._paths.values(), *self._connected} if not os.path.exists(path)}
            self._disconnect(gone)
            self._paths = {client: path for client, path in self._paths.items() if path not in gone}

    def _disconnect(self, paths: Iterable[str]) -> None:
        for path in paths:
            connected = self._connected.pop(path, None)
            if connected is not None:
                connected.close()

    def strays(self, store: Store, place: MeetingPlace) -> set[str]:
        """Return the clients whose registration is gone, and whose sockets are there.

        Somebody has emptied the tables (`manage.py flush`), and they are about to register again; or they have just
        died. A look into the folder only where something is odd: someone known, or everyone, is not registered.
        """
        known = list(self._paths)
        if store.any_registered() and not (known and store.unregistered(known)):
            return set()
        found = self._sockets(place)
        strays = set(store.unregistered(list(found)))
        for client in strays:
            self._note(client, found[client])
        return strays

    def wake_everybody(self, place: MeetingPlace) -> None:
        """Wake all readers, registered or not."""
        for path in self._sockets(place).values():
            self.send(path)

    def _sockets(self, place: MeetingPlace) -> dict[str, str]:
        """Return the clients that have a socket, with its path: of those with a lock file, and those woken lately.

        A path too long for a socket may lead into another folder for temporary files than this process's.
        """
        clients = [path.stem for path in place.folder.glob("*.lock")]
        paths = {client: address_and_path(place, client, make=False)[1] for client in clients}
        with self._lock:
            paths.update(self._paths)
        return {client: path for client, path in paths.items() if os.path.exists(path)}

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
        lock = self._lock  # a signal handler may fork in here
        if not lock.acquire(blocking=False):
            return _send_once(path)
        try:
            connected = self._connected.get(path)
            if connected is not None:
                try:
                    connected.send(b"\0")
                except ConnectionError:  # nobody there; or somebody who has a new socket by that name
                    self._disconnect([path])
                except OSError:  # a full buffer has wake-ups enough, and whatever else it is, polling delivers
                    return True
                else:
                    return True
            return self._connect_and_send(path)
        finally:
            lock.release()

    def _connect_and_send(self, path: str) -> bool:
        if self._closed or len(self._connected) >= CONNECTED:
            return _send_once(path)
        try:
            new = _datagram_socket()
        except OSError:  # no descriptors left; polling delivers
            return True
        try:
            new.connect(path)
            new.send(b"\0")
        except OSError as error:
            if error.errno in GONE:
                new.close()
                return False
            if not _is_connected(new):
                new.close()
                return True
        self._connected[path] = new
        return True

    def close(self) -> None:
        """Close the sockets."""
        with self._lock:
            self._closed = True
            self._disconnect(list(self._connected))

    def abandon(self) -> None:
        """In a forked child: close these copies."""
        self._lock = threading.Lock()
        self._disconnect(list(self._connected))


def _send_once(path: str) -> bool:
    try:
        with _datagram_socket() as own:
            own.sendto(b"\0", path)
    except OSError as error:
        return error.errno not in GONE
    return True


def _is_connected(datagrams: socket.socket) -> bool:
    try:
        datagrams.getpeername()
    except OSError:
        return False
    return True


def _datagram_socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made
