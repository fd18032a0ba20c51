"""User code that mypy and pyright accept, with the types that they must see. Never run."""

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from typing import Any, Literal, TypedDict

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import BaseChannelLayer
from django.http import HttpRequest, StreamingHttpResponse
from django.tasks import task as django_task
from typing_extensions import NotRequired, assert_type

from channels_sqlite import (
    Channel,
    Group,
    History,
    HistoryEntry,
    Presence,
    Present,
    SyncChannelLayer,
    get_channel_layer,
    get_sync_channel_layer,
)
from channels_sqlite.consumers import DirectDispatch
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sse import event_stream
from channels_sqlite.tasks import Progress, TaskContext, await_result, progress_of, task, wait
from channels_sqlite.testing import run_tasks


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
    await layer.send("channel", message, expiry=5)
    await layer.send_many("channel", [message, message], expiry=0.5)
    await layer.send_many("channel", (message,))
    await layer.group_send("group", message, exclude="channel", expiry=None)
    await layer.group_send("group", message, exclude={"a", "b"})
    await layer.group_send_many("group", [message], exclude=["a"], expiry=5)
    assert_type(await layer.send_later("channel", message, delay=30), str)
    assert_type(await layer.group_send_later("group", message, at=datetime.now(timezone.utc), exclude=("a",)), str)
    assert_type(await layer.cancel("ticket"), bool)
    await layer.flush()
    await layer.close()


async def histories(layer: SqliteChannelLayer, facade: SyncChannelLayer, group: Group[ChatMessage]) -> None:
    history = await layer.group_subscribe("group", "channel", since="position")
    assert_type(history, History[dict[str, Any]])
    assert_type(history.entries, list[HistoryEntry[dict[str, Any]]])
    assert_type(history.position, str)
    assert_type(history.recovered, bool)
    assert_type(await layer.group_subscribe("group", "channel"), History[dict[str, Any]])
    assert_type(await layer.group_history("group", last=20), History[dict[str, Any]])
    assert_type(facade.group_subscribe("group", "channel", last=20), History[dict[str, Any]])
    assert_type(facade.group_history("group", since=None), History[dict[str, Any]])
    assert_type(await group.asubscribe("channel", since=object()), History[ChatMessage])
    assert_type(group.subscribe("channel", last=1), History[ChatMessage])
    assert_type(group.history(since="position"), History[ChatMessage])
    for entry in (await group.ahistory()).entries:
        assert_type(entry, HistoryEntry[ChatMessage])
        assert_type(entry.message["text"], str)
        assert_type(entry.sent_at, float)
        assert_type(entry.position, str)
    await layer.group_send("group", {"type": "typing"}, history=False)
    await layer.group_send_many("group", [], history=False)
    await layer.group_send_later("group", {}, delay=1, history=False)
    facade.group_send_on_commit("group", {}, history=False)
    await group.asend({"type": "chat.message", "text": ""}, history=False)


async def event_streams(request: HttpRequest) -> StreamingHttpResponse:
    def say(message: ChatMessage) -> str:
        return message["text"]

    assert_type(event_stream(request, "room"), StreamingHttpResponse)
    event_stream(request, "room", "news", last=20, heartbeat=5, layer="other")
    event_stream(request, *["room"], last=None, encode=None)
    event_stream(request, "room", encode=str)
    return event_stream(request, "room", encode=say)


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


class Chat(DirectDispatch, AsyncJsonWebsocketConsumer):
    async def connect(self) -> None:
        await get_channel_layer().group_add("room", self.channel_name)
        await self.accept()

    async def receive_json(self, content: dict[str, str], **kwargs: object) -> None:
        message: ChatMessage = {"type": "chat.message", "text": content["text"]}
        await self.channel_layer.group_send("room", message)

    async def chat_message(self, event: ChatMessage) -> None:
        await self.send_json({"text": event["text"]})


class Visitor(TypedDict):
    name: str


here: Presence[Visitor] = Presence("room.1")


async def presence(layer: SqliteChannelLayer) -> None:
    assert_type(await here.ajoin("channel", key="ann", info={"name": "Ann"}), list[Present[Visitor]])
    assert_type(await here.ajoin("channel", "ann"), list[Present[Visitor]])
    await here.aupdate("channel", {"name": "Ann B."})
    await here.aleave("channel")
    listed: list[Present[Visitor]] = await here.alist()
    assert_type(listed[0].info, Visitor)
    assert_type(listed[0].info["name"], str)
    assert_type(listed[0].key, str)
    assert_type(listed[0].channels, int)
    assert_type(listed[0].since, float)
    assert_type(await here.acount(), int)
    assert_type(await here.awatch("channel"), list[Present[Visitor]])
    visitor: Visitor = {"name": "Ann"}
    assert_type(await layer.presence_join("room", "channel", "ann", visitor), list[Present[dict[str, Any]]])
    await layer.presence_update("room", "channel", visitor)
    await layer.presence_leave("room", "channel")
    assert_type(await layer.presence_watch("room", "channel"), list[Present[dict[str, Any]]])
    assert_type(await layer.presence_list("room"), list[Present[dict[str, Any]]])
    assert_type(await layer.presence_count("room"), int)
    assert_type(await layer.presence_groups("ann"), list[str])


def presence_in_a_view(layer: SyncChannelLayer) -> None:
    assert_type(here.join("channel", "ann", {"name": "Ann"}), list[Present[Visitor]])
    here.update("channel", {"name": "Ann B."})
    here.leave("channel")
    assert_type(here.list(), list[Present[Visitor]])
    assert_type(here.count(), int)
    assert_type(here.watch("channel"), list[Present[Visitor]])
    assert_type(layer.presence_join("room", "channel", "ann", None), list[Present[dict[str, Any]]])
    layer.presence_update("room", "channel", {"name": "Ann"})
    layer.presence_leave("room", "channel")
    assert_type(layer.presence_watch("room", "channel"), list[Present[dict[str, Any]]])
    assert_type(layer.presence_list("room"), list[Present[dict[str, Any]]])
    assert_type(layer.presence_count("room"), int)
    assert_type(layer.presence_groups("ann"), list[str])


class Resize(TypedDict):
    id: int
    width: NotRequired[int]


room: Group[ChatMessage] = Group("room")
jobs: Channel[Resize] = Channel("jobs", layer="other")
anything: Channel[dict[str, object]] = Channel("anything")


def sync_calls() -> None:
    layer = get_sync_channel_layer()
    assert_type(layer, SyncChannelLayer)
    assert_type(get_sync_channel_layer("other"), SyncChannelLayer)
    assert_type(get_sync_channel_layer(alias="other"), SyncChannelLayer)
    assert_type(layer.layer, BaseChannelLayer)

    message: ChatMessage = {"type": "chat.message", "text": "hi"}
    layer.send("channel", message)
    layer.send("channel", {"type": "job", "numbers": [1, 2.5, None, True], "raw": b"\x00"})
    layer.send_on_commit("channel", message)
    layer.send_on_commit("channel", message, using="other")
    layer.group_send("group", message)
    layer.group_send_on_commit("group", message, using="other")
    layer.group_add("group", "channel")
    layer.group_discard("group", "channel")

    assert_type(layer.receive("channel"), dict[str, Any])
    assert_type(layer.receive("channel", 5), dict[str, Any])
    assert_type(layer.receive("channel", timeout=0.5), dict[str, Any])
    assert_type(layer.receive("channel", timeout=None), dict[str, Any])
    assert_type(layer.listen("channel", "another"), Iterator[dict[str, Any]])
    assert_type(layer.new_channel(), str)
    assert_type(layer.new_channel(prefix="mine"), str)
    assert_type(layer.group_channels("group"), list[str])
    assert_type(layer.group_count("group"), int)
    layer.send("channel", message, expiry=5)
    layer.send_on_commit("channel", message, expiry=5, using="other")
    layer.send_many("channel", [message], expiry=5)
    layer.group_send("group", message, exclude="channel", expiry=5)
    layer.group_send_on_commit("group", message, exclude=["channel"], expiry=5)
    layer.group_send_many("group", [message], exclude={"channel"}, expiry=5)
    assert_type(layer.send_later("channel", message, delay=0.5, expiry=5), str)
    assert_type(layer.group_send_later("group", message, at=datetime.now(timezone.utc), exclude="a"), str)
    assert_type(layer.cancel("ticket"), bool)
    layer.flush()
    layer.close()


def handles() -> None:
    room.send({"type": "chat.message", "text": "hi"}, exclude="channel", expiry=5)
    room.send_many([{"type": "chat.message", "text": "hi"}], exclude={"channel"})
    room.send_on_commit({"type": "chat.message", "text": "hi"}, exclude=["channel"], expiry=5)
    assert_type(room.send_later({"type": "chat.message", "text": "hi"}, delay=5, exclude="channel"), str)
    assert_type(room.cancel("ticket"), bool)
    jobs.send({"id": 7}, expiry=0.5)
    jobs.send_many([{"id": 7}, {"id": 8, "width": 100}])
    assert_type(jobs.send_later({"id": 7}, at=datetime.now(timezone.utc), expiry=5), str)
    assert_type(jobs.cancel("ticket"), bool)
    room.send({"type": "chat.message", "text": "hi"})
    room.send_on_commit({"type": "chat.message", "text": "hi"})
    room.send_on_commit({"type": "chat.message", "text": "hi"}, using="other")
    room.add("channel")
    room.discard("channel")
    assert_type(room.channels(), list[str])
    assert_type(room.count(), int)
    assert_type(room.name, str)
    assert_type(room.layer, str)

    jobs.send({"id": 7})
    jobs.send({"id": 7, "width": 100})
    jobs.send_on_commit({"id": 7}, using="other")
    assert_type(jobs.receive(), Resize)
    assert_type(jobs.receive(5), Resize)
    assert_type(jobs.receive(timeout=5.0)["id"], int)
    assert_type(jobs.listen(), Iterator[Resize])
    for job in jobs.listen():
        assert_type(job, Resize)

    anything.send({"any": ["value"]})
    assert_type(anything.receive()["any"], object)
    assert_type(Channel[Resize]("jobs"), Channel[Resize])
    assert_type(Group[ChatMessage]("room", layer="other"), Group[ChatMessage])


async def async_handles() -> None:
    await room.asend({"type": "chat.message", "text": "hi"})
    await room.asend({"type": "chat.message", "text": "hi"}, exclude="channel", expiry=5)
    await room.asend_many([{"type": "chat.message", "text": "hi"}], exclude={"channel"})
    assert_type(await room.asend_later({"type": "chat.message", "text": "hi"}, delay=5, exclude="channel"), str)
    assert_type(await room.acancel("ticket"), bool)
    await jobs.asend_many([{"id": 7}], expiry=5)
    assert_type(await jobs.asend_later({"id": 7}, at=datetime.now(timezone.utc)), str)
    assert_type(await jobs.acancel("ticket"), bool)
    await room.aadd("channel")
    await room.adiscard("channel")
    assert_type(await room.achannels(), list[str])
    assert_type(await room.acount(), int)

    await jobs.asend({"id": 7})
    assert_type(await jobs.areceive(), Resize)
    assert_type(await jobs.areceive(timeout=5), Resize)
    assert_type(jobs.alisten(), AsyncIterator[Resize])
    async for job in jobs.alisten():
        assert_type(job["id"], int)


@task
def welcome(user: int, *, name: str = "") -> str:
    return f"{user} {name}"


@task(queue_name="mail", priority=10, max_attempts=5, backoff=30.0, retry_on=(OSError,))
async def count(users: list[int]) -> int:
    return len(users)


@task(takes_context=True)
def report(context: TaskContext, steps: int) -> None:
    assert_type(context.attempt, int)
    context.progress(1, steps, "begun")


@task(takes_context=True, queue_name="mail")
async def areport(context: TaskContext, steps: int) -> float:
    await context.aprogress(0.5, steps)
    return 0.5


@django_task
def plain(user: int) -> bytes:
    return b""


async def tasks() -> None:
    result = welcome.enqueue(7, name="Ann")
    assert_type(result.return_value, str)
    assert_type(wait(result, timeout=1.0).return_value, str)
    assert_type((await welcome.aenqueue(7)).return_value, str)
    assert_type((await await_result(await count.aenqueue([1]))).return_value, int)
    assert_type(count.using(unique="all", on_commit="other", priority=3).enqueue([1]).return_value, int)
    assert_type(report.enqueue(3).return_value, None)
    assert_type(areport.enqueue(steps=3).return_value, float)
    assert_type(wait(plain.enqueue(3)).return_value, bytes)
    assert_type([one.return_value for one in welcome.enqueue_many([((7,), {}), ((8,), {"name": "Ben"})])], list[str])
    assert_type(progress_of(result), Progress | None)
    welcome.enqueue_on_commit(7)
    assert_type([one.id for one in run_tasks()], list[str])
