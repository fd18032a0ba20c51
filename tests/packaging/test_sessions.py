"""The sessions of `noxfile.py`, and what CONTRIBUTING.md says of them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nox
import pytest

from tests.packaging.pages import table
from tests.support.machine import find_interpreters

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sessions() -> list[dict[str, Any]]:
    """What nox itself finds."""
    command = [sys.executable, "-m", "nox", "--list", "--json"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


def test_every_session_is_described(sessions: list[dict[str, Any]]) -> None:
    described = [row[0].strip("`") for row in table("CONTRIBUTING.md", "One command")]
    assert described == list(dict.fromkeys(session["name"] for session in sessions))


def test_the_whole_suite_runs_at_both_ends_of_the_range(sessions: list[dict[str, Any]]) -> None:
    ends = [session["session"] for session in sessions if session["name"] in {"typing", "tests"}]
    assert ends == ["typing(lowest)", "typing(highest)", "tests(lowest)", "tests(highest)"]


def test_3_14_is_always_tried(sessions: list[dict[str, Any]]) -> None:
    assert "tests-between(3.14)" in {session["session"] for session in sessions} or (
        "3.14" in find_interpreters(nox.virtualenv.UV)
    )


def test_what_is_not_in_the_core_is_there() -> None:
    [listed] = re.findall(r"^NOT_CORE = \(([^)]+)\)", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE)
    names = re.findall(r'"(\w+)"', listed)
    assert names
    assert [name for name in names if not list((ROOT / "tests" / name).glob("test_*.py"))] == []


def test_the_first_command_needs_no_more_than_sixty_lines() -> None:
    assert len((ROOT / "tests" / "__main__.py").read_text(encoding="utf-8").splitlines()) <= 60
