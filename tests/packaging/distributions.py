"""What has to be in the wheel and in the source distribution. For `noxfile.py`: the standard library only."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def faults(wheel: Path, source: Path) -> list[str]:
    """What is missing from the wheel or the source distribution, or has no place there."""
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "channels_sqlite").rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    found = [f"the wheel lacks {name}" for name in sorted(wanted - names)]
    extra = {name.split("/", 1)[0] for name in names} - {"channels_sqlite"}
    found += [f"the wheel holds {name}" for name in sorted(extra) if not name.endswith(".dist-info")]
    with tarfile.open(source) as bundle:
        packed = {name.partition("/")[2] for name in bundle.getnames()}
    wanted |= {
        "pyproject.toml",
        "LICENSE",
        "noxfile.py",
        "tests/conftest.py",
        "mkdocs.yml",
        "docs/index.md",
        "SECURITY.md",
    }
    return [*found, *(f"the source distribution lacks {name}" for name in sorted(wanted - packed))]
