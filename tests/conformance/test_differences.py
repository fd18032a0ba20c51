"""The list of differences holds nothing that no test is about."""

import re
from pathlib import Path

from tests.conformance.differences import Difference

TESTS = Path(__file__).parents[1]


def test_each_difference_has_a_test() -> None:
    named = {
        name
        for folder in ("conformance", "facade")
        for path in (TESTS / folder).glob("test_*.py")
        for name in re.findall(r"@differs\(Difference\.(\w+)\)", path.read_text(encoding="utf-8"))
    }
    assert named == {difference.name for difference in Difference}
