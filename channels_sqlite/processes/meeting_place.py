"""Being alive, and proving that another process is dead.

Each process holds a `flock` on a file of its own in the folder `<database>.wake`. The kernel releases it when the
process dies, however it dies, and at no other time: a suspended process keeps it, and no clock is asked.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import tempfile
from pathlib import Path

from channels_sqlite.processes.sharing import Rights, share_folder

__all__ = ["MeetingPlace", "existing_folders", "folder_beside", "own_folder", "remove", "why_unusable"]


logger = logging.getLogger(__name__)


class MeetingPlace:
    """The folder where the processes of one database keep their lock files and wake-up sockets.

    It lies next to the database, so that whoever can open the one can open the other, also from a container that
    mounts that folder under another name. Where it cannot be made, a folder of the user's below the system's
    temporary one serves.
    """

    def __init__(self, database_path: str, *, make: bool = True) -> None:
        """Make sure of the folder; `make=False` only looks, and makes nothing.

        Raises OSError where there is none to be had.
        """
        self._database_path = database_path
        self.rights: Rights | None = None
        self.folder = own_place(database_path)
        if make:
            self.make_sure()
        elif database_path and folder_beside(database_path).is_dir():
            self.folder = folder_beside(database_path)

    def make_sure(self) -> None:
        """Make the folder anew where it is gone; move to the other one where it cannot be used, and back.

        Raises OSError where there is none to be had.
        """
        self.rights = Rights.of(self._database_path) or self.rights  # the file may be about to be replaced
        self.folder = _make_folder(self._database_path, self.rights)

    def path(self, address: str) -> str:
        """Return the path for an address: a name in this folder, or an absolute path."""
        return str(self.folder / address)

    def folders(self) -> list[Path]:
        """Return this folder, and the other one if it is there: some may not have moved yet."""
        return [self.folder, *(other for other in existing_folders(self._database_path) if other != self.folder)]


def _make_folder(database_path: str, rights: Rights | None) -> Path:
    if database_path:
        folder = folder_beside(database_path)
        try:
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
            if rights is not None:
                share_folder(folder, rights)
            if why_unusable(folder) is None:
                return folder
        except OSError as error:
            logger.debug("no folder for wake-ups next to the database: %s", error)
    return _fallback_folder(database_path)


def existing_folders(database_path: str) -> list[Path]:
    """Return the folders where processes of a database may keep their files; nothing is made."""
    beside = [folder_beside(database_path)] if database_path else []
    return [folder for folder in (*beside, own_place(database_path)) if folder.is_dir()]


def folder_beside(database_path: str) -> Path:
    """Return the folder next to the database, whether it exists or not."""
    return Path(f"{database_path}.wake")


def own_folder() -> Path:
    """Return the folder of this user's that serves where one next to the database cannot; it need not exist."""
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
    return Path(tempfile.gettempdir()) / f"channels_sqlite-{user}"


def why_unusable(folder: Path) -> str | None:
    """Return why an existing folder cannot hold lock files and sockets of this process, or None when it can."""
    if not folder.is_dir():
        return "it is no folder"
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        return "this process's user may not write to it"
    return None


def _fallback_folder(database_path: str) -> Path:
    own = own_folder()
    own.mkdir(mode=0o700, exist_ok=True)
    if not _is_mine(own):
        raise PermissionError(errno.EACCES, "the folder for wake-ups belongs to another user", str(own))
    folder = own_place(database_path)
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _is_mine(folder: Path) -> bool:
    return not hasattr(os, "geteuid") or folder.stat().st_uid == os.geteuid()


def remove(path: str) -> None:
    """Remove a file. What cannot be removed stays: another user's, or in a folder that is none any more."""
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        logger.debug("left behind: %s", error)


def own_place(database_path: str) -> Path:
    return own_folder() / hashlib.sha256(os.path.realpath(database_path).encode()).hexdigest()[:16]
