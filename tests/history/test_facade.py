"""Histories without an event loop, over handles, inside transactions, and over other layers."""

import copy
import dataclasses
import pickle
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypedDict

import pytest
from django.db import transaction
from django.test import override_settings

from channels_sqlite import Group, History, HistoryEntry, SyncChannelLayer, get_sync_channel_layer
from tests.facade.setup import facade_over
from tests.history.conftest import HISTORY
from tests.support.databases import ChannelDatabase


class Chat(TypedDict):
    type: Literal["chat"]
    n: int


@pytest.fixture
def facade(no_leaks: None, database: ChannelDatabase) -> Iterator[SyncChannelLayer]:
    with facade_over(database, history=HISTORY) as facade:
        yield facade


def numbers(history: History[Any]) -> list[int]:
    return [entry.message["n"] for entry in history.entries]


def test_the_facade_reads_and_subscribes(facade: SyncChannelLayer) -> None:
    channel = facade.new_channel()
    start = facade.group_history("room")
    facade.group_send("room", {"type": "chat", "n": 1})
    facade.group_send_many("room", [{"type": "chat", "n": 2}, {"type": "chat", "n": 3}])
    facade.group_send("room", {"type": "typing", "n": 4}, history=False)
    history = facade.group_subscribe("room", channel, since=start.position)
    assert (numbers(history), history.recovered) == ([1, 2, 3], True)
    facade.group_send("room", {"type": "chat", "n": 5})
    live = facade.receive(channel, timeout=10)
    assert live["n"] == 5
    assert numbers(facade.group_history("room", last=2)) == [3, 5]
    assert facade.group_history("room", since=live["__position__"]).entries == []
    again = facade.group_subscribe("room", channel, since="nonsense")
    assert (numbers(again), again.recovered) == ([1, 2, 3, 5], False)


def test_a_thread_withdraws_what_waits(facade: SyncChannelLayer) -> None:
    channel = facade.new_channel()
    start = facade.group_subscribe("room", channel)
    for number in (1, 2, 3):
        facade.group_send("room", {"type": "chat", "n": number})
    assert numbers(facade.group_subscribe("room", channel, since=start.position)) == [1, 2, 3]
    facade.send(channel, {"type": "mark"})
    assert facade.receive(channel, timeout=10) == {"type": "mark"}


def test_handles_read_and_subscribe(facade: SyncChannelLayer) -> None:
    room: Group[Chat] = Group("room")
    channel = facade.new_channel()
    room.send({"type": "chat", "n": 1})
    room.send({"type": "chat", "n": 2}, history=False)
    room.send_many([{"type": "chat", "n": 3}])
    room.send_many([{"type": "chat", "n": 4}], history=False)
    start = room.history()
    assert numbers(room.history(last=5)) == [1, 3]
    room.send({"type": "chat", "n": 5})
    assert numbers(room.subscribe(channel, since=start.position)) == [5]
    assert room.channels() == [channel]


async def test_handles_read_and_subscribe_on_event_loops(facade: SyncChannelLayer) -> None:
    room: Group[Chat] = Group("room")
    channel = await facade.layer.new_channel()
    await room.asend({"type": "chat", "n": 1})
    await room.asend({"type": "chat", "n": 2}, history=False)
    await room.asend_many([{"type": "chat", "n": 3}])
    await room.asend_many([{"type": "chat", "n": 4}], history=False)
    start = await room.ahistory()
    assert numbers(await room.ahistory(last=5)) == [1, 3]
    await room.asend({"type": "chat", "n": 5})
    assert numbers(await room.asubscribe(channel, since=start.position)) == [5]
    assert await room.achannels() == [channel]


@pytest.mark.django_db(databases=["default"])
def test_what_is_sent_on_commit_is_kept_or_not(facade: SyncChannelLayer) -> None:
    facade.group_send_on_commit("room", {"type": "chat", "n": 1})
    facade.group_send_on_commit("room", {"type": "typing", "n": 2}, history=False)
    facade.group_send_later("room", {"type": "chat", "n": 3}, delay=3600, history=False)


@pytest.mark.django_db(databases=["channels"], transaction=True)
def test_a_transaction_on_the_layers_own_database_takes_it_in(facade: SyncChannelLayer) -> None:
    channel = facade.new_channel()
    facade.group_send("room", {"type": "chat", "n": 1})
    start = facade.group_history("room")
    with transaction.atomic(using="channels"):
        facade.group_send("room", {"type": "chat", "n": 2})
        inside = facade.group_subscribe("room", channel, since=start.position)
        assert (numbers(inside), inside.recovered) == ([2], True)
        assert numbers(facade.group_history("room", last=5)) == [1, 2]
        facade.group_send("room", {"type": "chat", "n": 3})
    assert facade.receive(channel, timeout=10)["n"] == 3
    with transaction.atomic(using="channels"):
        facade.group_send("room", {"type": "chat", "n": 4})
        facade.group_subscribe("room", "jobs", last=1)
        transaction.set_rollback(True, using="channels")
    history = facade.group_history("room", since=start.position)
    assert (numbers(history), history.recovered) == ([2, 3], True)
    assert facade.group_channels("room") == [channel]


@pytest.mark.django_db(databases=["channels"], transaction=True)
def test_an_epoch_that_begins_in_a_transaction_that_fails_is_none(facade: SyncChannelLayer) -> None:
    with transaction.atomic(using="channels"):
        facade.group_send("room", {"type": "chat", "n": 1})
        lost = facade.group_history("room")
        transaction.set_rollback(True, using="channels")
    facade.group_send("room", {"type": "chat", "n": 2})
    history = facade.group_history("room", since=lost.position)
    assert (numbers(history), history.recovered) == ([2], False)


@pytest.fixture
def in_memory(no_leaks: None) -> Iterator[str]:
    """Channels' own layer is the default one; the name of its class."""
    backend = "channels.layers.InMemoryChannelLayer"
    with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend}}):
        yield backend


def test_over_another_layer_there_is_none(in_memory: str) -> None:
    facade = get_sync_channel_layer()
    room: Group[Chat] = Group("room")
    for call in (
        lambda: facade.group_subscribe("room", "channel"),
        lambda: facade.group_history("room"),
        lambda: room.subscribe("channel", last=1),
        lambda: room.history(since="x"),
    ):
        with pytest.raises(NotImplementedError, match=rf"group_(subscribe|history).*{in_memory}"):
            call()
    with pytest.raises(ValueError, match="__position__"):
        facade.group_send("room", {"__position__": 1})


async def test_over_another_layer_there_is_none_on_event_loops_and_nothing_to_keep(in_memory: str) -> None:
    room: Group[Chat] = Group("room")
    with pytest.raises(NotImplementedError, match=rf"group_subscribe.*{in_memory}"):
        await room.asubscribe("channel")
    with pytest.raises(NotImplementedError, match=rf"group_history.*{in_memory}"):
        await room.ahistory()
    await room.aadd("channel")
    await room.asend({"type": "chat", "n": 1}, history=False)
    assert await get_sync_channel_layer().layer.receive("channel") == {"type": "chat", "n": 1}


# The classes


def test_histories_are_frozen_and_have_slots() -> None:
    entry = HistoryEntry("position", 1.5, {"type": "chat"})
    history = History([entry], "later", True)
    for one in (entry, history):
        assert not hasattr(one, "__dict__")
        for field in dataclasses.fields(one):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, field.name, None)
        assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    assert [field.name for field in dataclasses.fields(HistoryEntry)] == ["position", "sent_at", "message"]
    assert [field.name for field in dataclasses.fields(History)] == ["entries", "position", "recovered"]
    assert typing.get_args(History[Chat]) == (Chat,)
