"""Python 3.14 in a Debian system of its own: the suite forky, made by debootstrap, entered by chroot.

All that happens in it has mounts and process ids of its own, which the kernel ends with the first of its processes:
nothing stays mounted and nothing runs on, however this one ends. The system lies in a temporary folder and goes with
it. For `noxfile.py`: the standard library only.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support import machine
from tests.support.machine import last_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VERSION = "3.14"
SUITE = "forky"
# No debootstrap that is older than the suite knows it by name.
SCRIPT = Path("/usr/share/debootstrap/scripts/sid")
# redis-server: the conformance suite runs over Channels' Redis layer too.
CONTENT = "python3,redis-server"
# Where Debian's Python looks for what the administrator has installed.
PACKAGES = f"usr/local/lib/python{VERSION}/dist-packages"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Ends with whoever starts it, and takes along all that runs in it: the shell is the first process there, which buries
# those that lost their parents.
PRIVATE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
)
AS_CHILD = ("sh", "-c", '"$@"; exit $?', "sh")


class NotTriedError(Exception):
    """Python 3.14 cannot be had on this machine; the text says why. No failure."""


@contextmanager
def forky_system() -> Iterator[Path]:
    """The root of a Debian forky with Python 3.14, in a temporary folder; raises NotTriedError if there is none."""
    mirror = mirror_of_this_machine()
    require_programs()
    with tempfile.TemporaryDirectory(prefix="channels-sqlite-forky-", ignore_cleanup_errors=True) as folder:
        root = Path(folder) / "root"
        make = ("debootstrap", "--variant=minbase", f"--include={CONTENT}", SUITE, str(root), mirror, str(SCRIPT))
        ok, output = call(*PRIVATE, *AS_CHILD, *make, PATH=SYSTEM_PATH, **apt_proxy())
        if not ok:
            raise NotTriedError(f"debootstrap could not make a Debian {SUITE}: {last_line(output)}")
        _, version = call(*command_inside(root, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"))
        if version.strip() != VERSION:
            raise NotTriedError(f"the Python of Debian {SUITE} is another: {last_line(version)}")
        yield root


def command_inside(root: Path, *command: str, folder: str = "/", **variables: str) -> list[str]:
    """The command line that runs `command` inside, with these variables and none of the machine's."""
    given = {"PATH": SYSTEM_PATH, "HOME": "/root", "LANG": "C.UTF-8", **variables}
    settings = (f"{name}={value}" for name, value in given.items())
    return [*PRIVATE, f"--root={root}", f"--wd={folder}", "env", "-i", *settings, *AS_CHILD, *command]


# The machine


def mirror_of_this_machine() -> str:
    """The address that this machine's own apt gets Debian from; raises NotTriedError where it has none."""
    if not machine.is_root():
        raise NotTriedError("that takes root")
    release = os_release()
    if release.get("ID") != "debian" or shutil.which("apt-get") is None:
        raise NotTriedError("that takes Debian")
    releases = {release.get("VERSION_CODENAME", ""), SUITE, "stable", "testing", "unstable", "sid"} - {""}
    asked = "$(REPO_URI) $(RELEASE) $(COMPONENT)"
    ok, output = call("apt-get", "indextargets", "--format", asked, "Created-By: Packages")
    mirror = first_mirror(output, releases) if ok else None
    if mirror is None:
        raise NotTriedError(f"apt names no mirror for any of {', '.join(sorted(releases))}")
    return mirror


def first_mirror(targets: str, releases: Iterable[str]) -> str | None:
    """The first address in lines of "address release component" that has one of these releases' main part."""
    for line in targets.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] in releases and words[2] == "main":
            return words[0]
    return None


def os_release() -> dict[str, str]:
    """What this system is."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def require_programs() -> None:
    """Make sure of debootstrap and of private mounts; raises NotTriedError."""
    ok, output = call(*PRIVATE, "true")
    if not ok:
        raise NotTriedError(f"this machine gives no mounts of one's own: {last_line(output)}")
    if shutil.which("debootstrap", path=SYSTEM_PATH) is None:
        complaint = machine.apt_install("debootstrap")
        if complaint:
            raise NotTriedError(f"apt-get could not install debootstrap: {complaint}")
    if not SCRIPT.exists():
        raise NotTriedError(f"debootstrap has no script {SCRIPT.name!r}")


def apt_proxy() -> dict[str, str]:
    """The variables that tell debootstrap of the proxy that apt uses."""
    ok, output = call("apt-config", "shell", "PROXY", "Acquire::http::Proxy")
    address = output.strip().partition("=")[2].strip("'\"") if ok else ""
    return {"http_proxy": address} if address and address != "DIRECT" else {}


def call(*command: str, **variables: str) -> tuple[bool, str]:
    """Run a command; return whether it ended with status 0, and what it printed."""
    try:
        finished = subprocess.run(
            command,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=900,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    return finished.returncode == 0, finished.stdout
