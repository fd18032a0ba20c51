"""The place in the line that a consumer with the mixin has over our layer: what it takes, and what it leaves."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from channels_sqlite.consumers import DirectDispatch
from channels_sqlite.exceptions import LayerClosedError
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.sync import SyncChannelLayer
from tests.consumers.connection import PATIENCE_S, Connection
from tests.support import inside
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually


class Held(DirectDispatch, AsyncWebsocketConsumer):
    """Repeats what it hears; `hold` holds it up in a handler until `go_on`, `stop` ends it there."""

    groups = ["room"]  # noqa: RUF012  # as Channels documents it

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        made.append(self)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data)
        if text_data in ("hold", "stop"):
            await self.go_on.wait()
        if text_data == "stop":
            raise StopConsumer

    async def room_say(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


made: list[Held] = []


@pytest.fixture
def our_layer(make_layer: LayerFactory, set_layer: Callable[[str, Any], None]) -> SqliteChannelLayer:
    made.clear()
    layer = make_layer(capacity=10_000)
    set_layer("default", layer)
    return layer


async def held(text: str = "hold") -> Connection:
    """A consumer in the middle of a handler."""
    connection = await Connection(Held).opened()
    connection.say_texts([text])
    assert await connection.hear_texts(1) == [text]
    return connection


async def say(layer: SqliteChannelLayer, text: str) -> None:
    await layer.send(made[0].channel_name, {"type": "room.say", "text": text})


async def test_what_comes_while_the_last_handler_runs_stays_in_the_layer(our_layer: SqliteChannelLayer) -> None:
    connection = await held("stop")
    for text in ("a", "b"):
        await say(our_layer, text)
    made[0].go_on.set()
    await connection.ended()
    for text in ("a", "b"):
        message = await asyncio.wait_for(our_layer.receive(made[0].channel_name), PATIENCE_S)
        assert message["text"] == text


async def test_what_comes_while_a_handler_runs_is_handled_next(our_layer: SqliteChannelLayer) -> None:
    connection = await held()
    await say(our_layer, "from the layer")
    made[0].go_on.set()
    assert await connection.hear_texts(1) == ["from the layer"]
    await connection.leave()


async def test_a_place_that_was_kept_over_a_clients_message_is_as_good(our_layer: SqliteChannelLayer) -> None:
    connection = await Connection(Held).opened()
    for number in range(3):
        connection.say_texts(["from the client"])
        assert await connection.hear_texts(1) == ["from the client"]
        await say(our_layer, str(number))
        assert await connection.hear_texts(1) == [str(number)]
    await connection.leave()


async def test_a_consumer_that_comes_too_late_for_its_turn_gets_the_message_all_the_same(
    our_layer: SqliteChannelLayer,
) -> None:
    """Whoever was woken and does not come for seconds loses the turn, so that others get it."""
    connection = await held()
    boxes = engine_of(our_layer).inbox.boxes
    await say(our_layer, "from the layer")
    for _ in range(3):
        boxes.sweep(all_waiters=False, is_member=lambda channel: True)
    assert not inside.box(engine_of(our_layer).inbox, made[0].channel_name).waiters
    made[0].go_on.set()
    assert await connection.hear_texts(1) == ["from the layer"]
    await say(our_layer, "the next")
    assert await connection.hear_texts(1) == ["the next"]
    await connection.leave()


async def test_a_message_that_expires_while_a_handler_runs_is_not_handled(
    make_layer: LayerFactory, set_layer: Callable[[str, Any], None]
) -> None:
    made.clear()
    layer = make_layer(expiry=0.2)
    set_layer("default", layer)
    connection = await held()
    await say(layer, "old")
    await aeventually(lambda: layer.counters.dropped_expired > 0, PATIENCE_S)
    made[0].go_on.set()
    await say(layer, "new")
    assert await connection.hear_texts(1) == ["new"]
    await connection.leave()


@pytest.mark.parametrize("in_a_handler", [False, True])
async def test_closing_the_layer_ends_the_consumer(our_layer: SqliteChannelLayer, in_a_handler: bool) -> None:
    connection = await (held() if in_a_handler else Connection(Held).opened())
    await our_layer.close()
    made[0].go_on.set()
    with pytest.raises(LayerClosedError):
        await connection.ended()


async def test_a_consumer_that_is_destroyed_leaves_the_line(our_layer: SqliteChannelLayer) -> None:
    connection = await Connection(Held).opened()
    box = inside.box(engine_of(our_layer).inbox, made[0].channel_name)
    await aeventually(lambda: bool(box.waiters), PATIENCE_S)
    coroutine = connection.task.get_coro()
    assert coroutine is not None
    coroutine.close()
    await aeventually(lambda: not box.waiters, PATIENCE_S)
    connection.task.cancel()
    await asyncio.wait([connection.task])


async def test_a_receive_of_ones_own_is_used(
    make_layer: LayerFactory, set_layer: Callable[[str, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made.clear()
    layer = make_layer()
    seen: list[str] = []
    real = layer.receive

    async def receive(channel: str) -> Any:
        seen.append(channel)
        return await real(channel)

    monkeypatch.setattr(layer, "receive", receive)
    set_layer("default", layer)
    connection = await Connection(Held).opened()
    await say(layer, "t")
    assert await connection.hear_texts(1) == ["t"]
    assert set(seen) == {made[0].channel_name}
    await connection.leave()


async def test_what_threads_send_while_the_client_speaks_comes_once_and_in_order(
    our_layer: SqliteChannelLayer,
) -> None:
    count = 1000
    connection = await Connection(Held).opened()
    facade = SyncChannelLayer(our_layer)

    def send(sender: str) -> None:
        for number in range(count):
            facade.send(made[0].channel_name, {"type": "room.say", "text": f"{sender} {number}"})

    threads = [threading.Thread(target=send, args=(sender,)) for sender in "ab"]
    for thread in threads:
        thread.start()
    heard: list[str] = []
    for number in range(count):
        connection.say_texts([f"client {number}"])
        heard.append((await connection.hear())["text"])
    heard.extend(await connection.hear_texts(2 * count))
    for sender in ("client", "a", "b"):
        assert [text for text in heard if text.startswith(f"{sender} ")] == [f"{sender} {n}" for n in range(count)]
    for thread in threads:
        thread.join()
    await connection.leave()
