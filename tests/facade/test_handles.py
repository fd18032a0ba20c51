"""Typed handles over any layer: what they do; `tests/typing` has what type checkers make of them."""

import asyncio
from typing import Any, Literal, TypedDict

import pytest
from channels.exceptions import ChannelFull
from django.core.exceptions import ImproperlyConfigured

from channels_sqlite import Channel, Group, SyncChannelLayer
from channels_sqlite.layers import engine_of
from tests.conformance.differences import Difference, differs
from tests.facade.configure import Configure, only_ours
from tests.facade.steps import assert_nothing_comes, collect, let_go
from tests.facade.threads import DEADLINE_S, Threads, own_layer, until_waiting
from tests.support.waiting import aeventually


class Job(TypedDict):
    id: int


class ChatMessage(TypedDict):
    type: Literal["chat.message"]
    text: str


# At import time, as users have them: nothing is looked up yet.
JOBS: Channel[Job] = Channel("jobs")
ROOM: Group[ChatMessage] = Group("room")
ELSEWHERE: Channel[Job] = Channel("jobs", layer="other")
HI: ChatMessage = {"type": "chat.message", "text": "hi"}


def test_channel_sends_and_receives(facade: SyncChannelLayer) -> None:
    JOBS.send({"id": 1})
    facade.send("jobs", {"id": 2})
    assert JOBS.receive(timeout=DEADLINE_S) == {"id": 1}
    assert JOBS.receive(DEADLINE_S) == {"id": 2}
    with pytest.raises(TimeoutError, match="jobs"):
        JOBS.receive(timeout=0)
    JOBS.send({"id": 3})
    assert collect(facade, "jobs", 1) == [{"id": 3}]


def test_channel_listens(facade: SyncChannelLayer) -> None:
    for number in range(3):
        JOBS.send({"id": number})
    received = []
    for job in JOBS.listen():
        received.append(job["id"])
        if len(received) == 3:
            break
    assert received == [0, 1, 2]


async def test_channel_sends_and_receives_asynchronously(facade: SyncChannelLayer) -> None:
    await JOBS.asend({"id": 1})
    assert await JOBS.areceive(timeout=DEADLINE_S) == {"id": 1}
    with pytest.raises(TimeoutError, match="jobs"):
        await JOBS.areceive(timeout=0.1)
    waiting = asyncio.ensure_future(JOBS.areceive())
    await JOBS.asend({"id": 2})
    assert await asyncio.wait_for(waiting, DEADLINE_S) == {"id": 2}
    for number in range(3):
        await JOBS.asend({"id": number})
    received = []
    async for job in JOBS.alisten():
        received.append(job["id"])
        if len(received) == 3:
            break
    assert received == [0, 1, 2]
    await let_go(facade)


@only_ours
async def test_alisten_ends_when_the_layer_is_closed(facade: SyncChannelLayer) -> None:
    async def listen() -> list[Job]:
        return [job async for job in JOBS.alisten()]

    await JOBS.asend({"id": 1})
    listening = asyncio.ensure_future(listen())
    layer = own_layer(facade)
    await aeventually(
        lambda: engine_of(layer).watches.of(asyncio.get_running_loop()).waiting, DEADLINE_S, what="it waits for another"
    )
    await layer.close()
    assert await asyncio.wait_for(listening, DEADLINE_S) == [{"id": 1}]


def test_group_reaches_its_members(facade: SyncChannelLayer) -> None:
    members = ["member", facade.new_channel()]
    for member in members:
        ROOM.add(member)
    ROOM.add("leaves")
    ROOM.discard("leaves")
    ROOM.send(HI)
    facade.group_send("room", {"n": 2})
    for member in members:
        assert collect(facade, member, 2) == [HI, {"n": 2}]
    assert_nothing_comes(facade, "leaves")


async def test_group_reaches_its_members_asynchronously(facade: SyncChannelLayer) -> None:
    member: Channel[ChatMessage] = Channel("member")
    await ROOM.aadd("member")
    await ROOM.aadd("leaves")
    await ROOM.adiscard("leaves")
    await ROOM.asend(HI)
    assert await member.areceive(DEADLINE_S) == HI
    with pytest.raises(TimeoutError):
        await Channel[ChatMessage]("leaves").areceive(0.1)
    await let_go(facade)


@differs(Difference.GROUP_MEMBERS_ARE_KNOWN)
def test_group_knows_its_members(facade: SyncChannelLayer) -> None:
    for member in ("b", "a", "c"):
        ROOM.add(member)
    assert ROOM.channels() == ["a", "b", "c"]
    assert ROOM.count() == 3
    assert asyncio.run(ROOM.achannels()) == ["a", "b", "c"]
    assert asyncio.run(ROOM.acount()) == 3


def test_both_forms_check_alike(configure: Configure) -> None:
    configure(capacity=1)
    bad: Any = {"id": {1, 2}}
    for send in (JOBS.send, JOBS.send_on_commit, ROOM.send, ROOM.send_on_commit):
        with pytest.raises(TypeError, match=r"\['id'\].*set"):
            send(bad)
    for asend in (JOBS.asend, ROOM.asend):
        with pytest.raises(TypeError, match=r"\['id'\].*set"):
            asyncio.run(asend(bad))
    JOBS.send({"id": 1})
    with pytest.raises(ChannelFull):
        JOBS.send({"id": 2})
    with pytest.raises(ChannelFull):
        asyncio.run(JOBS.asend({"id": 2}))


def test_handle_uses_the_layer_that_it_names(configure: Configure) -> None:
    configure()
    with pytest.raises(ImproperlyConfigured, match="'other'"):
        ELSEWHERE.send({"id": 1})
    with pytest.raises(ImproperlyConfigured, match="'other'"):
        asyncio.run(ELSEWHERE.asend({"id": 1}))
    other = configure("other")
    ELSEWHERE.send({"id": 2})
    assert collect(other, "jobs", 1) == [{"id": 2}]


def test_handles_are_values() -> None:
    assert Channel("jobs") == JOBS
    assert {Channel("jobs"), JOBS, Channel("jobs", "other"), ELSEWHERE} == {JOBS, ELSEWHERE}
    assert repr(JOBS) == "Channel(name='jobs', layer='default')"
    same_name: object = Group("jobs")
    assert same_name != JOBS
    with pytest.raises(AttributeError):
        JOBS.name = "others"  # type: ignore[misc]


@only_ours
def test_handle_waits_for_what_another_thread_sends(facade: SyncChannelLayer, threads: Threads) -> None:
    waiting = threads.start(JOBS.receive)
    until_waiting(facade)
    JOBS.send({"id": 1})
    assert waiting.result(DEADLINE_S) == {"id": 1}
