"""The environment of this example, made and entered with nothing but Python and pip.

``manage.py`` calls this before it imports Django. Where the packages are already importable (an activated
environment, ``uv run``) nothing happens. Otherwise the process turns into the same command run by ``.venv``;
the ``demo`` command makes that environment first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

__all__ = ["enter_environment"]

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".venv"
ENVIRONMENT_PYTHON = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
TOOLS = HERE / ".tools"
NEEDED_MODULES = ("django", "channels", "channels_sqlite", "daphne", "PIL")
FALLBACK_REQUIREMENTS = ("--editable", str(HERE.parent), "daphne>=4.2,<5", "pillow>=11,<13", "typing-extensions>=4.12")
OLDEST_PYTHON = (3, 10)
ENTERED = "EXAMPLE_ENVIRONMENT_ENTERED"


def enter_environment(arguments: list[str]) -> None:
    """Return if this interpreter has what the example needs; otherwise run ``arguments`` with the one that has.

    ``arguments`` is ``sys.argv``. Ends the process with a message when there is no environment and the command is not
    ``demo``, or when making it failed.
    """
    if all(find_spec(module) is not None for module in NEEDED_MODULES):
        return
    if ENTERED in os.environ:
        sys.exit(f"{ENVIRONMENT} lacks packages of this example. Delete that folder and try again.")
    if arguments[1:2] == ["demo"]:
        _make_environment()
    elif not ENVIRONMENT_PYTHON.exists():
        sys.exit(
            "Django, channels_sqlite, daphne or Pillow is not installed for this Python.\n"
            "Run 'uv sync' in the example's folder first, or 'python manage.py demo', which sets up everything."
        )
    _continue_with(ENVIRONMENT_PYTHON, arguments)


def _make_environment() -> None:
    """Make or update ``.venv``: with uv, or with venv and pip where uv cannot be had."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed; this is {sys.version.split()[0]}.")
    print("Setting up the environment; the first time takes a minute.", flush=True)
    uv = _find_uv() or _install_uv()
    if uv is not None and _sync_with(uv):
        return
    print("uv did not do it; trying venv and pip.", flush=True)
    try:
        _install_with_pip()
    except subprocess.CalledProcessError as error:
        sys.exit(f"Setting up the environment failed (exit code {error.returncode}); the lines above say why.")


def _find_uv() -> Path | None:
    """Return a uv that runs, or None. A mere file on PATH may be a pyenv shim for a uv that is not there."""
    for candidate in (shutil.which("uv"), shutil.which("uv", path=str(TOOLS / "bin"))):
        if candidate is not None and _runs(candidate, "--version"):
            return Path(candidate)
    return None


def _install_uv() -> Path | None:
    """Put uv into a folder of the example's own and return it, or None if that did not work.

    ``--target`` leaves the user's Python as it is, and works where ``venv`` is missing or the system's Python is
    externally managed.
    """
    _runs(
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(TOOLS), "uv"
    )
    return _find_uv()


def _sync_with(uv: Path) -> bool:
    """Bring ``.venv`` up to date with pyproject.toml; a new one gets this Python, so that uv downloads none.

    Returns False if uv failed, after printing why: it does not know pip's settings for proxies and certificates.
    """
    python = [] if ENVIRONMENT_PYTHON.exists() else ["--python", sys.executable]
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environ["UV_PROJECT_ENVIRONMENT"] = str(ENVIRONMENT)
    return subprocess.run([str(uv), "sync", "--quiet", *python], cwd=HERE, env=environ, check=False).returncode == 0


def _install_with_pip() -> None:
    """Make ``.venv`` with the standard library's venv and pip."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    pip = [str(ENVIRONMENT_PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *FALLBACK_REQUIREMENTS], check=True)


def _runs(*command: str) -> bool:
    """Return whether a command exists and succeeds; what it prints is dropped."""
    try:
        return (
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
        )
    except OSError:
        return False


def _continue_with(python: Path, arguments: list[str]) -> None:
    """Become ``python`` running the same command; the process id stays, so signals for it reach the command."""
    environ = {**os.environ, ENTERED: "1"}
    command = [str(python), *arguments]
    if os.name == "nt":  # Windows has no real exec: the caller would get its prompt back at once.
        sys.exit(subprocess.call(command, env=environ))
    sys.stdout.flush()
    os.execve(command[0], command, environ)
