"""Channels' generic consumers, as Channels runs them and with the mixin: no layer is asked for more than a channel."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from channels.exceptions import AcceptConnection, DenyConnection
from channels.generic.http import AsyncHttpConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer
from channels.layers import BaseChannelLayer, InMemoryChannelLayer
from channels.testing import HttpCommunicator, WebsocketCommunicator

from tests.consumers.connection import PATIENCE_S, Connection

Dispatching = Any  # as in `test_promises`


@pytest.fixture(autouse=True)
def memory_layer(set_layer: Callable[[str, BaseChannelLayer | None], None]) -> None:
    set_layer("default", InMemoryChannelLayer())


async def answer_to_connect(consumer: Any) -> dict[str, Any]:
    connection = Connection(consumer)
    connection.say({"type": "websocket.connect"})
    answer: dict[str, Any] = await connection.hear()
    await connection.leave()
    return answer


async def test_a_connection_is_accepted_with_a_protocol_and_headers(dispatching: Dispatching) -> None:
    class Accepting(dispatching, AsyncWebsocketConsumer):
        async def connect(self) -> None:
            await self.accept(subprotocol=self.scope["subprotocols"][0], headers=[(b"x-a", b"1")])

    connection = Connection(Accepting, {"type": "websocket", "subprotocols": ["chat", "other"]})
    connection.say({"type": "websocket.connect"})
    assert await connection.hear() == {"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-a", b"1")]}
    await connection.leave()


@pytest.mark.parametrize(
    ("raised", "answer"), [(AcceptConnection, "websocket.accept"), (DenyConnection, "websocket.close")]
)
async def test_connect_decides_by_what_it_raises(
    dispatching: Dispatching, raised: type[Exception], answer: str
) -> None:
    class Deciding(dispatching, AsyncWebsocketConsumer):
        async def connect(self) -> None:
            raise raised

    assert (await answer_to_connect(Deciding))["type"] == answer


async def test_a_consumer_closes_with_code_and_reason(dispatching: Dispatching) -> None:
    class Closing(dispatching, AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.close(code=4000, reason="enough")

    connection = await Connection(Closing).opened()
    connection.say_texts(["t"])
    assert await connection.hear() == {"type": "websocket.close", "code": 4000, "reason": "enough"}
    await connection.leave()


async def test_text_and_bytes_go_both_ways(dispatching: Dispatching) -> None:
    class Echo(dispatching, AsyncWebsocketConsumer):
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=text_data, bytes_data=bytes_data)

    communicator = WebsocketCommunicator(Echo.as_asgi(), "/")
    assert await communicator.connect(timeout=PATIENCE_S) == (True, None)
    await communicator.send_to(text_data="hello")
    assert await communicator.receive_from(timeout=PATIENCE_S) == "hello"
    await communicator.send_to(bytes_data=b"\xff")
    assert await communicator.receive_from(timeout=PATIENCE_S) == b"\xff"
    await communicator.disconnect(timeout=PATIENCE_S)


async def test_json_goes_both_ways_by_the_consumers_own_encoding(dispatching: Dispatching) -> None:
    class Echo(dispatching, AsyncJsonWebsocketConsumer):
        @classmethod
        async def encode_json(cls, content: Any) -> str:
            return json.dumps({"said": content})

        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            await self.send_json(content)

    connection = await Connection(Echo).opened()
    connection.say_texts(['[1, "two"]'])
    assert await connection.hear_texts(1) == ['{"said": [1, "two"]}']
    await connection.leave()


async def test_bytes_are_no_json(dispatching: Dispatching) -> None:
    class Echo(dispatching, AsyncJsonWebsocketConsumer):
        pass

    connection = await Connection(Echo).opened()
    connection.say({"type": "websocket.receive", "text": None, "bytes": b"1"})
    with pytest.raises(ValueError, match="No text section"):
        await connection.ended()


async def test_the_client_that_left_is_told_with_its_code(dispatching: Dispatching) -> None:
    codes: list[int] = []

    class Leaving(dispatching, AsyncWebsocketConsumer):
        async def disconnect(self, code: int) -> None:
            codes.append(code)

    await (await Connection(Leaving).opened()).leave()
    assert codes == [1000]


async def test_each_connection_has_an_instance_with_the_arguments_of_as_asgi(dispatching: Dispatching) -> None:
    instances: list[object] = []

    class Kept(dispatching, AsyncWebsocketConsumer):
        def __init__(self, *, greeting: str) -> None:
            super().__init__()
            self.greeting = greeting
            instances.append(self)

        async def connect(self) -> None:
            await self.accept()
            await self.send(text_data=self.greeting)

    application = Kept.as_asgi(greeting="hello")
    assert (application.consumer_class, application.__name__) == (Kept, "Kept")  # type: ignore[attr-defined]  # as told
    for _ in range(2):
        connection = await Connection(Kept, greeting="hello").opened()
        assert await connection.hear_texts(1) == ["hello"]
        await connection.leave()
    assert len({id(instance) for instance in instances}) == 2


async def test_an_http_consumer_gets_the_whole_body(dispatching: Dispatching) -> None:
    ended: list[bool] = []

    class Lengths(dispatching, AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(200, str(len(body)).encode(), headers={b"content-type": b"text/plain"})

        async def disconnect(self) -> None:
            ended.append(True)

    connection = Connection(Lengths, {"type": "http"})
    connection.say({"type": "http.request", "body": b"ab", "more_body": True}, {"type": "http.request", "body": b"cde"})
    await connection.ended()
    assert connection.heard() == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]},
        {"type": "http.response.body", "body": b"5", "more_body": False},
    ]
    assert ended == [True]


async def test_an_http_consumer_answers_channels_communicator(dispatching: Dispatching) -> None:
    class Echo(dispatching, AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_response(201, body)

    response = await HttpCommunicator(Echo.as_asgi(), "POST", "/", body=b"hello").get_response(timeout=5)
    assert (response["status"], response["body"]) == (201, b"hello")


async def test_an_http_client_that_goes_ends_the_consumer(dispatching: Dispatching) -> None:
    class Slow(dispatching, AsyncHttpConsumer):
        pass

    connection = Connection(Slow, {"type": "http"})
    connection.say({"type": "http.disconnect"})
    await connection.ended()
