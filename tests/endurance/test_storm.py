"""A storm of one minute; longer ones are run by hand, see `__main__.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

SEED = 7
DEADLINE_S = 420


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(DEADLINE_S + 30)
def test_a_storm_of_one_minute_loses_doubles_and_leaves_nothing(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.endurance", "--minutes", "1", "--seed", str(SEED), "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
