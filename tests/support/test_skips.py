"""Under CI, a browser or process test that is skipped fails the run: the suite's own `tests/conftest.py` sees to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SKIPS = """
import pytest

@pytest.fixture
def page(): pytest.skip("no screen")

@pytest.mark.browser
def test_skips_itself(): pytest.skip("no screen")

@pytest.mark.browser
def test_whose_fixture_skips(page): pass

@pytest.mark.processes
@pytest.mark.skipif(True, reason="no screen")
def test_with_a_condition(): pass

class TestGroup:
    pytestmark = pytest.mark.processes

    def test_of_a_marked_class(self): pytest.skip("no screen")
"""
ALLOWED = """
import pytest

def test_without_a_marker(): pytest.skip("no screen")

@pytest.mark.browser
@pytest.mark.xfail
def test_expected_to_fail(): assert False

@pytest.mark.browser
def test_that_passes(): pass
"""


def run(folder: Path, code: str, *, name: str = "test_one.py", ci: str = "true") -> tuple[int, str]:
    """Run pytest with the suite's conftest and markers over a module; return its status and what it printed."""
    module = folder / name
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(code)
    command = [sys.executable, "-m", "pytest", "-q", f"--rootdir={folder}", f"--confcutdir={folder}"]
    command += [f"--config-file={ROOT / 'pyproject.toml'}", "-p", "tests.conftest", "-p", "no:cacheprovider", "."]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CI": ci}
    finished = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=90, check=False
    )
    return finished.returncode, finished.stdout + finished.stderr


def test_skips_of_browser_and_process_tests_fail_and_are_named(tmp_path: Path) -> None:
    status, output = run(tmp_path, SKIPS)
    assert status == 1, output
    names = [
        "test_skips_itself",
        "test_whose_fixture_skips",
        "test_with_a_condition",
        "TestGroup::test_of_a_marked_class",
    ]
    lines = [f"test_one.py::{name} must not be skipped. Skipped: no screen" for name in names]
    assert [line for line in lines if line not in output] == [], output


@pytest.mark.parametrize("folder", ["browser", "processes"])
def test_a_module_of_the_folder_that_skips_itself_fails(tmp_path: Path, folder: str) -> None:
    code = "import pytest\npytest.skip('no screen', allow_module_level=True)\n"
    status, output = run(tmp_path, code, name=f"{folder}/test_one.py")
    assert status == 2, output
    assert f"{folder}/test_one.py must not be skipped. Skipped: no screen" in output


def test_other_skips_and_expected_failures_are_allowed(tmp_path: Path) -> None:
    status, output = run(tmp_path, ALLOWED)
    assert status == 0, output
    assert "1 passed, 1 skipped, 1 xfailed" in output


def test_without_ci_all_may_be_skipped(tmp_path: Path) -> None:
    status, output = run(tmp_path, SKIPS, ci="")
    assert status == 0, output
    assert "4 skipped" in output
