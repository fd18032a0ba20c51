"""Channels over any layer: time-outs, listening, what may be sent on commit. The rest is in tests/conformance."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from channels.exceptions import MessageTooLarge
from channels.layers import InMemoryChannelLayer
from django.test import override_settings

from channels_sqlite import SyncChannelLayer, get_sync_channel_layer
from tests.conformance.backends import IN_MEMORY, REDIS
from tests.conformance.differences import Difference, differs
from tests.facade.configure import Configure, only_ours
from tests.facade.steps import assert_nothing_comes, collect
from tests.facade.threads import DEADLINE_S, Threads, until_waiting

EVERY_TYPE: dict[str, Any] = {
    "type": "a.message",
    "none": None,
    "bools": [True, False],
    "ints": [0, -1, 2**63 - 1, -(2**63)],
    "float": 2.5,
    "text": "größe \N{SNOWMAN}",
    "bytes": b"\x00\xff",
    "nested": {"list": [[], {}], "": "empty key"},
}


@pytest.fixture
def channels(facade: SyncChannelLayer) -> list[str]:
    """A channel of each kind, normal and process-specific. One test for both saves half of the time."""
    return ["normal", facade.new_channel()]


def test_async_layer_receives_what_the_facade_sends_and_the_other_way_round(
    facade: SyncChannelLayer, channels: list[str]
) -> None:
    async def swap(channel: str) -> dict[str, Any]:
        received = await asyncio.wait_for(facade.layer.receive(channel), DEADLINE_S)
        await facade.layer.send(channel, {"from": "coroutine"})
        return received

    for channel in channels:
        facade.send(channel, {"from": "thread"})
        assert asyncio.run(swap(channel)) == {"from": "thread"}
        assert collect(facade, channel, 1) == [{"from": "coroutine"}]


# Time-outs


def test_receive_raises_timeout_error_that_names_the_channel(facade: SyncChannelLayer, channels: list[str]) -> None:
    for channel in channels:
        for timeout in (0, 0.05, 0.3):
            began = time.monotonic()
            with pytest.raises(TimeoutError, match=channel):
                facade.receive(channel, timeout=timeout)
            assert time.monotonic() - began >= timeout


@differs(Difference.ASKING_ONCE_TAKES_NO_TIME)
def test_receive_with_timeout_zero_asks_once(facade: SyncChannelLayer) -> None:
    """The quickest of three takes less than the quarter of a second that it is over other layers."""
    facade.send("channel", {"n": 1})
    collect(facade, "channel", 1)  # opens what must be opened
    quickest = 1.0
    for _ in range(3):
        began = time.monotonic()
        assert_nothing_comes(facade, "channel")
        quickest = min(quickest, time.monotonic() - began)
    assert quickest < 0.2


def test_receive_with_timeout_zero_finds_what_is_there(facade: SyncChannelLayer, channels: list[str]) -> None:
    for channel in channels:
        for number in range(3):
            facade.send(channel, {"n": number})
        assert [facade.receive(channel, timeout=0)["n"] for _ in range(3)] == [0, 1, 2]


def test_timed_out_receive_takes_nothing_with_it(facade: SyncChannelLayer, channels: list[str]) -> None:
    for channel in channels:
        for number in range(2):
            with pytest.raises(TimeoutError):
                facade.receive(channel, timeout=0.05)
            facade.send(channel, {"n": number})
            assert collect(facade, channel, 1) == [{"n": number}]
        assert_nothing_comes(facade, channel)


@pytest.mark.parametrize("timeout", [None, DEADLINE_S])
def test_receive_waits_for_what_another_thread_sends(
    facade: SyncChannelLayer, channels: list[str], timeout: float | None, threads: Threads
) -> None:
    for channel in channels:
        waiting = threads.start(facade.receive, channel, timeout=timeout)
        facade.send(channel, {"n": 1})
        assert waiting.result(DEADLINE_S) == {"n": 1}
        assert_nothing_comes(facade, channel)


@only_ours
def test_receive_without_timeout_waits_until_something_comes(
    facade: SyncChannelLayer, channels: list[str], threads: Threads
) -> None:
    for channel in channels:
        waiting = threads.start(facade.receive, channel)
        until_waiting(facade)
        assert not waiting.done()
        facade.send(channel, {"n": 1})
        assert waiting.result(DEADLINE_S) == {"n": 1}


@pytest.mark.parametrize("backend", [REDIS], indirect=True)
def test_slow_redis_delivers_nothing_twice(facade: SyncChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    """channels_redis takes a received message off its backup in a task, which must not end with the event loop."""
    layer: Any = facade.layer
    clean = getattr(layer, "_clean_receive_backup")  # noqa: B009  # of channels_redis

    async def clean_slowly(index: int, channel: str) -> None:
        await asyncio.sleep(0.05)
        await clean(index, channel)

    monkeypatch.setattr(layer, "_clean_receive_backup", clean_slowly)
    for number in range(3):
        facade.send("channel", {"n": number})
    assert [message["n"] for message in collect(facade, "channel", 3)] == [0, 1, 2]
    assert_nothing_comes(facade, "channel")


# Messages


REFUSED: list[tuple[Any, str]] = [
    ({"items": [0, {"when": date(2024, 1, 1)}]}, r"\['items'\]\[1\]\['when'\].*date"),
    ({"a": {1: "int key"}}, r"\['a'\].*int"),
    ({"a": {1, 2}}, r"\['a'\].*set"),
    ({"a": 2**63}, r"\['a'\]"),
    ({"a": "\ud800"}, r"\['a'\]"),
    ("text", "str"),
    (None, "None"),
    (["list"], "list"),
]


def test_what_cannot_be_serialised_is_refused_before_the_commit(facade: SyncChannelLayer) -> None:
    facade.group_add("channel", "channel")  # a group of the same name, so that one call fits all
    for call in (facade.send_on_commit, facade.group_send_on_commit):
        for message, told in REFUSED:
            with pytest.raises(TypeError, match=told):
                call("channel", message)
        with pytest.raises(ValueError, match="__asgi_channel__"):
            call("channel", {"__asgi_channel__": "channel"})
    assert_nothing_comes(facade, "channel")


@differs(Difference.MESSAGE_SIZE_IS_CONFIGURED)
def test_too_large_a_message_raises(backend: str, configure: Configure) -> None:
    facade = configure(max_message_size=2000)
    facade.send("channel", {"data": b"x" * 1900})
    facade.group_add("group", "channel")
    for call in (facade.send, facade.send_on_commit, facade.group_send, facade.group_send_on_commit):
        with pytest.raises(MessageTooLarge):
            call("channel", {"data": b"x" * 2001})
    assert collect(facade, "channel", 1) == [{"data": b"x" * 1900}]
    assert_nothing_comes(facade, "channel")


@only_ours
def test_listen_raises_value_error_at_once(facade: SyncChannelLayer) -> None:
    with pytest.raises(ValueError, match="somebodyelse"):
        facade.listen("channel", "specific.somebodyelse!abc")


# Listening


def test_listen_yields_what_comes_on_its_channels_in_order(facade: SyncChannelLayer) -> None:
    channels = ["one", "two", facade.new_channel()]
    for number in range(3):
        for channel in channels:
            facade.send(channel, {"from": channel, "n": number})
    messages = facade.listen(*channels)
    received = [next(messages) for _ in range(9)]
    for channel in channels:
        assert [message["n"] for message in received if message["from"] == channel] == [0, 1, 2]


def test_listen_takes_turns_among_its_channels(facade: SyncChannelLayer) -> None:
    for number in range(10):
        facade.send("busy", {"busy": number})
    facade.send("quiet", {"quiet": 0})
    messages = facade.listen("busy", "quiet")
    assert {"quiet": 0} in [next(messages) for _ in range(3)]


class Hasty(InMemoryChannelLayer):
    """As channels_redis: a receive() that is cancelled may have taken a message, which is lost."""

    async def receive(self, channel: str) -> dict[str, Any]:
        message = await super().receive(channel)
        await asyncio.sleep(0.05 if channel == "slow" else 0.001)
        return message


def test_listen_cancels_no_receive_of_another_layer() -> None:
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": f"{__name__}.Hasty"}}):
        facade = get_sync_channel_layer()
        for number in range(10):
            facade.send(["fast", "slow"][number % 2], {"n": number})
        messages = facade.listen("fast", "slow")
        received = [next(messages)["n"] for _ in range(7)]
        messages.close()  # type: ignore[attr-defined]
        received += [message["n"] for channel in ("fast", "slow") for message in until_empty(facade, channel)]
        assert sorted(received) == list(range(10))


def until_empty(facade: SyncChannelLayer, channel: str) -> Iterator[dict[str, Any]]:
    with suppress(TimeoutError):
        while True:
            yield facade.receive(channel, timeout=0)


def test_listen_loses_nothing_of_busy_channels(facade: SyncChannelLayer) -> None:
    for number in range(60):
        facade.send(["one", "two", "three"][number % 3], {"n": number})
    messages = facade.listen("one", "two", "three")
    assert sorted(next(messages)["n"] for _ in range(60)) == list(range(60))


def test_listen_waits_for_what_another_thread_sends(facade: SyncChannelLayer, threads: Threads) -> None:
    def three() -> list[object]:
        messages = facade.listen("one", "two")
        return [next(messages)["n"] for _ in range(3)]

    waiting = threads.start(three)
    for number, channel in enumerate(("one", "two", "one")):
        facade.send(channel, {"n": number})
    assert sorted(map(str, waiting.result(DEADLINE_S))) == ["0", "1", "2"]


def test_loop_that_is_left_takes_nothing_with_it(facade: SyncChannelLayer) -> None:
    for number in range(4):
        facade.send("channel", {"n": number})
    for message in facade.listen("channel"):
        if message["n"] == 1:
            break
    assert collect(facade, "channel", 2) == [{"n": 2}, {"n": 3}]


@pytest.mark.parametrize("backend", [IN_MEMORY], indirect=True)
def test_listen_without_channels_raises_type_error(facade: SyncChannelLayer) -> None:
    with pytest.raises(TypeError, match="at least one channel"):
        facade.listen()
