"""Closing, and what comes after."""

import pytest

from channels_sqlite import SyncChannelLayer
from channels_sqlite.exceptions import LayerClosedError
from tests.conformance.backends import OURS
from tests.conformance.differences import Difference, differs
from tests.facade.configure import only_ours
from tests.facade.steps import collect
from tests.facade.threads import DEADLINE_S, Threads, until_waiting
from tests.support.waiting import eventually


def test_listen_opens_a_closed_layer_again(facade: SyncChannelLayer) -> None:
    facade.send("channel", {"n": 1})
    facade.close()
    messages = facade.listen("channel")
    assert next(messages) == {"n": 1}
    facade.send("channel", {"n": 2})
    assert next(messages) == {"n": 2}


@differs(Difference.CLOSE_ENDS_MEMBERSHIPS)
def test_memberships_of_process_specific_channels_end_with_close(facade: SyncChannelLayer) -> None:
    facade.group_add("group", facade.new_channel())
    facade.close()
    assert facade.group_channels("group") == []


@differs(Difference.CLOSE_ENDS_RECEIVERS)
def test_close_ends_receive_in_other_threads(backend: str, facade: SyncChannelLayer, threads: Threads) -> None:
    # The others would wait for as long as they are told to.
    timeout = None if backend == OURS else 0.3
    channels = ["one", "one", "another", facade.new_channel(), facade.new_channel()]
    waiting = [threads.start(facade.receive, channel, timeout=timeout) for channel in channels]
    if backend == OURS:
        until_waiting(facade, len(channels))
    facade.close()
    for future in waiting:
        with pytest.raises(LayerClosedError, match="closed"):
            future.result(DEADLINE_S)


def test_close_ends_listen_in_other_threads(backend: str, facade: SyncChannelLayer, threads: Threads) -> None:
    received: list[int] = []

    def listen() -> str:
        received.extend(message["n"] for message in facade.listen("one", "another"))
        return "ended"

    listening = threads.start(listen)
    specific = threads.start(list, facade.listen(facade.new_channel()))
    for number in range(4):
        facade.send(["one", "another"][number % 2], {"n": number})
    eventually(lambda: len(received) == 4, DEADLINE_S, what="all are received")
    if backend == OURS:
        until_waiting(facade, 2)
    facade.close()
    assert listening.result(DEADLINE_S) == "ended"
    assert specific.result(DEADLINE_S) == []
    assert sorted(received) == [0, 1, 2, 3]


def test_close_between_two_messages_ends_listen(facade: SyncChannelLayer) -> None:
    for number in range(3):
        facade.send("channel", {"n": number})
    received = []
    for message in facade.listen("channel"):
        received.append(message["n"])
        facade.close()
    assert received == [0]
    assert collect(facade, "channel", 2) == [{"n": 1}, {"n": 2}]


@only_ours
def test_messages_that_were_waited_for_at_close_are_kept(facade: SyncChannelLayer, threads: Threads) -> None:
    waiting = [threads.start(facade.receive, "channel") for _ in range(3)]
    until_waiting(facade, 3)
    for number in range(3):
        facade.send("channel", {"n": number})
    facade.close()
    received = [future.result(DEADLINE_S)["n"] for future in waiting if not future.exception(DEADLINE_S)]
    left = [message["n"] for message in collect(facade, "channel", 3 - len(received))]
    assert sorted(received + left) == [0, 1, 2]
    assert left == sorted(left)
