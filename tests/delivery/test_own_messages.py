"""What a process sends to itself: handed over without reading it back, and still in the order of the commits."""

import asyncio

import pytest

from channels_sqlite.layers import engine_of
from channels_sqlite.storage.store import Store
from channels_sqlite.waking.sender import Sender
from tests.faults.support import receive_numbers
from tests.support import inside
from tests.support.layers import LayerFactory
from tests.support.locks import held_elsewhere

DEADLINE_S = 30
NEVER_S = 3600
MANY = 2500  # more than are handed out in one step


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cursors from which the log was read."""
    found: list[int] = []
    read_log = Store.read_log

    def noted(store: Store, after: int, up_to: int, client: str) -> object:
        found.append(after)
        return read_log(store, after, up_to, client)

    monkeypatch.setattr(Store, "read_log", noted)
    return found


@pytest.fixture
def no_wake_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of what others send."""
    monkeypatch.setattr(Sender, "send", lambda self, path: False)


async def test_own_messages_are_not_read_back(make_layer: LayerFactory, reads: list[int]) -> None:
    layer = make_layer(polling_interval=NEVER_S)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    await layer.send(channel, {"n": 0})
    assert await receive_numbers(layer, channel, 1) == [0]
    reads.clear()
    for number in range(5):
        await layer.send(channel, {"n": number})
        await layer.group_send("room", {"n": number})
        assert await receive_numbers(layer, channel, 2) == [number, number]
    await asyncio.gather(*(layer.send(channel, {"n": number}) for number in range(20)))
    assert await receive_numbers(layer, channel, 20) == list(range(20))
    assert len(reads) <= 1  # a receive() that begins to wait looks


async def test_what_others_sent_before_comes_first(make_layer: LayerFactory, no_wake_ups: None) -> None:
    reader, other = make_layer(polling_interval=NEVER_S), make_layer()
    channel = await reader.new_channel()
    for number in range(0, 10, 2):
        await other.send(channel, {"n": number})
        await reader.send(channel, {"n": number + 1})
    assert await receive_numbers(reader, channel, 10) == list(range(10))


async def test_what_is_for_nobody_here_does_not_hold_up_own_messages(
    make_layer: LayerFactory, no_wake_ups: None
) -> None:
    reader, other = make_layer(polling_interval=NEVER_S), make_layer()
    channel = await reader.new_channel()
    for number in range(3):
        await other.send("elsewhere", {"n": number})
        await reader.send("nobody", {"n": number})
        await reader.send(channel, {"n": number})
        assert await receive_numbers(reader, channel, 1) == [number]


async def test_an_own_flush_drops_what_came_before_it_alone(make_layer: LayerFactory) -> None:
    layer = make_layer(polling_interval=NEVER_S)
    channel = await layer.new_channel()
    await asyncio.gather(layer.send(channel, {"n": 0}), layer.flush(), layer.send(channel, {"n": 1}))
    assert await receive_numbers(layer, channel, 1) == [1]


async def test_own_messages_come_after_a_broadcast_that_takes_several_steps(make_layer: LayerFactory) -> None:
    layer = make_layer(polling_interval=NEVER_S, capacity=10 * MANY)
    channels = [await layer.new_channel() for _ in range(MANY)]
    await asyncio.gather(*(layer.group_add("room", channel) for channel in channels))
    await layer.group_send("room", {"n": 0})
    await layer.send(channels[-1], {"n": 1})
    await layer.group_send("room", {"n": 2})
    await layer.send(channels[-1], {"n": 3})
    assert await receive_numbers(layer, channels[-1], 4) == [0, 1, 2, 3]
    assert await receive_numbers(layer, channels[0], 2) == [0, 2]


async def test_rows_of_a_file_that_is_gone_are_not_handed_over(make_layer: LayerFactory) -> None:
    layer = make_layer(polling_interval=NEVER_S)
    channel = await layer.new_channel()
    engine = engine_of(layer)
    inbox = engine.inbox
    with held_elsewhere([engine.database.reading]):  # another thread reads, and finds the rest to do
        await layer.send(channel, {"n": 0})
        assert inside.ids_to_take_in(inbox) == [1]
    inbox.log.start(1)
    inbox.reader.pull()
    await layer.send(channel, {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]


async def test_threads_and_loops_keep_the_order(make_layer: LayerFactory) -> None:
    layer, other = make_layer(capacity=1000), make_layer(capacity=1000)
    channel = await layer.new_channel()

    async def send(sender: int) -> None:
        for number in range(50):
            await (layer if sender % 2 else other).send(channel, {"n": number, "sender": sender})

    sending = [asyncio.create_task(send(sender)) for sender in range(4)]
    threads = [asyncio.create_task(asyncio.to_thread(asyncio.run, send(sender))) for sender in (5, 6)]
    received: dict[int, list[int]] = {}
    for _ in range(300):
        message = await asyncio.wait_for(layer.receive(channel), DEADLINE_S)
        received.setdefault(message["sender"], []).append(message["n"])
    await asyncio.gather(*sending, *threads)
    assert set(received) == {0, 1, 2, 3, 5, 6}
    assert all(numbers == list(range(50)) for numbers in received.values())
