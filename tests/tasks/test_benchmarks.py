"""The benchmarks of tasks, as small as they can be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN_LIMIT_S = 120.0


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(RUN_LIMIT_S + 20)
def test_tasks_are_run_and_measured(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    scenarios = ["tasks-enqueue", "tasks-run-1", "tasks-latency-load", "tasks-claim"]
    chosen = [f"--scenario={scenario}" for scenario in scenarios]
    command = [sys.executable, "-m", "tests.benchmarks", *chosen, "--quick", "--layer=sqlite", "--seconds=0.1"]
    done = subprocess.run(
        [*command, f"--json={file}"], capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads(file.read_text())["runs"]
    assert [run["scenario"] for run in runs] == scenarios
    for run in runs:
        assert (run["outcome"], run["remark"]) == ("ok", "")
        assert (run["counts"]["expected"] > 0, run["counts"]["lost"], run["counts"]["twice"]) == (True, 0, 0)
        assert all(value > 0 for value in run["values"].values())
