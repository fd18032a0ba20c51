"""User code that mypy and pyright refuse. Never run.

`test_typing.py` compares what they say with the comments: mypy's codes, a bar, and Pyright's rules.
"""

from typing import Literal, TypedDict

from channels_sqlite import get_channel_layer
from channels_sqlite.layers import SqliteChannelLayer


class ChatMessage(TypedDict):
    type: Literal["chat.message"]
    text: str


class Job(TypedDict):
    id: int


async def forgotten_awaits(layer: SqliteChannelLayer, message: ChatMessage) -> None:
    layer.send("channel", message)  # expect: unused-coroutine | reportUnusedCoroutine
    layer.group_send("group", message)  # expect: unused-coroutine | reportUnusedCoroutine
    layer.group_add("group", "channel")  # expect: unused-coroutine | reportUnusedCoroutine
    layer.close()  # expect: unused-coroutine | reportUnusedCoroutine
    layer.receive("channel")["text"]  # expect: index | reportIndexIssue


async def wrong_messages(layer: SqliteChannelLayer) -> None:
    await layer.send("channel", "text")  # expect: arg-type | reportArgumentType
    await layer.send("channel", ["text"])  # expect: arg-type | reportArgumentType
    await layer.send("channel", None)  # expect: arg-type | reportArgumentType
    await layer.group_send("group", {1: "text"})  # expect: dict-item | reportArgumentType
    key: Job = {"di": 7}  # expect: typeddict-item typeddict-unknown-key | reportAssignmentType
    wrong: ChatMessage = {"type": "chat.message", "text": 1}  # expect: typeddict-item | reportAssignmentType
    kind: ChatMessage = {"type": "chat.massage", "text": ""}  # expect: typeddict-item | reportAssignmentType
    await layer.send("channel", {"all": [key, wrong, kind]})


async def wrong_names(layer: SqliteChannelLayer, message: ChatMessage) -> None:
    await layer.send(b"channel", message)  # expect: arg-type | reportArgumentType
    await layer.send(message)  # expect: call-arg arg-type | reportCallIssue
    await layer.receive(7)  # expect: arg-type | reportArgumentType
    await layer.group_add("group", None)  # expect: arg-type | reportArgumentType
    await layer.new_channel(prefix=7)  # expect: arg-type | reportArgumentType


def wrong_aliases() -> None:
    get_channel_layer(7)  # expect: arg-type | reportArgumentType
    get_channel_layer(None)  # expect: arg-type | reportArgumentType
    get_channel_layer(name="default")  # expect: call-arg | reportCallIssue


async def wrong_results(layer: SqliteChannelLayer) -> None:
    text: str = await layer.receive("channel")  # expect: assignment | reportAssignmentType
    names: list[int] = await layer.group_channels("group")  # expect: assignment | reportAssignmentType
    layer.sendd("channel", {"text": text, "names": names})  # expect: attr-defined | reportAttributeAccessIssue
