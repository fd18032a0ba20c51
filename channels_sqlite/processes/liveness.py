"""Proving that another process is dead, and removing what it left."""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from channels_sqlite.processes import flocks
from channels_sqlite.processes.lock_files import ELECTIONS, is_open_as
from channels_sqlite.processes.meeting_place import MeetingPlace, own_place, remove
from channels_sqlite.processes.sharing import has_its_name, is_draft, tell_unusable

__all__ = ["Peer", "is_dead", "lives", "machine_id", "remove_orphans", "remove_traces"]

logger = logging.getLogger(__name__)


class Peer(Protocol):
    """Another process, as it was registered; see `models.Process`."""

    @property
    def client(self) -> str:
        """Its part of channel names."""

    @property
    def pid(self) -> int:
        """In its own namespace of pids."""

    @property
    def machine(self) -> str:
        """Where that pid means something."""

    @property
    def address(self) -> str:
        """Of its wake-up socket, in the folder where the processes meet, or absolute; "" for none."""


def _files_in(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # gone, or another user's
        return []


def is_dead(process: Peer, place: MeetingPlace) -> bool:
    """Whether the kernel shows that a registered process is no more. Its lock file stays, to show it again."""
    if not flocks.have_flock():
        return False
    held = _held(process.client, place)
    return _is_gone(process) if held is None else not held


def lives(client: str, place: MeetingPlace) -> bool:
    """Whether somebody holds the lock of a client, registered or not, or may do so for all that can be seen."""
    return not flocks.have_flock() or bool(_held(client, place))


def _held(client: str, place: MeetingPlace) -> bool | None:
    """Whether a client's lock is held, as far as that can be told; None where it has no lock file."""
    looks = [_is_held(str(folder / f"{client}.lock")) for folder in place.folders()]
    if True in looks:
        return True
    return False if False in looks else None


def _is_held(path: str) -> bool | None:
    while True:
        try:
            fd = flocks.take(path, create=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            tell_unusable(path, error, "the death of the process that made it cannot be noticed")
            return True
        if fd is None:
            return True
        is_the_one = is_open_as(fd, path)
        flocks.give(fd)
        if is_the_one:
            return False
        # It was removed meanwhile, and its owner may hold a new one.


def remove_traces(process: Peer, place: MeetingPlace) -> None:
    """Remove what a dead process left in the folder, once nothing is left in the database."""
    for folder in place.folders():
        address = folder / process.address
        if process.address and (address.parent == folder or _is_socket(address)):
            remove(str(address))
        remove(str(folder / f"{process.client}.lock"))


def _is_gone(process: Peer) -> bool:
    """Whether a process without a lock file is gone: the machine was restarted, or there is no such process."""
    here_boot, _, here_namespace = machine_id().partition("/")
    boot, _, namespace = process.machine.partition("/")
    if boot != here_boot:
        return bool(boot and here_boot)
    if namespace != here_namespace:
        return False
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def remove_orphans(place: MeetingPlace, is_registered: Callable[[str], bool]) -> None:
    """Remove lock files and sockets of clients that are not registered and hold no lock, such as a crash left.

    `is_registered` is asked once the client's lock shows that it is dead, so that it cannot register after that.
    """
    if not flocks.have_flock():
        return
    for folder in place.folders():
        paths = _files_in(folder)
        locks = {path.stem for path in paths if path.suffix == ".lock"}
        for path in paths:
            if path.suffix == ".lock" and path.stem not in ELECTIONS:
                _remove_orphan(path, is_registered)
            elif path.suffix == ".sock" and path.stem not in locks and not is_registered(path.stem):
                _remove_dead_socket(str(path))
    for path in _files_in(own_place("")):  # of databases whose paths are too long for sockets
        if path.suffix == ".sock":
            _remove_dead_socket(str(path))


def _remove_orphan(path: Path, is_registered: Callable[[str], bool]) -> None:
    if is_draft(str(path)) and has_its_name(str(path)):  # whoever holds the lock holds it by that name
        remove(str(path))
        return
    try:
        fd = flocks.take(str(path), create=False)
    except OSError as error:
        if is_draft(str(path)):  # not shared yet; or left so, and for its maker's user to sweep
            return
        tell_unusable(str(path), error, "the death of the process that made it cannot be noticed")
        return
    if fd is None:
        return
    try:
        # A file that another sweep has removed says nothing of the one that its owner may have there now. While this
        # one is there and locked, its owner waits for it: the lock file goes last.
        if is_open_as(fd, str(path)) and not is_registered(path.stem):
            remove(str(path.with_suffix(".sock")))
            remove(str(path))
    finally:
        flocks.give(fd)


def _remove_dead_socket(path: str) -> None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(path)
    except ConnectionRefusedError:
        remove(path)
    except OSError as error:  # no socket, another user's, or no descriptor left
        logger.debug("left alone: %s", error)


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def machine_id() -> str:
    """Return what a pid needs to mean something: the boot, and on Linux the namespace of process ids."""
    return f"{_boot()}/{_pid_namespace()}"


_boots: list[str] = []  # kept, for there may be no descriptor left to read it


def _boot() -> str:
    if not _boots:
        try:
            _boots.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        except OSError:
            return ""
    return _boots[0]


def _pid_namespace() -> str:
    try:
        return str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        return ""
