"""User code that mypy and pyright refuse. Never run.

`test_typing.py` compares what they say with the comments: mypy's codes, a bar, and Pyright's rules
(none where Pyright makes do with what it can infer).
"""

from typing import Literal, TypedDict

from django.http import HttpRequest, HttpResponseRedirect

from channels_sqlite import Channel, Group, Presence, get_channel_layer, get_sync_channel_layer
from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.sse import event_stream
from channels_sqlite.tasks import TaskContext, task, wait


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


async def wrong_histories(layer: SqliteChannelLayer, group: Group[ChatMessage]) -> None:
    await layer.group_history("group", last="20")  # expect: arg-type | reportArgumentType
    await layer.group_subscribe("group")  # expect: call-arg | reportCallIssue
    await layer.group_send("group", {}, history=0)  # expect: arg-type | reportArgumentType
    history = await group.ahistory(last=1)
    history.recovered = True  # expect: misc | reportAttributeAccessIssue
    history.entries[0].message["texts"]  # expect: typeddict-item | reportGeneralTypeIssues


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


def wrong_event_streams(request: HttpRequest) -> HttpResponseRedirect:
    def count(message: ChatMessage) -> int:
        return len(message["text"])

    event_stream("room")  # expect: arg-type | reportArgumentType
    event_stream(request, 7)  # expect: arg-type | reportArgumentType
    event_stream(request, ["room"])  # expect: arg-type | reportArgumentType
    event_stream(request, "room", last="20")  # expect: arg-type | reportArgumentType
    event_stream(request, "room", heartbeat=None)  # expect: arg-type | reportArgumentType
    event_stream(request, "room", encode=count)  # expect: arg-type | reportArgumentType
    event_stream(request, "room", since="5")  # expect: call-arg | reportCallIssue
    return event_stream(request, "room")  # expect: return-value | reportReturnType


def wrong_aliases() -> None:
    get_channel_layer(7)  # expect: arg-type | reportArgumentType
    get_channel_layer(None)  # expect: arg-type | reportArgumentType
    get_channel_layer(name="default")  # expect: call-arg | reportCallIssue


async def wrong_results(layer: SqliteChannelLayer) -> None:
    text: str = await layer.receive("channel")  # expect: assignment | reportAssignmentType
    names: list[int] = await layer.group_channels("group")  # expect: assignment | reportAssignmentType
    layer.sendd("channel", {"text": text, "names": names})  # expect: attr-defined | reportAttributeAccessIssue


room: Group[ChatMessage] = Group("room")
jobs: Channel[Job] = Channel("jobs")


async def forgotten_awaits_of_handles(message: ChatMessage) -> object:
    room.asend(message)  # expect: unused-coroutine | reportUnusedCoroutine
    room.aadd("channel")  # expect: unused-coroutine | reportUnusedCoroutine
    room.adiscard("channel")  # expect: unused-coroutine | reportUnusedCoroutine
    jobs.asend({"id": 7})  # expect: unused-coroutine | reportUnusedCoroutine
    jobs.areceive()["id"]  # expect: index | reportIndexIssue
    members: list[str] = room.achannels()  # expect: assignment | reportAssignmentType
    number: int = room.acount()  # expect: assignment | reportAssignmentType
    for job in jobs.alisten():  # expect: attr-defined | reportGeneralTypeIssues
        return [job, members, number]
    return None


async def awaits_of_sync_handles(message: ChatMessage) -> None:
    await room.send(message)  # expect: misc func-returns-value | reportGeneralTypeIssues
    await jobs.receive()  # expect: misc | reportGeneralTypeIssues


def wrong_messages_to_handles(job: Job, message: ChatMessage) -> None:
    room.send({"type": "chat.message", "txet": ""})  # expect: typeddict-item typeddict-unknown-key | reportArgumentType
    room.send({"type": "chat.message", "text": 1})  # expect: typeddict-item | reportArgumentType
    room.send({"type": "chat.message"})  # expect: typeddict-item | reportArgumentType
    room.send({"type": "chat.massage", "text": "hi"})  # expect: typeddict-item | reportArgumentType
    room.send({"type": "chat.message", "text": "hi", "more": 1})  # expect: typeddict-unknown-key | reportArgumentType
    room.send(job)  # expect: arg-type | reportArgumentType
    room.send("hi")  # expect: arg-type | reportArgumentType
    room.send_on_commit({"type": "chat.message"})  # expect: typeddict-item | reportArgumentType
    jobs.send(message)  # expect: arg-type | reportArgumentType
    jobs.send({"id": "7"})  # expect: typeddict-item | reportArgumentType
    jobs.send({})  # expect: typeddict-item | reportArgumentType
    jobs.send_on_commit({"di": 7})  # expect: typeddict-item typeddict-unknown-key | reportArgumentType
    jobs.send_on_commit(job, "other")  # expect: call-arg arg-type | reportCallIssue


async def wrong_messages_to_async_handles(job: Job) -> None:
    await jobs.asend({"di": 7})  # expect: typeddict-item typeddict-unknown-key | reportArgumentType
    await room.asend(job)  # expect: arg-type | reportArgumentType
    await jobs.asend({"id": None})  # expect: typeddict-item | reportArgumentType


def wrong_results_of_handles() -> object:
    message: ChatMessage = jobs.receive()  # expect: assignment | reportAssignmentType
    jobs.receive()["di"]  # expect: typeddict-item | reportGeneralTypeIssues
    text: str = jobs.receive(timeout=1)["id"]  # expect: assignment | reportAssignmentType
    jobs.receive(timeout="5")  # expect: arg-type | reportArgumentType
    for job in jobs.listen():
        wrong: ChatMessage = job  # expect: assignment | reportAssignmentType
        return [message, text, wrong]
    return None


def wrong_handles() -> object:
    untyped = Group("room")  # expect: var-annotated |
    numbers: Channel[int] = Channel("numbers")  # expect: type-var | reportInvalidTypeArguments
    swapped: Group[ChatMessage] = Channel("room")  # expect: assignment | reportAssignmentType
    by_number: Channel[Job] = Channel(7)  # expect: arg-type | reportArgumentType
    room.name = "other"  # expect: misc | reportAttributeAccessIssue
    room.receive()  # expect: attr-defined | reportAttributeAccessIssue
    jobs.add("channel")  # expect: attr-defined | reportAttributeAccessIssue
    room.add(7)  # expect: arg-type | reportArgumentType
    return [untyped, numbers, swapped, by_number]


def wrong_calls_of_the_facade(message: ChatMessage) -> int:
    layer = get_sync_channel_layer()
    layer.send("channel", "text")  # expect: arg-type | reportArgumentType
    layer.group_send("group", {1: "text"})  # expect: dict-item | reportArgumentType
    layer.send(b"channel", message)  # expect: arg-type | reportArgumentType
    layer.receive("channel", timeout="5")  # expect: arg-type | reportArgumentType
    layer.listen(["one", "two"])  # expect: arg-type | reportArgumentType
    layer.send_on_commit("channel", message, "default")  # expect: call-arg arg-type | reportCallIssue
    number: int = layer.receive("channel")  # expect: assignment | reportAssignmentType
    get_sync_channel_layer(None)  # expect: arg-type | reportArgumentType
    return number


@task
def welcome(user: int, name: str = "") -> str:
    return f"{user} {name}"


@task(takes_context=True)
async def report(context: TaskContext, steps: int) -> int:
    context.aprogress(1, steps)  # expect: unused-coroutine | reportUnusedCoroutine
    context.progress("1", steps)  # expect: arg-type | reportArgumentType
    return steps


@task(retry_on=OSError)  # expect: call-overload untyped-decorator | reportArgumentType
def unsteady() -> None: ...


async def wrong_tasks() -> None:
    welcome.enqueue("7")  # expect: arg-type | reportArgumentType
    welcome.enqueue()  # expect: call-arg | reportCallIssue
    welcome.enqueue(7, nmae="Ann")  # expect: call-arg | reportCallIssue
    welcome.enqueue_on_commit("7")  # expect: arg-type | reportArgumentType
    welcome.aenqueue(7)  # expect: unused-coroutine | reportUnusedCoroutine
    report.enqueue("3")  # expect: arg-type | reportArgumentType
    welcome.using(uniqe="x")  # expect: call-arg | reportCallIssue
    number: int = wait(welcome.enqueue(7)).return_value  # expect: assignment | reportAssignmentType
    welcome.enqueue_many([(number, {})])  # expect: list-item | reportArgumentType


async def wrong_further_ways(layer: SqliteChannelLayer, message: ChatMessage) -> None:
    layer.send_many("channel", [message])  # expect: unused-coroutine | reportUnusedCoroutine
    layer.group_send_later("group", message, delay=1)  # expect: unused-coroutine | reportUnusedCoroutine
    room.asend_many([message])  # expect: unused-coroutine | reportUnusedCoroutine
    await layer.send("channel", message, 5)  # expect: call-arg | reportCallIssue
    await layer.send("channel", message, expiry="5")  # expect: arg-type | reportArgumentType
    await layer.send("channel", message, exclude="a")  # expect: call-arg | reportCallIssue
    await layer.group_send("group", message, exclude=7)  # expect: arg-type | reportArgumentType
    await layer.send_many("channel", message)  # expect: arg-type | reportArgumentType
    await layer.send_later("channel", message, at="2050-01-01")  # expect: arg-type | reportArgumentType
    await layer.send_later("channel", message, at=5)  # expect: arg-type | reportArgumentType
    await layer.cancel(7)  # expect: arg-type | reportArgumentType


def wrong_further_ways_of_handles(message: ChatMessage) -> None:
    jobs.send_many([{"di": 7}])  # expect: typeddict-item typeddict-unknown-key | reportArgumentType
    jobs.send_many({"id": 7})  # expect: arg-type | reportArgumentType
    jobs.send({"id": 7}, exclude="a")  # expect: call-arg | reportCallIssue
    room.send_many([{"id": 7}])  # expect: typeddict-item typeddict-unknown-key | reportArgumentType
    room.send_later(message, delay="soon")  # expect: arg-type | reportArgumentType
    ticket: int = jobs.send_later({"id": 7}, delay=1)  # expect: assignment | reportAssignmentType
    room.cancel(ticket)  # expect: arg-type | reportArgumentType


class Visitor(TypedDict):
    name: str


here: Presence[Visitor] = Presence("room")


async def wrong_presence(layer: SqliteChannelLayer) -> object:
    here.ajoin("channel", "ann")  # expect: unused-coroutine | reportUnusedCoroutine
    here.aleave("channel")  # expect: unused-coroutine | reportUnusedCoroutine
    layer.presence_watch("room", "channel")  # expect: unused-coroutine | reportUnusedCoroutine
    await here.aupdate("channel", {"nmae": ""})  # expect: arg-type | reportArgumentType
    await here.ajoin("channel", "ann", {"name": None})  # expect: arg-type | reportArgumentType
    await here.ajoin("channel", 7)  # expect: arg-type | reportArgumentType
    await here.ajoin("channel")  # expect: call-arg | reportCallIssue
    await here.aupdate("channel", {"name": 7})  # expect: arg-type | reportArgumentType
    here.join("channel", "ann", "Ann")  # expect: arg-type | reportArgumentType
    here.send({"name": "Ann"})  # expect: attr-defined | reportAttributeAccessIssue
    for one in here.list():
        one.key = "bob"  # expect: misc | reportAttributeAccessIssue
        number: int = one.info["name"]  # expect: assignment | reportAssignmentType
        return number
    numbers: Presence[int] = Presence("room")  # expect: type-var | reportInvalidTypeArguments
    await layer.presence_join("room", "channel", "ann", ["Ann"])  # expect: arg-type | reportArgumentType
    await layer.presence_groups(None)  # expect: arg-type | reportArgumentType
    return numbers
