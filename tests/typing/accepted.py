"""User code that mypy and pyright accept, with the types that they must see. Never run."""

from typing import Any, Literal, TypedDict

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import BaseChannelLayer
from typing_extensions import assert_type

from channels_sqlite import get_channel_layer
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer


class ChatMessage(TypedDict):
    type: Literal["chat.message"]
    text: str


async def layer_calls() -> None:
    layer = get_channel_layer()
    assert_type(layer, SqliteChannelLayer)
    assert_type(get_channel_layer("other"), SqliteChannelLayer)
    assert_type(get_channel_layer(alias="other"), SqliteChannelLayer)

    message: ChatMessage = {"type": "chat.message", "text": "hi"}
    # The bare await shows that there is nothing to lose: each returns None.
    await layer.send("channel", message)
    await layer.group_send("group", message)
    await layer.send("channel", {"type": "job", "numbers": [1, 2.5, None, True], "raw": b"\x00", "inner": {"a": "b"}})
    await layer.group_add("group", "channel")
    await layer.group_discard("group", "channel")

    assert_type(await layer.receive("channel"), dict[str, Any])
    assert_type(await layer.new_channel(), str)
    assert_type(await layer.new_channel(prefix="mine"), str)
    assert_type(await layer.new_channel("mine"), str)
    assert_type(await layer.group_channels("group"), list[str])
    assert_type(await layer.group_count("group"), int)
    await layer.flush()
    await layer.close()


def as_any_layer(layer: SqliteChannelLayer) -> BaseChannelLayer:
    return layer


async def one_catch_for_the_database(layer: SqliteChannelLayer) -> str:
    from django.db import OperationalError

    try:
        await layer.send("channel", {})
    except ChannelDatabaseError as error:
        as_django_knows_it: OperationalError = error
        return str(as_django_knows_it)
    return ""


class Chat(AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await get_channel_layer().group_add("room", self.channel_name)
        await self.accept()

    async def receive_json(self, content: dict[str, str], **kwargs: object) -> None:
        message: ChatMessage = {"type": "chat.message", "text": content["text"]}
        await self.channel_layer.group_send("room", message)

    async def chat_message(self, event: ChatMessage) -> None:
        await self.send_json({"text": event["text"]})
