"""Which file system a path lies on (Linux): SQLite needs a local one (https://www.sqlite.org/howtocorrupt.html)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mount", "mount_of", "network_mount"]

MOUNTS = "/proc/self/mountinfo"

# Types whose files another machine, or the host of a virtual one, can change: locks and shared memory do not reach it.
NETWORK_TYPES = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "drvfs",
        "fuse.ceph",
        "fuse.davfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.grpcfuse",
        "fuse.juicefs",
        "fuse.osxfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "fuse.vmhgfs-fuse",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "prl_fs",
        "smb3",
        "smbfs",
        "vboxsf",
        "virtiofs",
    }
)


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted, and its type as the kernel calls it."""

    point: str
    type: str


def network_mount(path: str) -> Mount | None:
    """Return the mount that `path` lies on when it is one of a network file system, else None; None where unknown."""
    try:
        mounts = Path(MOUNTS).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # another system, or no /proc
        return None
    mount = mount_of(os.path.realpath(path), mounts)
    return mount if mount is not None and mount.type in NETWORK_TYPES else None


def mount_of(path: str, mounts: str) -> Mount | None:
    """Return the mount that an absolute `path` lies on, given the text of mountinfo (proc_pid_mountinfo(5))."""
    found: Mount | None = None
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(), right.split()
        if len(fields) < 5 or not rest:
            continue
        point = _unescape(fields[4])
        # Of two on the same point the later one hides the other.
        if _lies_in(path, point) and (found is None or len(point) >= len(found.point)):
            found = Mount(point, rest[0])
    return found


def _lies_in(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
