"""Joining and reading are one decision: a message is read or arrives live, never both and never neither."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from channels_sqlite.delivery import log
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.storage.transactions import Transaction
from tests.history.conftest import KeepingFactory
from tests.history.test_reading import send, texts
from tests.support import inside
from tests.support.locks import held_elsewhere
from tests.support.waiting import aeventually


async def drain(layer: SqliteChannelLayer, channel: str) -> list[Any]:
    """What waits on a channel, up to a mark that is sent to it now."""
    await layer.send(channel, {"type": "mark"})
    received: list[Any] = []
    while True:
        message = await asyncio.wait_for(layer.receive(channel), 10)
        if message["type"] == "mark":
            return received
        received.append(message["n"])


async def test_what_was_sent_before_is_read_and_what_comes_after_arrives(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    start = (await keeping.group_history("room")).position
    await send(keeping, 1, 2)
    history = await keeping.group_subscribe("room", channel, since=start)
    await send(keeping, 3, 4)
    assert texts(history) == [1, 2]
    assert await drain(keeping, channel) == [3, 4]
    assert await keeping.group_channels("room") == [channel]


async def test_the_position_of_the_reading_is_the_seam(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await send(keeping, 1)
    history = await keeping.group_subscribe("room", channel, last=10)
    await send(keeping, 2)
    assert texts(await keeping.group_history("room", since=history.position)) == [2]


async def test_what_waits_at_a_member_is_withdrawn_if_it_is_read(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    start = await keeping.group_subscribe("room", channel)
    await send(keeping, 1, 2, 3)
    history = await keeping.group_subscribe("room", channel, since=start.position)
    await send(keeping, 4)
    assert texts(history) == [1, 2, 3]
    assert await drain(keeping, channel) == [4]


async def test_what_waits_at_a_member_and_is_not_read_still_arrives(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("room", channel)
    await send(keeping, 1, 2)
    middle = (await keeping.group_history("room")).position
    await send(keeping, 3, 4)
    history = await keeping.group_subscribe("room", channel, since=middle)
    assert texts(history) == [3, 4]
    assert await drain(keeping, channel) == [1, 2]
    await send(keeping, 5, 6)
    history = await keeping.group_subscribe("room", channel)
    assert history.entries == []
    assert await drain(keeping, channel) == [5, 6]


async def test_what_was_received_before_may_come_again_unless_since_is_past_it(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("room", channel)
    await send(keeping, 1, 2, 3)
    first = await keeping.receive(channel)
    history = await keeping.group_subscribe("room", channel, since=first["__position__"])
    assert texts(history) == [2, 3]
    assert await drain(keeping, channel) == []


async def test_only_messages_of_that_group_that_are_kept_are_withdrawn(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    for group in ("room", "room.2", "news"):
        await keeping.group_add(group, channel)
    await send(keeping, 1)
    await send(keeping, 2, group="room.2")
    await send(keeping, 3, group="news")
    await keeping.group_send("room", {"type": "typing", "n": 4}, history=False)
    await keeping.send(channel, {"type": "own", "n": 5})
    history = await keeping.group_subscribe("room", channel, last=10)
    assert texts(history) == [1]
    assert await drain(keeping, channel) == [2, 3, 4, 5]


async def test_a_channel_that_had_left_gets_nothing_twice(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("room", channel)
    await send(keeping, 1, 2)
    await keeping.group_discard("room", channel)
    await send(keeping, 3)
    history = await keeping.group_subscribe("room", channel, last=10)
    assert texts(history) == [1, 2, 3]
    assert await drain(keeping, channel) == []


async def test_other_members_keep_what_one_withdraws(keeping: SqliteChannelLayer) -> None:
    one, other = await keeping.new_channel(), await keeping.new_channel()
    for channel in (one, other):
        await keeping.group_add("room", channel)
    await send(keeping, 1, 2)
    await keeping.group_subscribe("room", one, last=10)
    assert await drain(keeping, one) == []
    assert await drain(keeping, other) == [1, 2]


async def test_capacity_counts_what_was_withdrawn_no_more(make_keeping: KeepingFactory) -> None:
    layer = make_keeping(capacity=3)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await send(layer, 1, 2, 3)
    await layer.group_subscribe("room", channel, last=10)
    await send(layer, 4, 5, 6)
    received = [await asyncio.wait_for(layer.receive(channel), 10) for _ in range(3)]
    assert [message["n"] for message in received] == [4, 5, 6]


async def test_a_normal_channel_keeps_its_own_rows(keeping: SqliteChannelLayer) -> None:
    await keeping.group_add("room", "jobs")
    await send(keeping, 1)
    history = await keeping.group_subscribe("room", "jobs", last=10)
    assert texts(history) == [1]
    await send(keeping, 2)
    received = [await asyncio.wait_for(keeping.receive("jobs"), 10) for _ in range(2)]
    assert [message["n"] for message in received] == [1, 2]


async def test_what_was_not_read_from_the_log_yet_is_withdrawn_as_well(make_keeping: KeepingFactory) -> None:
    layer, other = make_keeping(), make_keeping()
    channel = await layer.new_channel()
    start = await layer.group_subscribe("room", channel)
    engine = engine_of(layer)
    with held_elsewhere([engine.database.reading]):  # another thread reads, and is suspended
        await send(other, 1, 2)
        subscribing = asyncio.create_task(layer.group_subscribe("room", channel, since=start.position))
        # The event loop does not wait for the turn: the thread does, in its transaction.
        await aeventually(lambda: inside.is_waiting_for_the_lock(engine.outbox) and engine.database.writing.locked())
        assert engine.inbox.boxes.find(channel) is None, "nothing has arrived"
    assert texts(await asyncio.wait_for(subscribing, 10)) == [1, 2]
    await send(other, 3)
    assert await drain(layer, channel) == [3]


async def test_a_broadcast_that_has_not_reached_all_members_is_withdrawn_from_the_rest(
    keeping: SqliteChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STEP_DELIVERIES", 1)  # one member in each iteration of the event loop
    channels = [await keeping.new_channel() for _ in range(50)]
    for channel in channels:
        await keeping.group_add("room", channel)
    engine = engine_of(keeping)
    await send(keeping, 1)
    while not inside.is_spreading(engine.inbox):  # noqa: ASYNC110  # one iteration of the loop at a time
        await asyncio.sleep(0)
    last = channels[-1]
    history = await keeping.group_subscribe("room", last, last=10)
    assert texts(history) == [1]
    assert await drain(keeping, last) == []
    assert [await drain(keeping, channel) for channel in channels[:-1]] == [[1]] * 49


async def test_what_is_withdrawn_comes_back_when_the_transaction_fails(make_keeping: KeepingFactory) -> None:
    layer, other = make_keeping(), make_keeping()
    channel = await layer.new_channel()
    start = await layer.group_subscribe("room", channel)
    engine = engine_of(layer)
    await send(layer, 1, 2)
    with held_elsewhere([engine.database.reading]):
        await send(other, 3)  # not read from the log yet
    subscribe = engine.histories.subscribe(engine.histories.ask("room", start.position, None), channel)
    read: list[object] = []

    def subscribe_and_fail(transaction: Transaction) -> None:
        read.extend(row.payload for row in subscribe(transaction).rows)
        raise KeyboardInterrupt  # as Ctrl-C right before the commit

    with ThreadPoolExecutor(1) as thread, pytest.raises(KeyboardInterrupt):
        await asyncio.wrap_future(thread.submit(inside.attempt, engine, subscribe_and_fail))
    assert len(read) == 3, "there was something to withdraw"
    assert not engine.database.reading.locked()
    assert await drain(layer, channel) == [1, 2, 3]


async def test_two_members_of_one_process_may_subscribe_in_one_transaction(keeping: SqliteChannelLayer) -> None:
    channels = [await keeping.new_channel() for _ in range(20)]
    for channel in channels:
        await keeping.group_add("room", channel)
    await send(keeping, 1)
    histories = await asyncio.gather(*(keeping.group_subscribe("room", channel, last=5) for channel in channels))
    assert [texts(history) for history in histories] == [[1]] * 20
    assert [await drain(keeping, channel) for channel in channels] == [[]] * 20


async def test_a_channel_of_another_process_is_subscribed_for_it(make_keeping: KeepingFactory) -> None:
    layer, other = make_keeping(), make_keeping()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await send(layer, 1, 2)
    history = await other.group_subscribe("room", channel, last=1)
    await send(other, 3)
    assert texts(history) == [2]
    assert await drain(layer, channel) == [1, 3]
    late = await layer.new_channel()
    history = await other.group_subscribe("room", late, last=1)
    await send(other, 4)
    assert texts(history) == [3]
    assert await drain(layer, late) == [4]


async def test_a_large_history_is_read_by_the_thread(make_keeping: KeepingFactory) -> None:
    layer = make_keeping(history={"room": {"size": 5000, "ttl": 300}})
    channel = await layer.new_channel()
    start = await layer.group_subscribe("room", channel)
    await layer.group_send_many("room", [{"type": "chat", "n": number} for number in range(3000)])
    history = await layer.group_history("room", since=start.position)
    assert texts(history) == list(range(3000))
    history = await layer.group_subscribe("room", channel, since=start.position)
    assert texts(history) == list(range(3000))
    assert await drain(layer, channel) == []
