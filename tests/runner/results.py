"""Reading what pytest wrote down about a run."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

REQUIRED_MARKERS = ("browser", "processes")
"""Tests with these markers must run: a machine that cannot run them has not tested the package."""


@dataclass
class Results:
    """How many tests did what, and the required ones that were skipped.

    Expected failures (xfail) are strict, so one that passes counts as failed; they are in none of the other counts.
    """

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    expected_failures: int = 0
    required_run: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REQUIRED_MARKERS, 0))
    required_skipped: list[str] = field(default_factory=list)

    def add(self, other: Results) -> None:
        """Add up the counts of several runs."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.expected_failures += other.expected_failures


def read_junit(file: Path) -> Results:
    """The results of one run of pytest; one failure when it left no readable report."""
    results = Results()
    try:
        # Our own pytest wrote it a moment ago.
        cases = list(ET.parse(file).iter("testcase"))
    except (OSError, ET.ParseError):
        results.failed = 1
        return results
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        required = [marker for marker in REQUIRED_MARKERS if _has_marker(case, name, marker)]
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            results.failed += 1
        elif skip is not None and skip.get("type") == "pytest.xfail":
            results.expected_failures += 1
        elif skip is not None:
            results.skipped += 1
            if required:
                results.required_skipped.append(f"{name}: {skip.get('message', '')}")
        else:
            results.passed += 1
            for marker in required:
                results.required_run[marker] += 1
    return results


def _has_marker(case: ET.Element, name: str, marker: str) -> bool:
    """Whether a test has a marker (`tests/conftest.py` writes them down), or is in the folder named after it.

    A module that was skipped as a whole has no tests, only its path.
    """
    noted = any(
        entry.get("name") == "marker" and entry.get("value") == marker for entry in case.findall("properties/property")
    )
    return noted or f"tests.{marker}" in name or f"tests/{marker}" in name
