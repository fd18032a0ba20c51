"""What mypy and Pyright say about user code: nothing on `accepted.py`, and exactly what it notes on `rejected.py`."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ACCEPTED = HERE / "accepted.py"
REJECTED = HERE / "rejected.py"

CHECK_DEADLINE_S = 300

# By line: the codes of the errors on it.
Errors = dict[int, set[str]]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(CHECK_DEADLINE_S + 30)]


def _run(command: list[str]) -> str:
    finished = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=CHECK_DEADLINE_S, check=False
    )
    # 0: no errors, 1: errors found. Anything else is a failure of the tool.
    assert finished.returncode in {0, 1}, finished.stdout + finished.stderr
    return finished.stdout


def _mypy(*files: Path) -> dict[Path, Errors]:
    found: dict[Path, Errors] = defaultdict(lambda: defaultdict(set))
    output = _run(["-m", "mypy", "--config-file", "mypy.ini", *map(str, files)])
    for match in re.finditer(r"^(.+?):(\d+): error: .* \[([\w-]+)\]$", output, re.MULTILINE):
        found[(ROOT / match[1]).resolve()][int(match[2])].add(match[3])
    return found


def _pyright(folder: Path, *files: Path) -> dict[Path, Errors]:
    """`folder`: for the configuration, whose paths must be relative."""
    configuration = {
        "include": [os.path.relpath(file, folder) for file in files],
        "stubPath": os.path.relpath(ROOT / "stubs", folder),
        "extraPaths": [os.path.relpath(ROOT, folder)],
        "typeCheckingMode": "standard",
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(configuration))
    output = _run(["-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(folder)])
    report = json.loads(output)
    assert report["summary"]["filesAnalyzed"] == len(files), output
    found: dict[Path, Errors] = defaultdict(lambda: defaultdict(set))
    for entry in report["generalDiagnostics"]:
        if entry["severity"] == "error":
            # Pyright counts from 0.
            line = entry["range"]["start"]["line"] + 1
            found[Path(entry["file"]).resolve()][line].add(entry.get("rule", "syntax"))
    return found


def _expected(column: int) -> Errors:
    """The comments of `rejected.py`: column 0 for mypy, 1 for Pyright."""
    expected: Errors = {}
    for number, line in enumerate(REJECTED.read_text().splitlines(), start=1):
        _, separator, comment = line.partition("# expect: ")
        codes = set(comment.split("|")[column].split()) if separator else set()
        if codes:
            expected[number] = codes
    assert len(expected) > 20
    return expected


def test_mypy_accepts_and_rejects_what_it_should() -> None:
    found = _mypy(ACCEPTED, REJECTED)
    assert found[ACCEPTED] == {}
    assert found[REJECTED] == _expected(0)


def test_pyright_accepts_and_rejects_what_it_should(tmp_path: Path) -> None:
    found = _pyright(tmp_path, ACCEPTED, REJECTED)
    assert found[ACCEPTED] == {}
    assert found[REJECTED] == _expected(1)
