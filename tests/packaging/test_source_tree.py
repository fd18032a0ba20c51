"""What the source tree promises to whoever installs, packages or copies it."""

import ast
import configparser
import importlib
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import types
from pathlib import Path

import django
import pytest

import channels_sqlite

ROOT = Path(__file__).resolve().parents[2]

TOP_LEVEL = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "channels_sqlite",
    "docs",
    "example",
    "mkdocs.yml",
    "mypy.ini",
    "noxfile.py",
    "pyproject.toml",
    "ruff.toml",
    "stubs",
    "tests",
}

# Written in pieces, so that this file does not name them itself.
MACHINE_PATHS = [
    "/" + "work/",
    "/" + "root/",
    "/" + "home/",
    "/" + "Users/",
    "/" + "tmp/",
    "site" + "-packages/",
    ".pyenv" + "/versions/",
    "pypi" + ".org",
    "registry." + "npmjs",
    "files.python" + "hosted",
]
TEXT_SUFFIXES = {".cfg", ".css", ".html", ".ini", ".js", ".json", ".md", ".py", ".pyi", ".sh", ".toml", ".txt", ".yml"}


def _files() -> list[Path]:
    """The files that are, or may be, committed: all that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


TASKS = "channels_sqlite.tasks"


def _require_old_django(package: str) -> None:
    """`channels_sqlite.tasks` alone, and with an old Django alone, cannot be imported."""
    assert (package, django.VERSION < (6, 0)) == (TASKS, True)


def _modules() -> list[types.ModuleType]:
    """All modules of the package whose names are public."""
    found = [channels_sqlite]
    for info in pkgutil.walk_packages(channels_sqlite.__path__, "channels_sqlite.", onerror=_require_old_django):
        parts = info.name.split(".")
        if info.name == TASKS and django.VERSION < (6, 0):
            continue
        if not any(part.startswith("_") for part in parts) and "migrations" not in parts:
            found.append(importlib.import_module(info.name))
    return found


def _own_names(module: types.ModuleType) -> set[str]:
    """The public classes, functions and constants that a module defines itself."""
    tree = ast.parse(inspect.getsource(module))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("module", _modules(), ids=lambda module: module.__name__)
def test_modules_say_what_is_public(module: types.ModuleType) -> None:
    if hasattr(module, "__path__") and not hasattr(module, "__all__"):
        assert _own_names(module) == set(), "a folder without a face of its own"
        return
    exported = module.__all__
    assert len(exported) == len(set(exported)), "a name is listed twice"
    assert [name for name in exported if not hasattr(module, name)] == []
    # What a module defines may stay internal, but what it exports is its own, save for a folder's face.
    if not hasattr(module, "__path__"):
        assert set(exported) <= _own_names(module)


def test_the_package_needs_no_settings_to_be_imported() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import channels_sqlite"
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-I", "-c", code]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr


def test_py_typed_marks_the_package_as_typed() -> None:
    assert (ROOT / "channels_sqlite" / "py.typed").is_file()


def test_version_is_the_same_everywhere() -> None:
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert channels_sqlite.__version__ == declared[1]


def test_top_level_holds_what_it_should_and_nothing_else() -> None:
    present = {path.relative_to(ROOT).parts[0] for path in _files()}
    assert present == TOP_LEVEL


def test_there_are_no_lock_files() -> None:
    names = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "pylock.toml", "package-lock.json", "yarn.lock"}
    assert [str(path) for path in _files() if path.name in names] == []


def test_no_file_mentions_a_machine() -> None:
    found = []
    for path in _files():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix in TEXT_SUFFIXES or name.startswith(".ci/"):
            text = path.read_text(encoding="utf-8")
            found += [f"{name} mentions {mention}" for mention in MACHINE_PATHS if mention in text]
    assert found == []


def test_both_mypy_configurations_have_the_same_flags() -> None:
    flags = []
    for file in ("mypy.ini", "tests/typing/example.ini"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(ROOT / file)
        own = {"files", "mypy_path", "exclude"}
        flags.append({key: value for key, value in parser["mypy"].items() if key not in own})
    assert flags[0] == flags[1]
