"""Virtual environments in the cache folder, kept until what is in them changes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.runner.steps import CACHE, ROOT, SetUpError, announce, call

if TYPE_CHECKING:
    from tests.runner.machine import Interpreter, Uv

INSTALL_DEADLINE_S = 1200


@dataclass(frozen=True)
class Environment:
    """A virtual environment and what it is called in the summary."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.program("python")

    def program(self, name: str) -> Path:
        """The path of a program that is installed in it."""
        posix = self.folder / "bin" / name
        return posix if posix.parent.is_dir() else self.folder / "Scripts" / f"{name}.exe"

    def describe(self) -> str:
        """The versions that matter, in one line."""
        code = (
            "import platform, sqlite3, django, channels;"
            "print(f'Python {platform.python_version()}, Django {django.__version__}, '"
            "f'channels {channels.__version__}, SQLite {sqlite3.sqlite_version}')"
        )
        return call([self.python, "-c", code], deadline_s=60)[1].strip()


def make_environment(uv: Uv, name: str, interpreter: Interpreter, requirements: list[str]) -> Environment:
    """An environment with what `requirements` says: arguments of `uv pip install`.

    One that was made before for the same interpreter, requirements and pyproject.toml is used again.
    Raises SetUpError when it cannot be made.
    """
    environment = Environment(name, CACHE / name.replace(" ", "-"))
    stamp_file = environment.folder / "stamp"
    stamp = _stamp(interpreter, requirements)
    if stamp_file.exists() and stamp_file.read_text(encoding="utf-8") == stamp and environment.python.exists():
        return environment
    announce(f"Making the environment {name!r}")
    folder = environment.folder
    create: list[str | Path] = [
        "venv",
        "--quiet",
        "--clear",
        "--no-python-downloads",
        "--python",
        interpreter.path,
        folder,
    ]
    install: list[str | Path] = ["pip", "install", "--quiet", "--python", folder, *requirements]
    for arguments in (create, install):
        ok, output = uv(*arguments, deadline_s=INSTALL_DEADLINE_S)
        if not ok:
            raise SetUpError(f"the environment {name!r} could not be made:\n{output}")
    stamp_file.write_text(stamp, encoding="utf-8")
    return environment


def _stamp(interpreter: Interpreter, requirements: list[str]) -> str:
    digest = hashlib.sha256()
    digest.update((ROOT / "pyproject.toml").read_bytes())
    digest.update(repr((str(interpreter.path), requirements)).encode())
    for requirement in requirements:
        file = ROOT / requirement.partition("[")[0]
        if file.suffix == ".whl":
            digest.update(file.read_bytes())
    return digest.hexdigest()
