"""Files that users share: what lies beside a database takes its mode, its group and, where root makes it, its owner.

So whoever may open the database may open them, whatever the umask of who came first. SQLite does the same for its
-wal and -shm files (`findCreateFileMode` and `robustFchown` in os_unix.c), but gives them the group only as root.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Rights",
    "describe",
    "draft_of",
    "has_its_name",
    "is_draft",
    "make_file",
    "remedy_for_side_file",
    "share_file",
    "share_folder",
    "share_socket",
    "share_wal",
    "tell_unusable",
    "user_name",
]

logger = logging.getLogger(__name__)

OWNERS_BITS = 0o600
DRAFT = ".new.lock"  # like other lock files, one that nobody holds is swept away
# What file systems without hard links answer, or a system that lets nobody link to a file that was given away.
NO_LINKS = (errno.EPERM, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP)
PASSING = (errno.ENOENT, errno.ENOTDIR, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EINTR)

_told: set[str] = set()  # paths


@dataclass(frozen=True)
class Rights:
    """What the database file has; `mode` has no more than the bits for reading and writing."""

    mode: int
    uid: int
    gid: int

    @classmethod
    def of(cls, database_path: str) -> Rights | None:
        """Return None where there is no such file, or a platform has no such rights."""
        if not database_path or not hasattr(os, "geteuid"):
            return None
        try:
            status = os.stat(database_path)
        except OSError:
            return None
        return cls(stat.S_IMODE(status.st_mode) & 0o666 | OWNERS_BITS, status.st_uid, status.st_gid)

    @property
    def folder_mode(self) -> int:
        """Whoever may read the database may enter."""
        return self.mode | (self.mode & 0o444) >> 2


def draft_of(path: str, tag: str = "") -> str:
    """Return where a file is made before it gets its name."""
    return f"{path.removesuffix('.lock')}{tag}{DRAFT}"


def is_draft(path: str) -> bool:
    """Whether a file is about to get its name, and its rights; or its maker was killed there."""
    return path.endswith(DRAFT)


def has_its_name(draft: str) -> bool:
    """Whether a draft has got its name, and its maker was killed before it could take this one away."""
    try:
        return os.lstat(draft).st_nlink > 1
    except OSError:
        return False


def make_file(path: str, flags: int, rights: Rights | None) -> int:
    """Make a file that is shared from the moment in which it is there, and return its descriptor, open with `flags`.

    Others never find one that only its maker may open, which would stay so were the maker killed before it shared it.
    Raises FileExistsError where somebody was quicker, OSError where it cannot be made.
    """
    if rights is None:
        return _make_and_share(path, flags, None)
    while True:
        draft = draft_of(path, f"-{secrets.token_hex(4)}")
        fd = _make_and_share(draft, flags, rights)
        try:
            os.link(draft, path, follow_symlinks=False)
        except FileNotFoundError:  # a sweep has removed the draft
            os.close(fd)
        except OSError as error:
            os.close(fd)
            if error.errno not in NO_LINKS:
                raise
            return _make_and_share(path, flags, rights)
        else:
            return fd
        finally:
            with suppress(OSError):
                Path(draft).unlink()


def _make_and_share(path: str, flags: int, rights: Rights | None) -> int:
    fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
    if rights is not None:
        share_file(fd, rights)
    return fd


def share_file(fd: int, rights: Rights) -> None:
    """Share an open file, if it is this user's own. Others may put links into the folder: those are left alone."""
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        _share(fd, status, rights, rights.mode)


def share_folder(folder: Path, rights: Rights) -> None:
    """Share a folder, if it is this user's own and no link."""
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or not _differs(status, rights, rights.folder_mode):
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _share(fd, os.fstat(fd), rights, rights.folder_mode)
    finally:
        os.close(fd)


def share_socket(path: str, rights: Rights) -> None:
    """Share a socket that this process has bound."""
    status = os.lstat(path)
    if stat.S_ISSOCK(status.st_mode):
        _share(path, status, rights, rights.mode)


def share_wal(database_path: str) -> None:
    """Give SQLite's -wal and -shm files the group of the database. They are not opened, for that would drop locks."""
    rights = Rights.of(database_path)
    if rights is None:
        return
    for path in (f"{database_path}-wal", f"{database_path}-shm"):
        try:
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_gid != rights.gid:
                os.chown(path, -1, rights.gid, follow_symlinks=False)
        except OSError as error:  # no such file; or this user is in another group, and needs none
            logger.debug("the group of %s stays as it is: %s", path, error)


def _differs(status: os.stat_result, rights: Rights, mode: int) -> bool:
    """Whether a file is this user's own and has not all that the database has."""
    mine = status.st_uid == os.geteuid()
    is_roots = os.geteuid() == 0 and rights.uid != 0
    return mine and (is_roots or status.st_gid != rights.gid or status.st_mode & 0o777 != mode)


def _share(target: int | str, status: os.stat_result, rights: Rights, mode: int) -> None:
    if not _differs(status, rights, mode):
        return
    uid = rights.uid if os.geteuid() == 0 else -1
    try:
        if isinstance(target, int):
            os.fchown(target, uid, rights.gid)
        else:
            os.chown(target, uid, rights.gid, follow_symlinks=False)
    except OSError as error:  # this user is not in that group, and so was let in as one of all
        logger.debug("the group of %s stays as it is: %s", target, error)
    mode |= status.st_mode & 0o7000
    try:
        if isinstance(target, int):
            os.fchmod(target, mode)
        else:
            Path(target).chmod(mode)
    except OSError as error:
        logger.debug("the mode of %s stays as it is: %s", target, error)


def tell_unusable(path: str, error: OSError, consequence: str) -> None:
    """Say once a process that a file which is shared cannot be used. What passes is not worth a line."""
    if error.errno in PASSING or path in _told:
        return
    _told.add(path)
    logger.warning(
        "%s cannot be used by this process's user %s (%s), so that %s; %s",
        describe(path),
        user_name(),
        error.strerror or error,
        consequence,
        remedy_for_side_file(path),
    )


def remedy_for_side_file(path: str) -> str:
    """Return what to do about a side file that this user cannot use."""
    return (
        f"let every user of the database read it, with the database's owner, group and mode (chown --reference and "
        f"chmod --reference), or stop all processes that use the database and remove {path!r}"
    )


def describe(path: str) -> str:
    """Return a file with its owner, its group and its mode, for messages."""
    try:
        status = os.lstat(path)
    except OSError as error:
        return f"{path!r} ({error.strerror})"
    return f"{path!r} (owner {user_name(status.st_uid)}, mode {stat.S_IMODE(status.st_mode):04o})"


def user_name(uid: int | None = None) -> str:
    """Return the name of a user, by default of this process's, or the number where it has none."""
    if uid is None:
        if not hasattr(os, "geteuid"):
            return os.environ.get("USERNAME", "user")
        uid = os.geteuid()
    try:
        import pwd

        return repr(pwd.getpwuid(uid).pw_name)
    except (ImportError, KeyError, OSError):  # no such user in this container, or no descriptor left to look
        return str(uid)
