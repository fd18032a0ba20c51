"""Runs all tests and checks, on a machine that has nothing but Python 3.10 or newer and pip: `python -m tests`.

It puts uv and nox into `.environments/` and hands its arguments to nox, whose sessions are in `noxfile.py`:

    python -m tests                                  everything
    python -m tests --list                           what there is
    python -m tests -s lint typing                   some of it
    python -m tests -s "tests(highest)" -- -k codec  what follows -- goes to pytest
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - said clearly, before anything else fails strangely
    sys.exit("python -m tests needs Python 3.10 or newer")

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".environments"
PROGRAMS = "Scripts" if os.name == "nt" else "bin"


def ran(*command: str | Path, **variables: str) -> bool:
    """Run a command; return whether it ended with status 0."""
    try:
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False).returncode == 0
    except OSError:
        return False


def find_uv() -> str | Path:
    """The uv of this machine, or else one of our own."""
    own = ENVIRONMENTS / "uv" / PROGRAMS / "uv"
    for candidate in (shutil.which("uv"), own):
        if candidate is not None and ran(candidate, "--version"):
            return candidate
    # --target works without the module venv, and without touching the system's own packages.
    if not ran(sys.executable, "-m", "pip", "install", "--quiet", "--target", ENVIRONMENTS / "uv", "uv"):
        sys.exit("pip could not install uv; install uv yourself and try again")
    return own


def main(arguments: list[str]) -> int:
    """Make the environment of nox, and run it; return its exit status."""
    uv, nox = find_uv(), ENVIRONMENTS / "nox"
    python = nox / PROGRAMS / "python"
    make = ("venv", "--quiet", "--allow-existing", "--no-python-downloads", "--python", sys.executable, nox)
    install = (uv, "pip", "install", "--quiet", "--python", python, "--group", "nox")
    # Networks with a certificate authority of their own: pip knows the system's certificates, uv has to be told.
    if not ran(uv, *make) or not (ran(*install) or ran(*install, UV_SYSTEM_CERTS="true")):
        sys.exit("nox could not be installed")
    return subprocess.call([python, "-m", "nox", *arguments], cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
