"""Building the wheel and the source distribution, and looking into them."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from typing import TYPE_CHECKING

from tests.runner.steps import CACHE, ROOT, SetUpError, announce

if TYPE_CHECKING:
    from pathlib import Path

    from tests.runner.machine import Uv

DISTRIBUTIONS = CACHE / "dist"
WHEEL_TESTS = CACHE / "wheel-tests"


def build(uv: Uv) -> Path:
    """Build both; return the wheel, which is built from the source distribution. Raises SetUpError."""
    shutil.rmtree(DISTRIBUTIONS, ignore_errors=True)
    announce("Building the wheel and the source distribution")
    ok, output = uv("build", "--no-python-downloads", "--out-dir", DISTRIBUTIONS, deadline_s=600)
    wheels = list(DISTRIBUTIONS.glob("*.whl"))
    if not ok or len(wheels) != 1:
        raise SetUpError(f"the wheel could not be built:\n{output}")
    return wheels[0]


def faults(wheel: Path) -> list[str]:
    """What is missing from the wheel or the source distribution, or has no place there."""
    package = ROOT / "channels_sqlite"
    wanted = {
        str(path.relative_to(ROOT).as_posix())
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    found = [f"the wheel lacks {name}" for name in sorted(wanted - names)]
    if "channels_sqlite/py.typed" not in names:
        found.append("the wheel lacks channels_sqlite/py.typed")
    if not any(name.startswith("channels_sqlite/migrations/0001") for name in names):
        found.append("the wheel lacks the migrations")
    extra = {name.split("/", 1)[0] for name in names} - {"channels_sqlite"}
    found += [f"the wheel holds {name}" for name in sorted(extra) if not name.endswith(".dist-info")]
    sources = list(DISTRIBUTIONS.glob("*.tar.gz"))
    if len(sources) != 1:
        return [*found, "there is no source distribution"]
    with tarfile.open(sources[0]) as bundle:
        packed = {name.partition("/")[2] for name in bundle.getnames()}
    found += [
        f"the source distribution lacks {name}"
        for name in sorted({*wanted, "pyproject.toml", "LICENSE", "tests/conftest.py"} - packed)
    ]
    return found


def copy_tests() -> Path:
    """A folder with the tests and their settings, and without the source of the package."""
    shutil.rmtree(WHEEL_TESTS, ignore_errors=True)
    shutil.copytree(ROOT / "tests", WHEEL_TESTS / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", WHEEL_TESTS)
    return WHEEL_TESTS
