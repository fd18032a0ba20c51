"""The list of differences holds nothing that no test is about."""

import re
from pathlib import Path

from tests.conformance.differences import Difference


def test_each_difference_has_a_test() -> None:
    named = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"@differs\(Difference\.(\w+)\)", path.read_text(encoding="utf-8"))
    }
    assert named == {difference.name for difference in Difference}
