"""What only the mixin does: no thread hop and no task for each message, and whom it refuses."""

import asyncio
import threading
from typing import Any

import pytest
from channels import db
from channels.consumer import AsyncConsumer, SyncConsumer
from channels.generic.websocket import AsyncWebsocketConsumer, JsonWebsocketConsumer, WebsocketConsumer
from channels.layers import BaseChannelLayer
from channels.testing import WebsocketCommunicator

from channels_sqlite import consumers
from channels_sqlite.consumers import DirectDispatch
from tests.consumers.connection import PATIENCE_S, Connection
from tests.support import inside

MESSAGES = 50


class Echo(DirectDispatch, AsyncWebsocketConsumer):
    groups = ["room"]  # noqa: RUF012  # as Channels documents it

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)

    async def room_say(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


class Clock:
    """The monotonic clock of the module under test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(consumers, "time", clock)
    inside.close_connections_at_once(monkeypatch.setattr)
    return clock


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads in which old connections were closed."""
    found: list[threading.Thread] = []
    monkeypatch.setattr(db, "close_old_connections", lambda: found.append(threading.current_thread()))
    return found


async def exchange(connection: Connection, layer: BaseChannelLayer) -> None:
    connection.say_texts(map(str, range(MESSAGES)))
    await connection.hear_texts(MESSAGES)
    for number in range(MESSAGES):
        await layer.group_send("room", {"type": "room.say", "text": str(number)})
        await connection.hear()


async def test_no_task_is_made_for_a_message(default_layer: BaseChannelLayer) -> None:
    connection = await Connection(Echo).opened()
    loop = asyncio.get_running_loop()
    made: list[Any] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> "asyncio.Task[Any]":
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **kwargs)

    loop.set_task_factory(factory)
    try:
        await exchange(connection, default_layer)
    finally:
        loop.set_task_factory(None)
    # The tests and some layers make tasks of their own.
    assert consumers.__file__ not in {coroutine.cr_code.co_filename for coroutine in made}
    assert "receive" not in {coroutine.__name__ for coroutine in made}
    await connection.leave()


async def test_old_connections_are_closed_once_a_second_in_another_thread(
    default_layer: BaseChannelLayer, clock: Clock, closings: list[threading.Thread]
) -> None:
    connections = [await Connection(Echo).opened() for _ in range(2)]
    for connection in connections:
        await exchange(connection, default_layer)
        connection.heard()
    assert len(closings) == 1
    assert closings[0] is not threading.current_thread()
    clock.now += 0.99
    await exchange(connections[0], default_layer)
    assert len(closings) == 1
    clock.now += 0.01
    await exchange(connections[0], default_layer)
    assert len(closings) == 2
    for connection in connections:
        await connection.leave()


async def test_old_connections_are_closed_before_the_message_that_comes_after_a_pause(
    default_layer: BaseChannelLayer, clock: Clock, closings: list[threading.Thread]
) -> None:
    seen: list[int] = []

    class Looking(Echo):
        async def room_say(self, event: dict[str, Any]) -> None:
            seen.append(len(closings))
            await super().room_say(event)

    connection = await Connection(Looking).opened()
    clock.now += 60
    await default_layer.group_send("room", {"type": "room.say", "text": "t"})
    await connection.hear()
    assert seen == [2]
    await connection.leave()


async def test_channels_communicators_keep_the_connections_of_a_test(
    default_layer: BaseChannelLayer, clock: Clock, closings: list[threading.Thread]
) -> None:
    communicator = WebsocketCommunicator(Echo.as_asgi(), "/")
    await communicator.connect(timeout=PATIENCE_S)
    clock.now += 60
    await communicator.send_to(text_data="t")
    assert await communicator.receive_from(timeout=PATIENCE_S) == "t"
    assert closings == []
    await communicator.disconnect(timeout=PATIENCE_S)


# Classes


@pytest.mark.parametrize("kind", [SyncConsumer, WebsocketConsumer, JsonWebsocketConsumer])
@pytest.mark.parametrize("first", [True, False])
def test_sync_consumers_are_refused(kind: type[SyncConsumer], first: bool) -> None:
    bases = (DirectDispatch, kind) if first else (kind, DirectDispatch)
    with pytest.raises(TypeError, match="Sync is a sync consumer"):
        type("Sync", bases, {})


@pytest.mark.parametrize("method", ["dispatch", "__call__"])
def test_a_class_that_would_be_passed_over_is_refused(method: str) -> None:
    async def own(self: object, *arguments: object) -> None:
        """Do something of its own."""

    other = type("Other", (AsyncConsumer,), {method: own})
    with pytest.raises(TypeError, match=rf"Other .*{method}\(\).*class Chat\(Other, DirectDispatch\)"):
        type("Chat", (DirectDispatch, other), {})
    assert getattr(type("Chat", (other, DirectDispatch), {}), method) is own


async def test_a_class_in_front_adds_to_dispatch(default_layer: BaseChannelLayer) -> None:
    seen: list[str] = []

    class Logged(AsyncConsumer):
        async def dispatch(self, message: Any) -> None:
            seen.append(message["type"])
            await super().dispatch(message)

    class Chat(Logged, Echo):
        pass

    connection = await Connection(Chat).opened()
    connection.say_texts(["t"])
    assert await connection.hear_texts(1) == ["t"]
    await connection.leave()
    assert seen == ["websocket.connect", "websocket.receive", "websocket.disconnect"]


def test_the_mixin_may_also_come_last() -> None:
    class Chat(AsyncWebsocketConsumer, DirectDispatch):
        pass

    assert Chat.dispatch is DirectDispatch.dispatch
