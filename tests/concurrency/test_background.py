"""The layer's own thread: jobs in order, and ticks between them."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.concurrency.gate import Gate

ROUNDS = 40_000
DEADLINE_S = 20.0


@pytest.fixture
def busy() -> Iterator[None]:
    """More programs that compute than there are processors, so that threads lose theirs anywhere."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    yield
    for program in programs:
        program.kill()
        program.wait()


@pytest.mark.usefixtures("busy")
def test_a_tick_follows_each_job_however_busy_the_machine_is() -> None:
    """A thread that lost its processor in the middle of a look into its queue slept on, until the next job."""
    ticked = Gate()
    thread = BackgroundThread("ticking", ticked.open)
    for done in range(ROUNDS):
        ticked.shut()
        thread.submit(bool)
        until = time.monotonic() + DEADLINE_S
        while not ticked.opened:
            assert ticked.sleep(until), f"no tick after job {done}"
    thread.stop(DEADLINE_S)
