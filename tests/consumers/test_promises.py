"""What a consumer promises, over every layer: once as Channels runs it, and once with the mixin."""

import asyncio
import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from channels.consumer import AsyncConsumer
from channels.exceptions import InvalidChannelLayerError, StopConsumer
from channels.generic.websocket import AsyncJsonWebsocketConsumer, AsyncWebsocketConsumer

from tests.consumers.connection import Connection
from tests.support.waiting import aeventually

# The base class of a test's consumers is a parameter, and so of any type for mypy.
Dispatching = Any


def chat(dispatching: Dispatching) -> Any:
    """A consumer in a room, which says what it was told and who told it."""

    class Chat(dispatching, AsyncWebsocketConsumer):
        groups = ["room"]  # noqa: RUF012  # as Channels documents it

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data=f"client {text_data}")

        async def room_say(self, event: dict[str, Any]) -> None:
            await self.send(text_data=f"room {event['n']}")

        async def name_tell(self, event: dict[str, Any]) -> None:
            await self.send(text_data=self.channel_name)

        async def room_stop(self, event: dict[str, Any]) -> None:
            raise StopConsumer

        async def room_fail(self, event: dict[str, Any]) -> None:
            raise RuntimeError("in a handler")

    return Chat


async def name_of(connection: Connection, layer: Any) -> str:
    await layer.group_send("room", {"type": "name.tell"})
    [name] = await connection.hear_texts(1)
    return name


async def test_each_source_keeps_its_order(dispatching: Dispatching, default_layer: Any) -> None:
    connection = await Connection(chat(dispatching)).opened()
    connection.say_texts(map(str, range(50)))
    for number in range(50):
        await default_layer.group_send("room", {"type": "room.say", "n": number})
    texts = await connection.hear_texts(100)
    for source in ("client", "room"):
        assert [text for text in texts if text.startswith(source)] == [f"{source} {number}" for number in range(50)]
    await connection.leave()


async def test_the_groups_attribute_makes_members_until_the_client_leaves(
    dispatching: Dispatching, default_layer: Any
) -> None:
    connections = [await Connection(chat(dispatching)).opened() for _ in range(2)]
    await default_layer.group_send("room", {"type": "room.say", "n": 1})
    assert [await connection.hear() for connection in connections] == [{"type": "websocket.send", "text": "room 1"}] * 2
    left = await name_of(connections[0], default_layer)
    await connections[1].hear()
    await connections[0].leave()
    await default_layer.group_send("room", {"type": "room.say", "n": 2})
    assert await connections[1].hear_texts(1) == ["room 2"]
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(default_layer.receive(left), 0.2)
    await connections[1].leave()


async def test_messages_to_the_channel_itself_arrive(dispatching: Dispatching, default_layer: Any) -> None:
    connection = await Connection(chat(dispatching)).opened()
    await default_layer.send(await name_of(connection, default_layer), {"type": "room.say", "n": 1})
    assert await connection.hear_texts(1) == ["room 1"]
    await connection.leave()


async def test_one_message_is_handled_at_a_time(dispatching: Dispatching, default_layer: Any) -> None:
    running: list[str] = []
    together: list[list[str]] = []

    class Slow(dispatching, AsyncWebsocketConsumer):
        groups = ["room"]  # noqa: RUF012  # as above

        async def handle(self, name: str) -> None:
            running.append(name)
            together.append(list(running))
            for _ in range(5):
                await asyncio.sleep(0)
            running.remove(name)
            await self.send(text_data=name)

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.handle("client")

        async def room_say(self, event: dict[str, Any]) -> None:
            await self.handle("room")

    connection = await Connection(Slow).opened()
    connection.say_texts(["t"] * 20)
    for _ in range(20):
        await default_layer.group_send("room", {"type": "room.say"})
    await connection.hear_texts(40)
    assert sorted(together) == [["client"]] * 20 + [["room"]] * 20
    await connection.leave()


async def test_handlers_run_in_the_consumers_task_and_share_its_context(
    dispatching: Dispatching, default_layer: Any
) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    seen: list[tuple[str, asyncio.Task[Any] | None]] = []

    class Sharing(dispatching, AsyncWebsocketConsumer):
        groups = ["room"]  # noqa: RUF012  # as above

        async def connect(self) -> None:
            variable.set("of connect")
            await self.accept()

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append((variable.get(), asyncio.current_task()))
            variable.set("of receive")
            await self.send(text_data="t")

        async def room_say(self, event: dict[str, Any]) -> None:
            seen.append((variable.get(), asyncio.current_task()))
            await self.send(text_data="t")

    connection = await Connection(Sharing).opened()
    connection.say_texts(["t"])
    await connection.hear()
    await default_layer.group_send("room", {"type": "room.say"})
    await connection.hear()
    assert seen == [("of connect", connection.task), ("of receive", connection.task)]
    await connection.leave()


# Ends


async def test_a_handler_ends_the_consumer_cleanly_with_stop_consumer(
    dispatching: Dispatching, default_layer: Any
) -> None:
    connection = await Connection(chat(dispatching)).opened()
    await default_layer.group_send("room", {"type": "room.stop"})
    await connection.ended()


async def test_a_consumer_that_stops_leaves_what_comes_next_in_the_layer(
    dispatching: Dispatching, default_layer: Any
) -> None:
    connection = await Connection(chat(dispatching)).opened()
    name = await name_of(connection, default_layer)
    await default_layer.send(name, {"type": "room.stop"})
    await connection.ended()
    await default_layer.group_add("room", name)  # whoever unsubscribes when cancelled begins anew
    for number in range(3):
        await default_layer.send(name, {"type": "room.say", "n": number})
    for number in range(3):
        assert (await asyncio.wait_for(default_layer.receive(name), 5))["n"] == number


@pytest.mark.parametrize("source", ["client", "room"])
async def test_what_a_handler_raises_ends_the_consumer(
    dispatching: Dispatching, default_layer: Any, source: str
) -> None:
    class Failing(chat(dispatching)):  # type: ignore[misc]  # mypy knows no such bases
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            raise RuntimeError("in a handler")

    connection = await Connection(Failing).opened()
    if source == "client":
        connection.say_texts(["t"])
    else:
        await default_layer.group_send("room", {"type": "room.fail"})
    with pytest.raises(RuntimeError, match="in a handler"):
        await connection.ended()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"type": "room.unknown"}, "room.unknown"),
        ({"type": "_room.say"}, "leading underscore"),
        ({"type": ".room"}, "leading underscore"),
        ({"text": "t"}, "no 'type'"),
    ],
)
async def test_a_message_without_a_handler_ends_the_consumer(
    dispatching: Dispatching, default_layer: Any, message: dict[str, Any], text: str
) -> None:
    connection = await Connection(chat(dispatching)).opened()
    await default_layer.group_send("room", message)
    with pytest.raises(ValueError, match=text):
        await connection.ended()


async def test_a_server_cancels_a_consumer_that_waits(dispatching: Dispatching, default_layer: Any) -> None:
    first = await Connection(chat(dispatching)).opened()  # a layer may start tasks of its own
    before = asyncio.all_tasks()
    connection = await Connection(chat(dispatching)).opened()
    assert asyncio.all_tasks() > before
    await connection.cancel()
    await aeventually(lambda: asyncio.all_tasks() <= before, 5)
    await first.leave()


async def test_a_server_cancels_a_consumer_in_a_handler(dispatching: Dispatching, default_layer: Any) -> None:
    caught: list[str] = []

    class Waiting(chat(dispatching)):  # type: ignore[misc]  # mypy knows no such bases
        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            await self.send(text_data="began")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                caught.append("cancelled")
                raise

    connection = await Connection(Waiting).opened()
    connection.say_texts(["t"])
    await connection.hear()
    await connection.cancel()
    assert caught == ["cancelled"]


async def test_a_client_that_leaves_while_a_handler_runs_is_heard_afterwards(
    dispatching: Dispatching, default_layer: Any
) -> None:
    go_on = asyncio.Event()
    steps: list[str] = []

    class Slow(chat(dispatching)):  # type: ignore[misc]  # mypy knows no such bases
        async def room_say(self, event: dict[str, Any]) -> None:
            await self.send(text_data="began")
            await go_on.wait()
            steps.append("handled")

        async def disconnect(self, code: int) -> None:
            steps.append(f"left with {code}")

    connection = await Connection(Slow).opened()
    await default_layer.group_send("room", {"type": "room.say"})
    await connection.hear()
    connection.say({"type": "websocket.disconnect", "code": 1001})
    for _ in range(10):
        await asyncio.sleep(0)
    assert steps == []
    go_on.set()
    await connection.ended()
    assert steps == ["handled", "left with 1001"]


@pytest.mark.parametrize("source", ["client", "layer"])
async def test_what_receiving_raises_ends_the_consumer(
    dispatching: Dispatching, default_layer: Any, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = asyncio.Event()
    real = default_layer.receive

    async def failing(*arguments: object) -> Any:
        if arguments and source != "layer":
            return await real(*arguments)
        if not arguments and not sent:
            sent.append(True)
            return {"type": "websocket.connect"}
        if not arguments and source == "layer":
            return await asyncio.Event().wait()
        await fail.wait()
        raise ConnectionError("the source is gone")

    sent: list[bool] = []
    monkeypatch.setattr(default_layer, "receive", failing)
    accepted = asyncio.Event()

    async def send(_: object) -> None:
        accepted.set()

    task = asyncio.ensure_future(chat(dispatching).as_asgi()({"type": "websocket"}, failing, send))
    await asyncio.wait_for(accepted.wait(), 5)
    fail.set()
    with pytest.raises(ConnectionError, match="gone"):
        await asyncio.wait_for(task, 5)


# Nobody starves


async def test_a_client_is_heard_while_the_layer_has_always_something(
    dispatching: Dispatching, default_layer: Any
) -> None:
    handled: list[str] = []

    class Busy(chat(dispatching)):  # type: ignore[misc]  # mypy knows no such bases
        async def room_say(self, event: dict[str, Any]) -> None:
            handled.append("room")  # and never yields, but to send itself the next one
            await self.channel_layer.send(self.channel_name, {"type": "room.say"})

    connection = await Connection(Busy).opened()
    await default_layer.group_send("room", {"type": "room.say"})
    await aeventually(lambda: len(handled) > 10, 10)
    connection.say_texts(["t"])
    assert await connection.hear_texts(1) == ["client t"]
    await connection.leave()


async def test_the_layer_is_heard_while_the_client_has_always_something(
    dispatching: Dispatching, default_layer: Any
) -> None:
    told: list[str] = []

    class Busy(dispatching, AsyncWebsocketConsumer):
        groups = ["room"]  # noqa: RUF012  # as above

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            told.append("client")
            if "room" not in told:
                connection.say_texts(["t"])

        async def room_say(self, event: dict[str, Any]) -> None:
            told.append("room")

    connection = await Connection(Busy).opened()
    connection.say_texts(["t"])
    await default_layer.group_send("room", {"type": "room.say"})
    await aeventually(lambda: "room" in told, 10)
    await connection.leave()


@pytest.mark.parametrize("source", ["client", "room"])
async def test_other_tasks_have_their_turn_though_no_handler_waits(
    dispatching: Dispatching, default_layer: Any, source: str
) -> None:
    seen: list[str] = []
    filled = asyncio.Event()

    class Busy(dispatching, AsyncWebsocketConsumer):
        groups = ["room"]  # noqa: RUF012  # as above

        async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
            seen.append("message")

        async def room_say(self, event: dict[str, Any]) -> None:
            await filled.wait()
            seen.append("message")

    connection = await Connection(Busy).opened()
    count = 30  # Channels hands each to a thread, which has to get the GIL from the other task
    if source == "client":
        connection.say_texts(["t"] * count)
    else:
        for _ in range(count):
            await default_layer.group_send("room", {"type": "room.say"})
        filled.set()

    async def other() -> None:
        while seen.count("message") < count:
            seen.append("other")
            await asyncio.sleep(0)

    await asyncio.wait_for(other(), 60)
    turns = [len(list(group)) for what, group in itertools.groupby(seen) if what == "message"]
    assert max(turns) <= 10
    await connection.leave()


# Layers


async def test_a_consumer_uses_the_layer_of_its_alias(
    dispatching: Dispatching, default_layer: Any, set_layer: Callable[[str, Any], None]
) -> None:
    class Elsewhere(chat(dispatching)):  # type: ignore[misc]  # mypy knows no such bases
        channel_layer_alias = "elsewhere"

    set_layer("elsewhere", default_layer)
    set_layer("default", None)
    connection = await Connection(Elsewhere).opened()
    await default_layer.group_send("room", {"type": "room.say", "n": 1})
    assert await connection.hear_texts(1) == ["room 1"]
    await connection.leave()


class _NoLayer:
    channel_layer_alias = "there is none"


async def test_a_consumer_without_a_layer_hears_its_client(dispatching: Dispatching) -> None:
    layers: list[object] = []

    class Alone(_NoLayer, dispatching, AsyncJsonWebsocketConsumer):
        async def receive_json(self, content: Any, **kwargs: Any) -> None:
            layers.append(self.channel_layer)
            await self.send_json(content)

    connection = await Connection(Alone).opened()
    connection.say_texts(['{"a": 1}'])
    assert await connection.hear_texts(1) == ['{"a": 1}']
    assert layers == [None]
    await connection.leave()


async def test_groups_without_a_layer_end_the_consumer(dispatching: Dispatching) -> None:
    class Alone(_NoLayer, chat(dispatching)):  # type: ignore[misc]  # mypy knows no such bases
        pass

    connection = Connection(Alone)
    connection.say({"type": "websocket.connect"})
    with pytest.raises(InvalidChannelLayerError):
        await connection.ended()


async def test_a_consumer_under_runworker_handles_what_is_handed_to_it(
    dispatching: Dispatching, default_layer: Any
) -> None:
    class Worker(dispatching, AsyncConsumer):
        async def work_do(self, event: dict[str, Any]) -> None:
            await self.send({"done": event["n"]})

    connection = Connection(Worker, {"type": "channel", "channel": "work"})
    connection.say(*({"type": "work.do", "n": number} for number in range(3)))
    assert [await connection.hear() for _ in range(3)] == [{"done": number} for number in range(3)]
    await connection.cancel()
