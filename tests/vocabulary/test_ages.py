"""Ages, and how they are written."""

import pytest

from channels_sqlite.ages import age_s, duration

NOW = 1_700_000_000.0


def test_an_age_is_never_negative() -> None:
    assert age_s(NOW - 1.5, NOW) == 1.5
    assert age_s(NOW + 3600, NOW) == 0.0


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0.0 s"), (59.94, "59.9 s"), (90, "1.5 min"), (5400, "1.5 h"), (129600, "1.5 days")]
)
def test_a_length_of_time_is_written_in_its_largest_unit(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected
