"""Sending, further ways, by way of handles, transactions and layers of other packages."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, TypedDict

import pytest
from channels.exceptions import ChannelFull
from django.db import transaction
from pytest_django import DjangoDbBlocker

from channels_sqlite import Channel, Group, SyncChannelLayer
from channels_sqlite.layers import engine_of
from tests.conformance.backends import IN_MEMORY, REDIS
from tests.facade.configure import Configure, only_ours
from tests.facade.setup import facade_over
from tests.facade.steps import assert_nothing_comes, collect
from tests.facade.test_transactions import UndoneError, rolled_back
from tests.facade.threads import own_layer
from tests.processes.evidence import query
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.waiting import eventually


class Job(TypedDict):
    id: int


JOBS: Channel[Job] = Channel("jobs")
ROOM: Group[Job] = Group("room")
HOUR_S = 3600.0

others = pytest.mark.parametrize("backend", [IN_MEMORY, REDIS], indirect=True)


@pytest.fixture
def default(
    no_leaks: None, tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[ChannelDatabase]:
    """The database `default`, for transactions that are not on the layer's own."""
    folder = tmp_path_factory.mktemp("default")
    with channel_database(folder, alias="default", options={}, migrated=False) as database, django_db_blocker.unblock():
        yield database


# Handles


@only_ours
def test_handles_send_in_all_ways(facade: SyncChannelLayer, default: ChannelDatabase) -> None:
    for member in ("a", "b"):
        ROOM.add(member)
    JOBS.send({"id": 1}, expiry=HOUR_S)
    JOBS.send_many([{"id": 2}, {"id": 3}], expiry=HOUR_S)
    JOBS.send_on_commit({"id": 4}, expiry=HOUR_S)
    assert [JOBS.receive(5)["id"] for _ in range(4)] == [1, 2, 3, 4]
    ROOM.send({"id": 1}, exclude="a", expiry=HOUR_S)
    ROOM.send_many([{"id": 2}, {"id": 3}], exclude=["a"], expiry=HOUR_S)
    ROOM.send_on_commit({"id": 4}, exclude={"a"}, expiry=HOUR_S)
    assert collect(facade, "b", 4) == [{"id": n} for n in (1, 2, 3, 4)]
    assert_nothing_comes(facade, "a")
    for handle in (JOBS, ROOM):
        ticket = handle.send_later({"id": 5}, delay=HOUR_S, expiry=1)
        assert handle.cancel(ticket) is True
    ROOM.send_later({"id": 6}, delay=0, exclude="a")
    assert collect(facade, "b", 1) == [{"id": 6}]


@only_ours
async def test_handles_send_in_all_ways_asynchronously(facade: SyncChannelLayer) -> None:
    for member in ("a", "b"):
        await ROOM.aadd(member)
    await JOBS.asend({"id": 1}, expiry=HOUR_S)
    await JOBS.asend_many([{"id": 2}, {"id": 3}], expiry=HOUR_S)
    assert [(await JOBS.areceive(5))["id"] for _ in range(3)] == [1, 2, 3]
    await ROOM.asend({"id": 1}, exclude="a", expiry=HOUR_S)
    await ROOM.asend_many([{"id": 2}, {"id": 3}], exclude=["a"], expiry=HOUR_S)
    other: Channel[Job] = Channel("b")
    assert [(await other.areceive(5))["id"] for _ in range(3)] == [1, 2, 3]
    for handle in (JOBS, ROOM):
        ticket = await handle.asend_later({"id": 5}, delay=HOUR_S, expiry=1)
        assert await handle.acancel(ticket) is True
    await ROOM.asend_later({"id": 6}, delay=0, exclude="a")
    assert await other.areceive(5) == {"id": 6}


# Layers of other packages


LACKING: dict[str, Callable[[SyncChannelLayer], object]] = {
    "send": lambda facade: facade.send("jobs", {}, expiry=1),
    "send_on_commit": lambda facade: facade.send_on_commit("jobs", {}, expiry=1),
    "send_many": lambda facade: facade.send_many("jobs", [{}], expiry=1),
    "send_later": lambda facade: facade.send_later("jobs", {}, delay=1),
    "cancel": lambda facade: facade.cancel("1.0123456789abcdef"),
    "group_send": lambda facade: facade.group_send("room", {}, exclude="jobs"),
    "group_send_on_commit": lambda facade: facade.group_send_on_commit("room", {}, exclude="jobs"),
    "group_send_many": lambda facade: facade.group_send_many("room", [{}], expiry=1),
    "group_send_later": lambda facade: facade.group_send_later("room", {}, delay=1),
}
ASYNC_LACKING: dict[str, Callable[[], Any]] = {
    "send": lambda: JOBS.asend({"id": 1}, expiry=1),
    "send_many": lambda: JOBS.asend_many([{"id": 1}], expiry=1),
    "send_later": lambda: JOBS.asend_later({"id": 1}, delay=1),
    "cancel": lambda: ROOM.acancel("1.0123456789abcdef"),
    "group_send": lambda: ROOM.asend({"id": 1}, exclude="jobs"),
    "group_send_many": lambda: ROOM.asend_many([{"id": 1}], exclude="jobs"),
    "group_send_later": lambda: ROOM.asend_later({"id": 1}, delay=1),
}


@others
def test_what_only_ours_has_is_refused_with_its_name(facade: SyncChannelLayer) -> None:
    backend = type(facade.layer).__qualname__
    facade.group_add("room", "jobs")
    for method, call in LACKING.items():
        with pytest.raises(NotImplementedError, match=rf"^{method}\(.*{backend}"):
            call(facade)
    for method, acall in ASYNC_LACKING.items():
        with pytest.raises(NotImplementedError, match=rf"^{method}\(.*{backend}"):
            asyncio.run(acall())
    assert_nothing_comes(facade, "jobs")


@pytest.mark.parametrize("backend", [REDIS], indirect=True)
def test_group_channels_is_refused_with_its_name(facade: SyncChannelLayer) -> None:
    with pytest.raises(NotImplementedError, match=r"^group_channels\(.*RedisChannelLayer"):
        facade.group_channels("room")
    with pytest.raises(NotImplementedError, match=r"^group_channels\(.*RedisChannelLayer"):
        asyncio.run(ROOM.achannels())


def test_a_layer_that_cannot_tell_its_members_is_named() -> None:
    class Mute:
        async def send(self, channel: str, message: dict[str, Any]) -> None: ...

    layer: Any = Mute()
    with pytest.raises(NotImplementedError, match=r"^group_channels\(.*Mute"):
        SyncChannelLayer(layer).group_channels("room")


@others
def test_many_are_sent_one_by_one_over_others(configure: Configure) -> None:
    facade = configure(capacity=3)
    with pytest.raises(ChannelFull):
        facade.send_many("jobs", [{"id": n} for n in range(5)])
    assert collect(facade, "jobs", 3) == [{"id": n} for n in range(3)]
    with pytest.raises(TypeError, match=r"^messages\[1\]"):
        facade.send_many("jobs", [{"id": 1}, {"id": object()}])
    with pytest.raises(TypeError, match=r"^messages\[1\]"):
        asyncio.run(JOBS.asend_many([{"id": 1}, {"id": object()}]))  # type: ignore[typeddict-item]
    assert_nothing_comes(facade, "jobs")
    asyncio.run(JOBS.asend_many([{"id": 1}, {"id": 2}]))
    assert collect(facade, "jobs", 2) == [{"id": 1}, {"id": 2}]


# Transactions on the layer's own database


@pytest.fixture
def layer(no_leaks: None, database: ChannelDatabase, django_db_blocker: DjangoDbBlocker) -> Iterator[SyncChannelLayer]:
    with django_db_blocker.unblock(), facade_over(database, polling_interval=0.01) as layer:
        yield layer


def schedule(database: ChannelDatabase) -> list[tuple[Any, ...]]:
    return query(database, "SELECT name FROM channels_sqlite_scheduled ORDER BY id")


def test_what_is_scheduled_in_a_transaction_comes_and_goes_with_it(
    layer: SyncChannelLayer, database: ChannelDatabase
) -> None:
    with transaction.atomic(using="channels"):
        kept = layer.send_later("kept", {"n": 1}, delay=HOUR_S)
        with rolled_back(using="channels"):
            layer.send_later("inner", {"n": 1}, delay=HOUR_S)
        assert schedule(database) == []
    with rolled_back(using="channels"):
        layer.group_send_later("room", {"n": 1}, delay=HOUR_S)
    assert schedule(database) == [("kept",)]
    assert own_layer(layer).counters.scheduled == 1
    assert layer.cancel(kept) is True


def test_what_is_scheduled_in_a_transaction_is_sent(layer: SyncChannelLayer) -> None:
    with transaction.atomic(using="channels"):
        layer.send_later("jobs", {"n": 1}, delay=0)
    assert layer.receive("jobs", timeout=10) == {"n": 1}


def test_a_cancel_that_is_rolled_back_does_not_count(layer: SyncChannelLayer, database: ChannelDatabase) -> None:
    ticket = layer.send_later("jobs", {"n": 1}, delay=HOUR_S)
    with rolled_back(using="channels"):
        assert layer.cancel(ticket) is True
        assert layer.cancel(ticket) is False
    assert schedule(database) == [("jobs",)]
    assert own_layer(layer).counters.cancelled == 0
    assert layer.cancel(ticket) is True
    assert own_layer(layer).counters.cancelled == 1


def test_many_join_a_transaction(layer: SyncChannelLayer) -> None:
    layer.group_add("room", "jobs")
    with rolled_back(using="channels"):
        layer.send_many("jobs", [{"n": 1}, {"n": 2}])
        layer.group_send_many("room", [{"n": 3}])
    assert_nothing_comes(layer, "jobs")
    with transaction.atomic(using="channels"):
        layer.send_many("jobs", [{"n": 1}, {"n": 2}])
        layer.group_send_many("room", [{"n": 3}])
    assert collect(layer, "jobs", 3) == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_on_commit_takes_expiry_and_exclude(
    default: ChannelDatabase, layer: SyncChannelLayer, database: ChannelDatabase
) -> None:
    for member in ("a", "b"):
        layer.group_add("room", member)
    with transaction.atomic():
        layer.send_on_commit("a", {"n": 1}, expiry=HOUR_S)
        layer.group_send_on_commit("room", {"n": 2}, exclude="a", expiry=2 * HOUR_S)
        for wrong in ({"expiry": 0}, {"expiry": -1.5}):
            with pytest.raises(ValueError, match="expiry"):
                layer.send_on_commit("a", {}, **wrong)
        with pytest.raises(TypeError):
            layer.group_send_on_commit("room", {}, exclude="no name")
    rows = query(database, "SELECT queue, round(expires_at - created_at) FROM channels_sqlite_message ORDER BY id")
    assert rows == [("a", HOUR_S), ("b", 2 * HOUR_S)]
    try:
        with transaction.atomic():
            layer.send_on_commit("a", {"n": 3}, expiry=HOUR_S)
            raise UndoneError
    except UndoneError:
        pass
    assert collect(layer, "a", 1) == [{"n": 1}]
    assert_nothing_comes(layer, "a")


def test_a_process_that_only_sends_looks_as_well(layer: SyncChannelLayer, database: ChannelDatabase) -> None:
    """Nobody receives; whoever has the layer open sends what is due."""
    layer.send_later("jobs", {"n": 1}, delay=0.1)
    eventually(lambda: schedule(database) == [], 10)
    assert engine_of(own_layer(layer)).can_receive() is False
