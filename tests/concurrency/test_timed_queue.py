"""Waiting for the next item, or until a moment, and the layer's own thread, which waits so between its ticks."""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from channels_sqlite.concurrency.background import BackgroundThread
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.concurrency.timed_queue import TimedQueue

DEADLINE_S = 20.0


@pytest.fixture
def busy() -> Iterator[None]:
    """More programs that compute than there are processors, so that threads lose theirs anywhere."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    yield
    for program in programs:
        program.kill()
        program.wait()


def test_items_come_in_their_order_and_at_once() -> None:
    items: TimedQueue[int] = TimedQueue()
    for n in range(3):
        items.put(n)
    past = time.monotonic() - 1
    assert [items.get(None), items.get(past), items.get_nowait()] == [0, 1, 2]
    assert items.empty()
    with pytest.raises(queue.Empty):
        items.get_nowait()


def test_a_wait_ends_at_its_moment() -> None:
    items: TimedQueue[int] = TimedQueue()
    items.put(1)
    items.get(None)
    until = time.monotonic() + 0.2
    with pytest.raises(queue.Empty):
        items.get(until)
    assert time.monotonic() >= until


def test_a_wait_ends_with_an_item() -> None:
    items: TimedQueue[int] = TimedQueue()
    timer = threading.Timer(0.1, items.put, [5])
    timer.start()
    assert items.get(time.monotonic() + DEADLINE_S) == 5
    timer.join()


@pytest.mark.usefixtures("busy")
def test_a_wait_ends_however_busy_the_machine_is() -> None:
    """It did not where the thread lost its processor right after it had taken the lock of its queue."""
    items: TimedQueue[int] = TimedQueue()

    def wait() -> None:
        for n in range(200_000):
            items.put(n)
            items.get(None)
            try:
                items.get(time.monotonic())
            except queue.Empty:
                continue

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


@pytest.mark.usefixtures("busy")
def test_a_tick_follows_each_job_however_busy_the_machine_is() -> None:
    """The thread slept on, until the next job."""
    ticked = Gate()
    thread = BackgroundThread("ticking", ticked.open)
    for done in range(40_000):
        ticked.shut()
        thread.submit(bool)
        until = time.monotonic() + DEADLINE_S
        while not ticked.opened:
            assert ticked.sleep(until), f"no tick after job {done}"
    thread.stop(DEADLINE_S)
