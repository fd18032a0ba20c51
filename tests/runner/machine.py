"""What this machine has: uv, Debian's packages, Python interpreters; and getting what is missing."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.runner.steps import CACHE, SetUpError, announce, call

if TYPE_CHECKING:
    from collections.abc import Iterator

SUPPORTED_MINORS = (10, 11, 12, 13, 14)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_PROBE = "import sqlite3, ssl, sys; print(*sys.version_info[:2], sys.implementation.name, sys.executable)"


@dataclass(frozen=True, order=True)
class Interpreter:
    """A Python 3 that works."""

    minor: int
    path: Path

    @property
    def version(self) -> str:
        return f"3.{self.minor}"


@dataclass(frozen=True)
class Uv:
    """A uv that works."""

    program: Path

    def __call__(self, *arguments: str | Path, deadline_s: float) -> tuple[bool, str]:
        """Run it; return whether it ended with status 0, and what it printed.

        A failure gets a second try, with the certificates of the system: for a registry that hiccups, and for networks
        with a certificate authority of their own, which pip knows and uv does not.
        """
        command = [self.program, *arguments]
        ok, output = call(command, deadline_s=deadline_s)
        if not ok:
            ok, output = call(command, deadline_s=deadline_s, variables={"UV_SYSTEM_CERTS": "true"})
        return ok, output


def find_uv() -> Uv:
    """The uv of this machine, or else one from its registry, installed into the cache folder.

    Raises SetUpError when pip cannot install it.
    """
    private = CACHE / "uv"
    for candidate in (shutil.which("uv"), private / "bin" / "uv", private / "Scripts" / "uv.exe"):
        if candidate is not None and call([candidate, "--version"], deadline_s=60)[0]:
            return Uv(Path(candidate))
    announce("Installing uv")
    # --target works without venv and without touching the system's own packages.
    pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--target", private, "uv"]
    ok, output = call(pip, deadline_s=600)
    found = next((path for path in (private / "bin" / "uv", private / "Scripts" / "uv.exe") if path.exists()), None)
    if not ok or found is None:
        raise SetUpError(f"pip could not install uv; install uv yourself and try again. pip said:\n{output}")
    return Uv(found)


def install_programs() -> None:
    """Make sure of Chromium and redis-server.

    Raises SetUpError, naming them, when they are missing and this is not root on Debian.
    """
    missing = []
    if not any(shutil.which(name) for name in BROWSERS):
        missing.append("chromium")
    if shutil.which("redis-server") is None:
        missing.append("redis-server")
    if not missing:
        return
    wanted = " ".join(missing)
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or shutil.which("apt-get") is None:
        raise SetUpError(f"the tests need these programs: {wanted}. On Debian: apt-get install {wanted}")
    announce(f"Installing {wanted}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    call(["apt-get", "update"], deadline_s=600, variables=quiet)
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    ok, output = call(command, deadline_s=1800, variables=quiet)
    if not ok:
        raise SetUpError(f"apt-get could not install {wanted}. It said:\n{output[-3000:]}")


def find_interpreters(uv: Uv) -> list[Interpreter]:
    """One interpreter for each supported version that this machine has, lowest first; raises SetUpError for none."""
    found: dict[int, Interpreter] = {}
    for candidate in _candidates(uv):
        interpreter = _probe(candidate)
        if interpreter is not None:
            found.setdefault(interpreter.minor, interpreter)
    if not found:
        raise SetUpError("no Python 3.10 to 3.14 was found")
    return sorted(found.values())


def _candidates(uv: Uv) -> Iterator[Path]:
    yield Path(sys.executable)
    for minor in SUPPORTED_MINORS:
        name = f"3.{minor}"
        on_path = shutil.which(f"python{name}")
        if on_path is not None:
            yield Path(on_path)
        ok, output = call(
            [uv.program, "python", "find", "--no-python-downloads", "--system", "--quiet", name], deadline_s=60
        )
        if ok and output.strip():
            yield Path(output.strip().splitlines()[-1])
    for versions in _pyenv_folders():
        for minor in SUPPORTED_MINORS:
            # The newest patch release first.
            for folder in sorted(versions.glob(f"3.{minor}.*"), key=_patch_number, reverse=True):
                yield folder / "bin" / "python"


def _pyenv_folders() -> Iterator[Path]:
    roots = [os.environ.get("PYENV_ROOT")]
    pyenv = shutil.which("pyenv")
    if pyenv is not None:
        ok, output = call([pyenv, "root"], deadline_s=30)
        roots.append(output.strip() if ok else None)
    roots.append(str(Path.home() / ".pyenv"))
    for root in dict.fromkeys(root for root in roots if root):
        versions = Path(root) / "versions"
        if versions.is_dir():
            yield versions


def _patch_number(folder: Path) -> int:
    last = folder.name.rpartition(".")[2]
    return int(last) if last.isdecimal() else -1


def _probe(candidate: Path) -> Interpreter | None:
    """The interpreter behind a path, or None when it does not start, is not CPython 3, or is not supported."""
    ok, output = call([candidate, "-I", "-c", _PROBE], deadline_s=30)
    words = output.split(maxsplit=3)
    if not ok or len(words) != 4:
        return None
    major, minor, implementation, path = words
    if major != "3" or int(minor) not in SUPPORTED_MINORS or implementation != "cpython":
        return None
    return Interpreter(int(minor), Path(path.strip()))
