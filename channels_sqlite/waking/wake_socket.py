"""Wake-ups between processes.

A reader binds one Unix datagram socket; after a commit the writer sends it one byte. The byte carries nothing: losing,
forging or doubling it does no harm, because whoever wakes up asks the database, and asks it every `polling_interval`
anyway. Where there are no such sockets (Windows) polling alone delivers.
"""

from __future__ import annotations

import logging
import os
import socket
import threading

from channels_sqlite.processes.meeting_place import MeetingPlace, remove
from channels_sqlite.processes.sharing import share_socket

__all__ = ["WakeSocket", "have_unix_datagrams"]


logger = logging.getLogger(__name__)
LONGEST_SOCKET_PATH_BYTES = 100  # sun_path holds 104 on macOS and 108 on Linux, with a zero at its end


def have_unix_datagrams() -> bool:
    """Whether this platform has Unix datagram sockets."""
    return hasattr(socket, "AF_UNIX")


class WakeSocket:
    """Where a reader is woken: bound under the client's name, in the meeting place if its path is short enough."""

    def __init__(self, place: MeetingPlace, client: str) -> None:
        """Bind it; raises OSError where that cannot be done."""
        self._client = client
        self.address, self._path = address_and_path(place, client, make=True)
        self._holding = threading.Lock()  # guards `_holders` and `_retired`; nothing is waited for inside
        self._holders = 0
        self._retired = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        try:
            remove(self._path)  # nobody else has this name: it is an own one from before
            self.socket.bind(self._path)
            if place.rights is not None:
                share_socket(self._path, place.rights)  # whoever may write may wake
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

    def is_in(self, place: MeetingPlace) -> bool:
        """Whether it is where those who meet in `place` look for it."""
        return address_and_path(place, self._client, make=False) == (self.address, self._path)

    # Closing it while somebody watches it would leave them with the number of a closed descriptor, which the next file
    # to be opened gets. So it is closed by the last to let go.

    def hold(self) -> bool:
        """Keep it open until `let_go`; return False where it is closed already."""
        with self._holding:
            if self.socket.fileno() < 0:
                return False
            self._holders += 1
        return True

    def let_go(self) -> None:
        """Undo one `hold`."""
        with self._holding:
            self._holders -= 1
            if self._retired and self._holders <= 0:
                self.socket.close()

    def close(self) -> None:
        """Remove its name, and close it: now, or when the last one who holds it lets go."""
        remove(self._path)
        with self._holding:
            self._retired = True
            if self._holders <= 0:
                self.socket.close()

    def abandon(self) -> None:
        """In a forked child: close this copy, and leave the name alone, which is the parent's."""
        self._holding = threading.Lock()
        self.socket.close()


def address_and_path(place: MeetingPlace, client: str, *, make: bool) -> tuple[str, str]:
    """Return the name by which others find the socket, and its path; `make`: make the folder if need be."""
    address = f"{client}.sock"
    path = place.path(address)
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH_BYTES:
        path = address = MeetingPlace("", make=make).path(address)
    return address, path
