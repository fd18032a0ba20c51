"""A call that interrupts another one in the same thread, as a signal handler does: refused, and told the way out."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import pytest

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.sync import SyncChannelLayer
from tests.facade.setup import facade_in, facade_over
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.processes import ProcessFactory

DEADLINE_S = 30.0


def say_good_bye(parent: Parent, *, signals: int) -> None:
    """Send all the time, and have a signal handler do so as well; say what became of the handler's calls."""
    layer = facade_in(parent)
    layer.send("jobs", {"n": 0})
    refused: list[str] = []
    sent: list[int] = []
    done = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        try:
            layer.group_send("room", {"type": "good bye"})
            layer.group_discard("room", "channel")
            sent.append(number)
        except RuntimeError as error:
            refused.append(str(error))

    signal.signal(signal.SIGUSR1, handler)

    def shoot() -> None:
        while len(refused) + len(sent) < signals:
            os.kill(os.getpid(), signal.SIGUSR1)
            done.wait(0.0003)
        done.set()

    shooter = threading.Thread(target=shoot)
    shooter.start()
    count = 0
    while not done.is_set():
        layer.group_send("room", {"n": count})
        layer.group_add("room", "channel")
        count += 1
    shooter.join()
    layer.group_send("room", {"n": count})
    parent.say([len(sent) > 0, len(refused) > 0, sorted({"from another thread" in text for text in refused})])
    layer.close()


@pytest.mark.processes
def test_a_handler_that_interrupts_a_send_is_refused_and_one_that_does_not_is_not(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    process = start_process(say_good_bye, database=database, signals=3000)
    assert process.hear(DEADLINE_S) == [True, True, [True]]
    process.wait()


def close_in_a_handler(parent: Parent, *, how: str) -> None:
    """Wait for a message, and close the layer in a signal handler that comes meanwhile."""
    layer = facade_in(parent)

    def handler(number: int, frame: FrameType | None) -> None:
        try:
            layer.send("jobs-2", {"type": "from the handler"})
        except RuntimeError:  # the thread does not wait now: it looks for messages, as it does now and then
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            layer.close()

    for number in (signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, handler)
    parent.say("ready")
    if how == "listen":
        for _ in layer.listen("jobs"):
            pass
        parent.say("ended")
    else:
        with suppress(RuntimeError):
            layer.receive("jobs")
        parent.say("ended")
    parent.say(layer.receive("jobs-2", timeout=5)["type"])
    layer.close()


@pytest.mark.processes
@pytest.mark.parametrize("how", ["listen", "receive"])
def test_a_handler_that_comes_while_the_thread_waits_may_send_and_close(
    how: str, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    process = start_process(close_in_a_handler, database=database, how=how)
    assert process.hear(DEADLINE_S) == "ready"
    with facade_over(database) as facade:
        # It has to be waiting, which its registration as a listener shows.
        from tests.facade.setup import until_heard_of

        until_heard_of(database, "jobs")
        process.signal(signal.SIGUSR1)
        assert process.hear(DEADLINE_S) == "ended"
        assert process.hear(DEADLINE_S) == "from the handler"
        facade.close()
    process.wait()


class Sending(logging.Handler):
    """Sends each line through the layer that the line is about."""

    def __init__(self, layer: SyncChannelLayer) -> None:
        super().__init__()
        self._layer = layer
        self.errors: list[Exception] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._layer.send("log", {"type": "log", "text": record.getMessage()})
        except RuntimeError as error:
            self.errors.append(error)


@contextmanager
def logging_through(layer: SyncChannelLayer) -> Iterator[Sending]:
    handler = Sending(layer)
    logger = logging.getLogger("channels_sqlite")
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)


def test_a_logging_handler_that_sends_is_refused_in_the_middle_of_a_send(database: ChannelDatabase) -> None:
    with facade_over(database, capacity=1) as layer:
        layer.group_add("room", "jobs")
        layer.send("jobs", {"n": 1})
        with logging_through(layer) as handler:
            layer.group_send("room", {"n": 2})  # a member is full, which is told
        assert len(handler.errors) == 1
        assert "while another call of it is under way" in str(handler.errors[0])
        layer.send("jobs-2", {"n": 1})
        assert get_sync_channel_layer() is layer
