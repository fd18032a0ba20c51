"""What `noxfile.py` finds on a machine, and what it says of what is missing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import machine
from tests.support.machine import MissingProgramsError, find_interpreters, install_programs, last_line

# A uv that knows what its environment says, so that each test says what the machine has.
LISTING = '#!/bin/sh\nprintf %s "$LISTED"\n'


@pytest.fixture
def uv(tmp_path: Path) -> str:
    program = tmp_path / "uv"
    program.write_text(LISTING)
    program.chmod(0o755)
    return str(program)


def listed(version: str, path: str, implementation: str = "cpython", variant: str = "default") -> dict[str, object]:
    major, minor, _ = version.split(".")
    parts = {"major": int(major), "minor": int(minor)}
    return {"version_parts": parts, "path": path, "implementation": implementation, "variant": variant}


def test_the_first_that_works_of_each_supported_version_is_taken(uv: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, gone = sys.executable, "/nowhere/python"
    monkeypatch.setattr(machine, "works", lambda python: python != gone)
    entries = [
        listed("3.15.0", here),
        listed("3.13.2", here, variant="freethreaded"),
        listed("3.13.2", gone),
        listed("3.13.1", f"{here}-second"),
        listed("3.13.0", here),
        listed("3.11.9", here, implementation="pypy"),
        listed("3.10.4", here),
        listed("3.9.1", here),
    ]
    monkeypatch.setenv("LISTED", json.dumps(entries))
    assert list(find_interpreters(uv).items()) == [("3.10", here), ("3.13", f"{here}-second")]


def test_interpreters_of_pyenv_are_found_though_not_active(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    folder = tmp_path / "versions" / "3.12.1" / "bin"
    folder.mkdir(parents=True)
    assert list(machine.pyenv_folders()) == [folder]


def test_what_does_not_start_does_not_work() -> None:
    assert machine.works(sys.executable)
    assert not machine.works(shutil.which("false") or "false")


def test_who_may_not_install_programs_is_told_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "is_root", lambda: False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingProgramsError, match="apt-get install chromium redis-server"):
        install_programs()


def test_nothing_is_installed_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/programs/{name}")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("a program was started"))
    install_programs()


def test_the_last_line_says_what_went_wrong() -> None:
    assert last_line("I: Retrieving\nE: no such suite\n\n") == "E: no such suite"
    assert last_line("") == "it said nothing"
