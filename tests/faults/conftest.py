from collections.abc import Iterator

import pytest

from tests.faults.support import Clock, set_clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The package's wall clock, for the test to set: `clock.shift_s += 3600`."""
    with set_clock() as clock:
        yield clock
