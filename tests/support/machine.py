"""What the machine that tests has: Python interpreters and programs. For `noxfile.py`: the standard library only."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORTED = ("3.10", "3.11", "3.12", "3.13", "3.14")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
APT_DEADLINE_S = 1800


class MissingProgramsError(Exception):
    """The tests need programs that are not here; the text says which, and how to get them."""


# Interpreters


def find_interpreters(uv: str = "uv") -> dict[str, str]:
    """The path of a working CPython by its version, "3.10", for each supported one of this machine, lowest first.

    It is the newest patch release of those that uv finds, and of pyenv's, active or not.
    """
    folders = [f"{sys.base_prefix}/bin", os.environ.get("PATH", ""), *map(str, pyenv_folders())]
    command = [uv, "python", "list", "--only-installed", "--output-format", "json"]
    path = {"PATH": os.pathsep.join(folders)}
    listed = subprocess.run(command, env={**os.environ, **path}, stdout=subprocess.PIPE, timeout=120, check=True)
    found: dict[str, str] = {}
    for entry in json.loads(listed.stdout):
        version = "{major}.{minor}".format(**entry["version_parts"])
        usual = entry["implementation"] == "cpython" and entry["variant"] == "default"
        if usual and version in SUPPORTED and version not in found and works(entry["path"]):
            found[version] = entry["path"]
    return {version: found[version] for version in SUPPORTED if version in found}


def pyenv_folders() -> Iterator[Path]:
    """Where the interpreters of pyenv are."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return root.glob("versions/3.*/bin")


def works(python: str) -> bool:
    """Whether an interpreter starts, with the modules that it may have been built without."""
    command = [python, "-I", "-c", "import sqlite3, ssl"]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


# Programs


def install_programs() -> None:
    """Make sure of Chromium and redis-server: as root on Debian they are installed.

    Raises MissingProgramsError.
    """
    missing = [] if any(map(shutil.which, BROWSERS)) else ["chromium"]
    missing += [] if shutil.which("redis-server") else ["redis-server"]
    if not missing:
        return
    names = " ".join(missing)
    if not is_root() or shutil.which("apt-get") is None:
        raise MissingProgramsError(f"the tests need these programs: {names}. On Debian: apt-get install {names}")
    complaint = apt_install(*missing)
    if complaint:
        raise MissingProgramsError(f"apt-get could not install {names}: {complaint}")


def is_root() -> bool:
    """Whether this process is root's, on a system that has one."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def apt_install(*packages: str) -> str:
    """Install packages of Debian; return what went wrong, "" when nothing did."""
    subprocess.run(["apt-get", "update", "--quiet"], timeout=APT_DEADLINE_S, check=False)
    finished = subprocess.run(
        ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *packages],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=APT_DEADLINE_S,
        check=False,
    )
    return last_line(finished.stdout) if finished.returncode else ""


def last_line(output: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
