"""Channels' own machinery over the layer: consumers in groups, spoken to by WebsocketCommunicator."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from channels.consumer import AsyncConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer
from channels.layers import channel_layers
from channels.testing import ApplicationCommunicator, WebsocketCommunicator

from tests.conformance.backends import AS_LAYER, only
from tests.conformance.faces import AsLayer
from tests.conformance.steps import soon

pytestmark = only(AS_LAYER)

PATIENCE_S = 5.0


class Room(AsyncJsonWebsocketConsumer):
    """Passes on what a visitor says to all in the room, and answers `whoami` with the channel's name."""

    groups = ["everybody"]  # noqa: RUF012  # as Channels documents it

    async def connect(self) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        await self.accept()

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        if content == "whoami":
            await self.send_json(self.channel_name)
        else:
            await self.channel_layer.group_send("room", {"type": "room.said", "text": content})

    async def room_said(self, event: dict[str, Any]) -> None:
        await self.send_json(event["text"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard("room", self.channel_name)


class SyncRoom(WebsocketConsumer):
    """The same from a consumer that runs in threads."""

    def connect(self) -> None:
        async_to_sync(self.channel_layer.group_add)("room", self.channel_name)
        self.accept()

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        async_to_sync(self.channel_layer.group_send)("room", {"type": "room.said", "text": text_data})

    def room_said(self, event: dict[str, Any]) -> None:
        self.send(text_data=event["text"])

    def disconnect(self, code: int) -> None:
        async_to_sync(self.channel_layer.group_discard)("room", self.channel_name)


class Worker(AsyncConsumer):
    """As under `manage.py runworker`: gets what is sent to its normal channel."""

    async def work_do(self, event: dict[str, Any]) -> None:
        await self.channel_layer.send(event["reply_to"], {"done": event["n"]})


@pytest.fixture
def default_layer(subject: AsLayer) -> Iterator[Any]:  # as in `AsLayer`
    """The layer under test in the place of CHANNEL_LAYERS["default"]."""
    before = channel_layers.set("default", subject.layer)
    yield subject.layer
    if before is None:
        del channel_layers.backends["default"]
    else:
        channel_layers.set("default", before)


async def joined(consumer: type[Room | SyncRoom], count: int) -> list[WebsocketCommunicator]:
    """Communicators that are connected."""
    found = [WebsocketCommunicator(consumer.as_asgi(), "/room") for _ in range(count)]
    for communicator in found:
        connected, _ = await communicator.connect(timeout=PATIENCE_S)
        assert connected
    return found


async def left(communicators: list[WebsocketCommunicator]) -> None:
    for communicator in communicators:
        await communicator.disconnect(timeout=PATIENCE_S)


async def test_what_one_consumer_says_reaches_all(default_layer: Any) -> None:
    visitors = await joined(Room, 5)
    await visitors[0].send_json_to("hello")
    for visitor in visitors:
        assert await visitor.receive_json_from(timeout=PATIENCE_S) == "hello"
    await left(visitors)


async def test_consumer_groups_attribute_makes_members(default_layer: Any) -> None:
    visitors = await joined(Room, 2)
    await default_layer.group_send("everybody", {"type": "room.said", "text": "from outside"})
    for visitor in visitors:
        assert await visitor.receive_json_from(timeout=PATIENCE_S) == "from outside"
    await left(visitors)


async def test_consumer_is_reached_by_its_channel_name(default_layer: Any) -> None:
    visitors = await joined(Room, 2)
    await visitors[1].send_json_to("whoami")
    name = await visitors[1].receive_json_from(timeout=PATIENCE_S)
    await default_layer.send(name, {"type": "room.said", "text": "only you"})
    assert await visitors[1].receive_json_from(timeout=PATIENCE_S) == "only you"
    assert await visitors[0].receive_nothing()
    await left(visitors)


async def test_consumer_that_left_misses_nothing_for_the_others(default_layer: Any) -> None:
    visitors = await joined(Room, 3)
    await left(visitors[:1])
    await visitors[1].send_json_to("still here")
    for visitor in visitors[1:]:
        assert await visitor.receive_json_from(timeout=PATIENCE_S) == "still here"
    late = await joined(Room, 1)
    await visitors[1].send_json_to("welcome")
    for visitor in [*visitors[1:], *late]:
        assert await visitor.receive_json_from(timeout=PATIENCE_S) == "welcome"
    await left([*visitors[1:], *late])


async def test_consumers_get_everything_in_order(default_layer: Any) -> None:
    visitors = await joined(Room, 3)
    for number in range(50):
        await visitors[0].send_json_to(number)
    for visitor in visitors:
        assert [await visitor.receive_json_from(timeout=PATIENCE_S) for _ in range(50)] == list(range(50))
    await left(visitors)


async def test_sync_consumers_share_a_room(default_layer: Any) -> None:
    visitors = await joined(SyncRoom, 3)
    await visitors[0].send_to(text_data="hello")
    for visitor in visitors:
        assert await visitor.receive_from(timeout=PATIENCE_S) == "hello"
    await left(visitors)


async def test_worker_consumer_gets_what_is_sent_to_its_channel(default_layer: Any) -> None:
    reply_to = await default_layer.new_channel()
    worker = ApplicationCommunicator(Worker.as_asgi(), {"type": "channel", "channel": "work"})

    async def run_worker() -> None:
        # What channels.worker.Worker.listener does.
        while True:
            await worker.send_input(await default_layer.receive("work"))

    listener = asyncio.create_task(run_worker())
    for number in range(5):
        await default_layer.send("work", {"type": "work.do", "n": number, "reply_to": reply_to})
    assert [(await soon(default_layer.receive(reply_to)))["done"] for _ in range(5)] == list(range(5))
    listener.cancel()
    worker.stop()
    await asyncio.wait([listener])
