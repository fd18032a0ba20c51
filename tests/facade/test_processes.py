"""The facade where only a process of its own will do: forks, and Ctrl-C in the main thread."""

import os
import signal

import pytest

from channels_sqlite import SyncChannelLayer
from tests.facade.children import be_interrupted, fork_after_use
from tests.facade.configure import only_ours
from tests.support.databases import ChannelDatabase
from tests.support.processes import ProcessFactory

pytestmark = pytest.mark.processes

START_DEADLINE_S = 60.0


@only_ours
def test_interrupted_receive_takes_nothing_with_it(
    facade: SyncChannelLayer, start_process: ProcessFactory, database: ChannelDatabase
) -> None:
    child = start_process(be_interrupted, database=database)
    for _ in range(4):
        channel = child.hear(START_DEADLINE_S)
        os.kill(child.pid, signal.SIGINT)
        assert child.hear() == "interrupted"
        for number in range(2):
            facade.send(channel, {"n": number})
        child.say("sent")
        assert child.hear() == [0, 1]
    child.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_parent_and_child_go_on_after_a_fork(start_process: ProcessFactory, database: ChannelDatabase) -> None:
    process = start_process(fork_after_use, database=database)
    own = process.hear(START_DEADLINE_S)
    mine, first, second = process.hear()
    assert mine != own
    assert mine.partition("!")[0] != own.partition("!")[0]
    assert [first, second] == [{"to": "room"}, {"to": "child"}]
    assert process.hear() == "not the parent's channel"
    assert process.hear() == [{"n": 1}, 2]
    assert process.hear(START_DEADLINE_S) == "ended with 0"
    assert process.hear() == [{"to": "room"}, [{"from": "child"}], {"n": 2}]
    assert process.hear() is True
    process.wait()
