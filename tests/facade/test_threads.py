"""Our layer in many threads at once: exact totals, order, wake-ups, and nothing that grows."""

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from channels_sqlite import SyncChannelLayer
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.facade.children import send_when_told
from tests.facade.configure import Configure, only_ours
from tests.facade.steps import assert_nothing_comes, collect
from tests.facade.threads import DEADLINE_S, Threads, own_layer, until_waiting
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.locks import held_elsewhere
from tests.support.processes import ProcessFactory
from tests.support.waiting import eventually

pytestmark = only_ours

NEVER_S = 3600.0
"""A polling_interval that comes too late for every test."""

LONG_S = 3 * DEADLINE_S
"""A timeout after which `receive()` would look once more, and find what nobody woke it for: too late as well."""

Received = list[tuple[int, int]]
"""(sender, number) of messages, as one receiver saw them."""


def send_numbers(facade: SyncChannelLayer, sender: int, count: int) -> None:
    for number in range(count):
        facade.send("channel", {"sender": sender, "n": number})


def receive_until_end(facade: SyncChannelLayer) -> Received:
    received: Received = []
    while True:
        message = facade.receive("channel", timeout=DEADLINE_S)
        if "end" in message:
            return received
        received.append((message["sender"], message["n"]))


def check(received: list[Received], senders: int, count: int) -> None:
    """Each message came once, and each receiver saw those of one sender in order."""
    everything = Counter(pair for one in received for pair in one)
    assert everything == {(sender, number): 1 for sender in range(senders) for number in range(count)}
    for one in received:
        by_sender = defaultdict(list)
        for sender, number in one:
            by_sender[sender].append(number)
        for sender, numbers in by_sender.items():
            assert numbers == sorted(numbers), f"sender {sender}"


def test_who_asks_once_finds_what_was_sent_before_though_another_thread_is_at_reading(
    configure: Configure, threads: Threads
) -> None:
    facade = configure(polling_interval=NEVER_S)
    channel = facade.new_channel()
    engine = engine_of(own_layer(facade))
    assert engine.ready_to_receive_blocking()
    reader = engine.inbox.reader
    with held_elsewhere([engine.database.reading]):
        facade.send(channel, {"n": 0})
        reader.wanted = False  # whoever reads has seen that
        found = threads.start(facade.receive, channel, timeout=0)
        eventually(lambda: reader.wanted or found.done(), DEADLINE_S)
    assert found.result(DEADLINE_S) == {"n": 0}


def test_threads_share_a_channel_with_exact_totals_and_in_order(configure: Configure, threads: Threads) -> None:
    facade = configure(capacity=10_000)
    receiving = [threads.start(receive_until_end, facade) for _ in range(4)]
    sending = [threads.start(send_numbers, facade, sender, 60) for sender in range(8)]
    for future in sending:
        future.result(DEADLINE_S)
    for _ in receiving:
        facade.send("channel", {"end": True})
    check([future.result(DEADLINE_S) for future in receiving], senders=8, count=60)
    assert_nothing_comes(facade, "channel")


async def test_threads_and_coroutines_share_a_channel(configure: Configure, threads: Threads) -> None:
    facade = await asyncio.to_thread(configure, capacity=10_000)
    layer = own_layer(facade)

    async def areceive_until_end() -> Received:
        received: Received = []
        while "end" not in (message := await layer.receive("channel")):
            received.append((message["sender"], message["n"]))
        return received

    async def asend_numbers(sender: int, count: int) -> None:
        for number in range(count):
            await layer.send("channel", {"sender": sender, "n": number})

    receiving: list[asyncio.Future[Received]] = [asyncio.ensure_future(areceive_until_end()) for _ in range(2)]
    receiving += [asyncio.wrap_future(threads.start(receive_until_end, facade)) for _ in range(2)]
    sending: list[Any] = [asyncio.wrap_future(threads.start(send_numbers, facade, sender, 60)) for sender in range(2)]
    sending += [asend_numbers(sender, 60) for sender in (2, 3)]
    await asyncio.wait_for(asyncio.gather(*sending), DEADLINE_S)
    for _ in receiving:
        await layer.send("channel", {"end": True})
    check(await asyncio.wait_for(asyncio.gather(*receiving), DEADLINE_S), senders=4, count=60)


def test_many_threads_wait_on_channels_of_their_own(facade: SyncChannelLayer, threads: Threads) -> None:
    names = [facade.new_channel() for _ in range(16)]
    for name in names:
        facade.group_add("all", name)

    def two(name: str) -> list[dict[str, Any]]:
        return collect(facade, name, 2)

    waiting = [threads.start(two, name) for name in names]
    until_waiting(facade, 16)
    for name in reversed(names):
        facade.send(name, {"to": name})
    facade.group_send("all", {"to": "all"})
    for name, future in zip(names, waiting, strict=True):
        assert future.result(DEADLINE_S) == [{"to": name}, {"to": "all"}]


@pytest.mark.parametrize("kind", ["normal", "specific", "group"])
async def test_waiting_thread_is_woken_without_polling(
    kind: str,
    configure: Configure,
    threads: Threads,
    make_layer: LayerFactory,
) -> None:
    """By a coroutine here, by a thread here, and from elsewhere."""
    facade = await asyncio.to_thread(configure, polling_interval=NEVER_S)
    layer = own_layer(facade)
    stranger = make_layer()  # another client, as another process has it
    name = "channel" if kind == "normal" else await layer.new_channel()
    await layer.group_add("room", name)

    async def send(to: SqliteChannelLayer) -> None:
        await (to.group_send("room", {"n": 1}) if kind == "group" else to.send(name, {"n": 1}))

    def send_here() -> None:
        (facade.group_send if kind == "group" else facade.send)("room" if kind == "group" else name, {"n": 1})

    async def send_from_a_thread() -> None:
        await asyncio.wrap_future(threads.start(send_here))

    senders: list[Callable[[], Awaitable[None]]] = [partial(send, layer), send_from_a_thread, partial(send, stranger)]
    for sender in senders:
        waiting = threads.start(facade.receive, name, timeout=LONG_S)
        await asyncio.to_thread(until_waiting, facade)
        await sender()
        assert await asyncio.wait_for(asyncio.wrap_future(waiting), DEADLINE_S) == {"n": 1}


@pytest.mark.processes
def test_waiting_threads_are_woken_by_another_process(
    configure: Configure, threads: Threads, start_process: ProcessFactory, database: ChannelDatabase
) -> None:
    facade = configure(polling_interval=NEVER_S)
    child = start_process(send_when_told, database=database)
    assert child.hear(60) == "ready"
    names = ["normal", facade.new_channel()]
    took_s = []
    for number in range(5):
        waiting = [threads.start(facade.receive, name, timeout=LONG_S) for name in names]
        until_waiting(facade, 2)
        began = time.monotonic()
        child.say([names, {"n": number}])
        assert [future.result(DEADLINE_S) for future in waiting] == [{"n": number}] * 2
        took_s.append(time.monotonic() - began)
    child.finish_input()
    child.wait()
    assert min(took_s) < 1.0, took_s  # milliseconds on an idle machine


def test_another_thread_takes_over_when_the_one_that_watches_leaves(
    configure: Configure, threads: Threads, make_layer: LayerFactory
) -> None:
    """One waiting thread watches the wake-up socket for all. Each of these leaves in its own way."""
    facade = configure(polling_interval=NEVER_S)
    stranger = make_layer()  # whose messages come through the socket
    watch = engine_of(own_layer(facade)).watches.threads

    times_out = threads.start(facade.receive, "leaves", timeout=0.3)
    until_waiting(facade)
    receives = threads.start(facade.receive, "next", timeout=LONG_S)
    until_waiting(facade, 2)
    listens = threads.start(next, facade.listen("third"))
    until_waiting(facade, 3)
    stays = [threads.start(facade.receive, f"stays-{number}", timeout=LONG_S) for number in range(3)]
    assert isinstance(times_out.exception(DEADLINE_S), TimeoutError)
    for channel, waiting in (("next", receives), ("third", listens)):
        asyncio.run(stranger.send(channel, {"to": channel}))
        assert waiting.result(DEADLINE_S) == {"to": channel}
    until_waiting(facade, 3)
    eventually(lambda: inside.is_watched(watch), DEADLINE_S, what="somebody watches")
    for number in range(3):
        asyncio.run(stranger.send(f"stays-{number}", {"n": number}))
        assert stays[number].result(DEADLINE_S) == {"n": number}
    eventually(lambda: not inside.is_watched(watch), DEADLINE_S, what="nobody watches, as nobody waits")


def test_nothing_is_opened_per_call(facade: SyncChannelLayer, threads: Threads) -> None:
    name = facade.new_channel()

    def use() -> None:
        facade.send("channel", {"n": 1})
        facade.receive("channel", timeout=DEADLINE_S)
        with pytest.raises(TimeoutError):
            facade.receive(name, timeout=0.001)
        facade.group_add("group", name)
        facade.group_send("group", {"n": 2})
        facade.receive(name, timeout=DEADLINE_S)

    def belongings() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for _ in range(2):
        threads.start(use).result(DEADLINE_S)
    threads.join()
    before = belongings()
    for _ in range(50):
        threads.start(use).result(DEADLINE_S)
    threads.join()
    descriptors, running = belongings()
    assert (descriptors <= before[0], running) == (True, before[1])  # what others left open may be closed meanwhile


def test_messages_that_come_while_threads_leave_are_kept(facade: SyncChannelLayer, threads: Threads) -> None:
    """Time-outs at every moment around the arrival of a message: it goes to somebody, once."""
    names = ["normal", facade.new_channel()]

    def receive(name: str, timeout: float) -> dict[str, Any] | None:
        try:
            return facade.receive(name, timeout=timeout)
        except TimeoutError:
            return None

    for name in names:
        for number in range(25):
            waiting = [threads.start(receive, name, n * 0.0005) for n in range(4)]
            facade.send(name, {"n": number})
            received = [message for future in waiting if (message := future.result(DEADLINE_S))]
            received += [] if received else collect(facade, name, 1)
            assert received == [{"n": number}]
        assert_nothing_comes(facade, name)
