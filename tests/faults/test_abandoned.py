"""Members whose consumers died without their `disconnect` handler leave their groups; who only takes his time stays."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from channels.consumer import AsyncConsumer
from channels.layers import channel_layers

from channels_sqlite import SyncChannelLayer
from channels_sqlite.concurrency.gate import Gate
from channels_sqlite.delivery.inbox import Inbox
from channels_sqlite.delivery.members import Members
from channels_sqlite.delivery.waiters import ThreadWaiter
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import Clock, query, receive, receive_numbers, write_lock
from tests.support import inside
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

EXPIRY_S = 60.0
ABANDONED = "channels abandoned by their consumers were taken out of their groups"


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Returns the lines of the log that have a certain part."""
    caplog.set_level(logging.WARNING, "channels_sqlite")
    return lambda part: [record.getMessage() for record in caplog.records if part in record.getMessage()]


def inbox_of(layer: SqliteChannelLayer) -> Inbox:
    return engine_of(layer).inbox


async def sweep(layer: SqliteChannelLayer) -> None:
    """Sweep now, where that is always done: on the layer's thread."""
    inbox = inbox_of(layer)
    await inside.background(engine_of(layer)).acall(lambda: inbox.sweep(loops_closed=False))


async def member(layer: SqliteChannelLayer, *groups: str) -> str:
    channel = await layer.new_channel()
    for group in groups or ("room",):
        await layer.group_add(group, channel)
    return channel


async def cancel_receive(layer: SqliteChannelLayer, *channels: str) -> None:
    """Begin to wait on each of `channels`, and be cancelled."""
    before = inbox_of(layer).boxes.unread().channels
    tasks = [asyncio.create_task(layer.receive(channel)) for channel in channels]
    await aeventually(lambda: inbox_of(layer).boxes.unread().channels == before + len(tasks))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def broadcast_and_expire(layer: SqliteChannelLayer, clock: Clock) -> None:
    """Let a broadcast reach the mailboxes of this process and expire there, and sweep."""
    inbox = inbox_of(layer)
    before = inbox.boxes.unread().cursor
    await layer.group_send("room", {"type": "x"})
    await aeventually(lambda: inbox.boxes.unread().cursor > before and not inside.is_spreading(inbox))
    clock.shift_s += EXPIRY_S
    await sweep(layer)


def residue(layer: SqliteChannelLayer) -> tuple[object, ...]:
    """All that an inbox keeps for channels."""
    return inside.kept(inbox_of(layer))


NOTHING: tuple[object, ...] = ({}, {}, {}, set(), {}, {})


# Those who are gone


async def test_a_member_whose_receive_was_cancelled_leaves_when_a_message_has_expired(
    make_layer: LayerFactory, clock: Clock, database: ChannelDatabase, lines: Callable[[str], list[str]]
) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer, "room", "hall")
    await cancel_receive(layer, channel)
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == await layer.group_channels("hall") == []
    assert query(database.path, "SELECT * FROM channels_sqlite_membership") == []
    await sweep(layer)
    assert residue(layer) == NOTHING
    [line] = lines(ABANDONED)
    assert line.startswith(f"{ABANDONED} (1, such as {channel!r}): receive() was cancelled")


async def test_the_mark_outlasts_the_mailbox(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    await cancel_receive(layer, await member(layer))
    for _ in range(3):
        await sweep(layer)
    assert inside.kept(inbox_of(layer))[0] == {}
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == []


class Consumer(AsyncConsumer):
    """One that its test steers: a message lets it wait for what the test says next."""

    def __init__(self, goes_on: asyncio.Event, *, dies: bool) -> None:
        self.goes_on = goes_on
        self.dies = dies
        self.name = ""
        self.got: list[int] = []

    async def test_connect(self, message: dict[str, Any]) -> None:
        await self.channel_layer.group_add("room", self.channel_name)
        self.name = self.channel_name

    async def test_say(self, message: dict[str, Any]) -> None:
        self.got.append(message["n"])
        await self.goes_on.wait()
        if self.dies:
            raise ConnectionResetError("the server's send() raises")

    async def end(self, task: "asyncio.Task[None]") -> None:
        self.goes_on.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(layer: SqliteChannelLayer, *, dies: bool) -> AsyncIterator[tuple[Consumer, "asyncio.Task[None]"]]:
    """A consumer of Channels' own, in the group `room`."""
    inputs: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    inputs.put_nowait({"type": "test.connect"})
    before = channel_layers.set("default", layer)
    consumer = Consumer(asyncio.Event(), dies=dies)
    task = asyncio.create_task(consumer({"type": "test"}, inputs.get, inputs.put))
    try:
        await aeventually(lambda: consumer.name)
        yield consumer, task
    finally:
        await consumer.end(task)
        channel_layers.backends.pop("default", None)
        if before is not None:
            channel_layers.set("default", before)


async def test_a_consumer_that_dies_of_a_message_leaves_its_groups(
    make_layer: LayerFactory, clock: Clock, lines: Callable[[str], list[str]]
) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    async with running(layer, dies=True) as (consumer, task):
        await layer.group_send("room", {"type": "test.say", "n": 1})
        await aeventually(lambda: consumer.got)
        consumer.goes_on.set()
        await asyncio.wait([task])
        assert isinstance(task.exception(), ConnectionResetError)
        await broadcast_and_expire(layer, clock)
        assert await layer.group_channels("room") == []
        await sweep(layer)
        assert residue(layer) == NOTHING
        assert len(lines(ABANDONED)) == 1


async def test_a_thousand_leave_in_batches_with_one_line(
    make_layer: LayerFactory, clock: Clock, lines: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(expiry=EXPIRY_S, trim_batch_size=70)
    names = [await member(layer, "room", f"group-{number % 7}") for number in range(1000)]
    stays = await member(layer)
    await cancel_receive(layer, *names)
    batches = inside.sizes_of_batches(monkeypatch.setattr)
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [stays]
    assert (max(batches), sum(batches)) == (70, 2000)
    [line] = lines(ABANDONED)
    assert line.startswith(f"{ABANDONED} (1000, such as ")


async def test_lines_about_those_who_left_come_once_a_second(
    make_layer: LayerFactory, clock: Clock, lines: Callable[[str], list[str]]
) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    for _ in range(3):
        await cancel_receive(layer, await member(layer))
        await broadcast_and_expire(layer, clock)
    await layer.close()  # tells what was held back
    assert [line.removeprefix(ABANDONED).partition(",")[0] for line in lines(ABANDONED)] == [" (1", " (2"]


async def test_what_was_sent_to_an_abandoned_channel_itself_still_waits(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer)
    await cancel_receive(layer, channel)
    await layer.group_send("room", {"n": "expires"})
    await aeventually(lambda: inbox_of(layer).boxes.unread().held)
    clock.shift_s += EXPIRY_S / 2
    await layer.send(channel, {"n": 1})
    await layer.group_send("room", {"n": "dropped"})
    await layer.send(channel, {"n": 2})
    await aeventually(lambda: sum(inbox_of(layer).boxes.unread().held.values()) == 4)
    clock.shift_s += EXPIRY_S / 2
    await sweep(layer)
    assert await layer.group_channels("room") == []
    assert list(inbox_of(layer).boxes.unread().held.values()) == [2]
    assert await receive_numbers(layer, channel, 2) == [1, 2]


# Those who are not


async def test_a_member_stays_until_a_message_has_expired(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer)
    await cancel_receive(layer, channel)
    await layer.group_send("room", {"n": 1})
    clock.shift_s += EXPIRY_S - 5
    for _ in range(3):
        await sweep(layer)
    assert await layer.group_channels("room") == [channel]
    assert await receive_numbers(layer, channel, 1) == [1]


async def test_a_member_that_has_never_received_stays(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer)
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [channel]


@pytest.mark.parametrize("swept", [False, True], ids=["with its mailbox", "without"])
async def test_a_member_that_polls_with_time_outs_and_comes_back_stays(
    make_layer: LayerFactory, clock: Clock, swept: bool
) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer)
    await cancel_receive(layer, channel)
    if swept:
        await sweep(layer)
    await layer.group_send("room", {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]
    await broadcast_and_expire(layer, clock)
    await sweep(layer)
    assert await layer.group_channels("room") == [channel]


async def test_a_member_that_comes_back_just_before_it_is_taken_out_stays(
    make_layer: LayerFactory, clock: Clock, lines: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    comes_back, stays_away = await member(layer), await member(layer)
    await cancel_receive(layer, comes_back, stays_away)
    waiting: list[ThreadWaiter] = []
    memberships_of = Members.memberships_of

    def come_back(members: Members, channels: set[str]) -> Iterator[tuple[str, str]]:
        """On the layer's thread, which has found whom to take out."""
        found = list(memberships_of(members, channels))
        waiter = inbox_of(layer).take_or_wait(comes_back, ThreadWaiter, Gate())
        assert isinstance(waiter, ThreadWaiter)
        waiting.append(waiter)
        yield from found

    monkeypatch.setattr(Members, "memberships_of", come_back)
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [comes_back]
    [line] = lines(ABANDONED)
    assert stays_away in line
    inbox_of(layer).boxes.give_up(waiting[0])


async def test_a_consumer_that_takes_its_time_over_a_message_stays(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    async with running(layer, dies=False) as (consumer, task):
        await layer.group_send("room", {"type": "test.say", "n": 1})
        await aeventually(lambda: consumer.got)
        for _ in range(3):
            await broadcast_and_expire(layer, clock)
        assert await layer.group_channels("room") == [consumer.name]
        consumer.goes_on.set()
        await layer.group_send("room", {"type": "test.say", "n": 2})
        await aeventually(lambda: consumer.got == [1, 2])
        assert not task.done()


async def test_a_member_whose_maker_has_ended_stays_as_long_as_others_receive(
    make_layer: LayerFactory, clock: Clock
) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await asyncio.create_task(member(layer))
    await layer.group_send("room", {"n": 1})
    assert await asyncio.create_task(receive(layer, channel)) == {"n": 1}
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [channel]


async def test_a_member_on_which_somebody_else_still_waits_stays(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer)
    waiting = asyncio.create_task(layer.receive(channel))
    await aeventually(lambda: inbox_of(layer).boxes.unread().channels == 1)
    cancelled = asyncio.create_task(layer.receive(channel))
    await aeventually(lambda: len(inside.box(inbox_of(layer), channel).waiters) == 2)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await layer.group_send("room", {"n": 1})
    assert await asyncio.wait_for(waiting, 5) == {"n": 1}
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [channel]


async def test_a_member_whose_queue_somebody_receives_as_a_whole_stays(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    channel = await member(layer)
    whole = asyncio.create_task(layer.receive(channel[: channel.index("!") + 1]))
    await aeventually(lambda: inbox_of(layer).boxes.unread().channels == 1)
    await cancel_receive(layer, channel)
    await layer.group_send("room", {"n": 1})
    assert await asyncio.wait_for(whole, 5) == {"n": 1, "__asgi_channel__": channel}
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [channel]


async def test_a_sync_receive_that_times_out_is_no_cancellation(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(expiry=EXPIRY_S)
    facade = SyncChannelLayer(layer)
    channel = await member(layer)
    await cancel_receive(layer, channel)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(facade.receive, channel, timeout=0.01)
    await broadcast_and_expire(layer, clock)
    assert await layer.group_channels("room") == [channel]


async def test_channels_that_were_discarded_leave_nothing_behind(make_layer: LayerFactory) -> None:
    layer = make_layer()
    names = [await member(layer, "room", "hall") for _ in range(100)]
    await cancel_receive(layer, *names)
    await sweep(layer)
    assert inside.consumers_kept(inbox_of(layer)) == 100
    for group in ("room", "hall"):
        for name in names:
            await layer.group_discard(group, name)
    assert residue(layer) == NOTHING


async def test_cancelled_receivers_of_no_group_leave_nothing_behind(make_layer: LayerFactory) -> None:
    layer = make_layer()
    await cancel_receive(layer, *[await layer.new_channel() for _ in range(100)])
    await sweep(layer)
    assert residue(layer) == NOTHING


# What goes wrong


async def test_what_a_locked_database_prevents_is_done_at_the_next_sweep(
    make_layer: LayerFactory, clock: Clock, tmp_path: Path, lines: Callable[[str], list[str]]
) -> None:
    with channel_database(tmp_path, alias="impatient", options={"timeout": 0.2}) as database:
        layer = SqliteChannelLayer(database="impatient", expiry=EXPIRY_S)
        channel, comes_back = await member(layer), await member(layer)
        await cancel_receive(layer, channel, comes_back)
        await layer.group_send("room", {"n": 1})
        await aeventually(lambda: inbox_of(layer).boxes.unread().held)
        clock.shift_s += EXPIRY_S
        with write_lock(database.path):
            await sweep(layer)
        assert len(lines("taking abandoned channels out of their groups failed")) == 1
        assert sorted(await layer.group_channels("room")) == sorted([channel, comes_back])
        await cancel_receive(layer, comes_back)
        await sweep(layer)
        assert await layer.group_channels("room") == [comes_back]
        await layer.close()


@pytest.mark.parametrize("alive", [0, 1], ids=["all", "some"])
async def test_the_log_does_not_ask_the_dead_to_receive_faster(
    make_layer: LayerFactory, lines: Callable[[str], list[str]], alive: int
) -> None:
    layer = make_layer(capacity=1)
    await cancel_receive(layer, *[await member(layer) for _ in range(3)])
    for _ in range(alive):
        await member(layer)
    for number in range(2):
        await layer.group_send("room", {"n": number})
    await aeventually(lambda: lines("were full"))
    [line] = lines("were full")
    assert f"{3 + alive} of {3 + alive} members here were full" in line
    assert "3 of them were abandoned by their consumers (receive() was cancelled" in line
    assert ("receive faster" in line) == bool(alive)


async def test_a_full_channel_that_was_abandoned_is_not_asked_to_receive_faster(
    make_layer: LayerFactory, lines: Callable[[str], list[str]]
) -> None:
    layer = make_layer(capacity=1)
    channel = await member(layer)
    others = [asyncio.create_task(layer.receive(await layer.new_channel())) for _ in range(2)]
    await aeventually(lambda: inbox_of(layer).boxes.unread().channels == 2)
    await cancel_receive(layer, channel)  # senders have room for two: the limit is that of all who wait
    for number in range(2):
        await layer.send(channel, {"n": number})
    await aeventually(lambda: lines("is full"))
    [line] = lines("is full")
    assert "it was abandoned by its consumer" in line
    assert "receive faster" not in line
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
