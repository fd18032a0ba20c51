"""receive() cancelled wherever it may be: what was sent is received exactly once and in order all the same.

A `Ledger` numbers the messages of one channel, and records what each receive() returned, in the order in which they
returned. The tests step tasks through the iterations of the event loop and cancel them after 0, 1, 2, ... of them.
"""

import asyncio
import itertools
import random
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
from channels.utils import await_many_dispatch

import channels_sqlite
from channels_sqlite.layers import SqliteChannelLayer
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

T = TypeVar("T")

DEADLINE_S = 10.0
SILENCE_S = 0.12
PACKAGE_FOLDER = str(Path(channels_sqlite.__file__).parent)

# More iterations than any receive() takes from its call to where it waits, or from its wake-up to its end.
ITERATIONS = 8

NEVER_POLL_S = 60.0

kinds = pytest.mark.parametrize("kind", ["normal", "specific", "queue"])
"""A normal channel, a process-specific one received by its full name, and by the part up to the `!`."""


class Ledger:
    """What was sent to one channel, and what was received from it."""

    def __init__(self, layer: SqliteChannelLayer, channel: str, listen_on: str | None = None) -> None:
        self.layer = layer
        self.channel = channel
        self.listen_on = listen_on or channel
        self._next = 0
        self.sent: list[int] = []
        self.received: list[int] = []

    @classmethod
    async def of_kind(cls, layer: SqliteChannelLayer, kind: str, name: str = "channel") -> "Ledger":
        if kind == "normal":
            return cls(layer, name)
        channel = await layer.new_channel()
        return cls(layer, channel, channel[: channel.index("!") + 1] if kind == "queue" else None)

    async def send(self, count: int = 1) -> None:
        for _ in range(count):
            number, self._next = self._next, self._next + 1
            self.sent.append(number)
            await self.layer.send(self.channel, {"n": number})

    async def receive(self) -> int:
        """The next number, recorded in the very step in which the layer gave it."""
        message = await self.layer.receive(self.listen_on)
        self.received.append(message["n"])
        return self.received[-1]

    def receiver(self) -> "asyncio.Task[int]":
        return asyncio.create_task(self.receive())

    async def drain(self) -> None:
        """Receive what is missing."""
        while len(self.received) < len(self.sent):
            await asyncio.wait_for(self.receive(), DEADLINE_S)

    async def settle(self, *about: object) -> None:
        """Everything that was sent has been received once and in order, and there is no more; `about` is for errors."""
        try:
            await self.drain()
        except asyncio.TimeoutError:
            pytest.fail(f"lost {sorted(set(self.sent) - set(self.received))} of {len(self.sent)}: {about}")
        assert self.received == self.sent, about

    async def settle_finally(self, *about: object) -> None:
        """The same; and that nothing comes twice, which takes a time to see: twice the polling interval."""
        await self.settle(*about)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(self.receive(), SILENCE_S)
        assert self.received == self.sent, about


async def iterations(count: int) -> None:
    """Let the event loop run `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def end(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class OtherLoop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="other loop")
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Run it there; the future is of the calling loop."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self.loop))

    def run(self, work: Coroutine[Any, Any, object], deadline_s: float) -> None:
        """Run it there, while this thread waits until the end or the deadline."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            future.result(deadline_s)
        except TimeoutError:
            pass
        except Exception as error:
            # Python 3.10 has a TimeoutError of its own for these futures.
            if type(error).__name__ != "TimeoutError":
                raise

    def send(self, ledger: Ledger, deadline_s: float) -> None:
        """Send a message there."""
        self.run(ledger.send(), deadline_s)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE_S)
        self.loop.close()


@pytest.fixture
def other_loop(no_leaks: None) -> Iterator[OtherLoop]:
    other = OtherLoop()
    yield other
    other.close()


@pytest.fixture
async def ledger_of(make_layer: LayerFactory) -> "MakeLedger":
    """Makes ledgers of a kind on one layer that is open already."""
    layer = make_layer(capacity=10_000)
    await layer.new_channel()

    async def make(kind: str) -> Ledger:
        return await Ledger.of_kind(layer, kind)

    return make


MakeLedger = Callable[[str], Awaitable[Ledger]]


# One loop


@kinds
async def test_cancelled_with_messages_waiting_before(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for count, steps in itertools.product((1, 2, 3), range(ITERATIONS)):
        await ledger.send(count)
        task = ledger.receiver()
        await iterations(steps)
        await end(task)
        await ledger.settle(count, steps)
    await ledger.settle_finally()


@kinds
async def test_cancelled_around_a_send(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for before, count, after in itertools.product(range(ITERATIONS), (1, 2), range(ITERATIONS)):
        task = ledger.receiver()
        await iterations(before)
        await ledger.send(count)
        await iterations(after)
        await end(task)
        await ledger.settle(before, count, after)
    await ledger.settle_finally()


@kinds
async def test_cancelled_just_before_a_send(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for before, after in itertools.product(range(ITERATIONS), range(ITERATIONS)):
        task = ledger.receiver()
        await iterations(before)
        # The task learns of it in its next step, so that the message arrives between the two.
        task.cancel()
        await ledger.send()
        await iterations(after)
        await ledger.send()
        await asyncio.gather(task, return_exceptions=True)
        await ledger.settle(before, after)
    await ledger.settle_finally()


@kinds
async def test_cancelled_while_a_send_is_in_another_task(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for before, after in itertools.product(range(ITERATIONS), range(ITERATIONS)):
        task = ledger.receiver()
        await iterations(before)
        # Gathered writes share a transaction that is committed in a later iteration.
        sends = [asyncio.create_task(ledger.send()) for _ in range(3)]
        await iterations(after)
        await end(task)
        await asyncio.gather(*sends)
        await ledger.settle(before, after)
    await ledger.settle_finally()


@kinds
async def test_cancelled_twice_and_replaced_at_once(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for before, between, after in itertools.product(range(0, ITERATIONS, 2), range(4), range(4)):
        first = ledger.receiver()
        await iterations(before)
        await ledger.send()
        first.cancel()
        second = ledger.receiver()
        await iterations(between)
        first.cancel()
        second.cancel()
        third = ledger.receiver()
        await ledger.send()
        await iterations(after)
        await end(first, second, third)
        await ledger.settle(before, between, after)
    await ledger.settle_finally()


@kinds
async def test_cancelled_while_the_layer_opens(make_layer: LayerFactory, kind: str) -> None:
    # The opening runs on another thread, so these steps are not the same ones each time; hence some more of them.
    sender = make_layer()
    for number, steps in enumerate([*range(6), 10, 20, 50, 100]):
        layer = make_layer()
        ledger = await Ledger.of_kind(layer, "normal", f"channel-{number}") if kind == "normal" else None
        opening = asyncio.create_task(layer.receive(f"channel-{number}"))
        await sender.send(f"channel-{number}", {"n": 0})
        await iterations(steps)
        await end(opening)
        if not opening.cancelled():
            assert opening.result() == {"n": 0}
            await sender.send(f"channel-{number}", {"n": 0})
        ledger = ledger or await Ledger.of_kind(layer, kind)
        if kind == "normal":
            ledger.sent.append(0)
        else:
            await ledger.send(2)
        await ledger.settle(steps)
        await layer.close()


@kinds
async def test_timed_out_after_any_time(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    # From nothing through the length of one iteration to several.
    times_s = [0, 1e-9, 1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3]

    async def sends() -> None:
        for number in range(200):
            await ledger.send()
            if number % 3:
                await asyncio.sleep(random.choice(times_s))

    sending = asyncio.create_task(sends())
    for time_s in itertools.cycle(times_s):
        try:
            await asyncio.wait_for(ledger.receive(), time_s)
        except asyncio.TimeoutError:
            pass
        if sending.done():
            break
    await sending
    await ledger.settle_finally()


# Several receivers


@kinds
async def test_woken_receiver_that_is_cancelled_leaves_its_message_to_the_next(
    ledger_of: MakeLedger, kind: str
) -> None:
    ledger = await ledger_of(kind)
    for waiting, cancelled, after in itertools.product((2, 3), (0, 1), range(4)):
        tasks = [ledger.receiver() for _ in range(waiting)]
        await iterations(ITERATIONS)
        for task in tasks:
            assert not task.done()
        await ledger.send()
        # Woken, whichever it is, and not yet run.
        tasks[cancelled].cancel()
        await iterations(after)
        others = [task for task in tasks if task is not tasks[cancelled]]
        await asyncio.wait([tasks[cancelled]])
        if tasks[cancelled].cancelled():
            done, _ = await asyncio.wait(others, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1, (waiting, cancelled, after)
        await end(*tasks)
        await ledger.settle(waiting, cancelled, after)
    await ledger.settle_finally()


@kinds
async def test_any_of_several_receivers_is_cancelled_at_any_step(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    chance = random.Random(7)
    for round_number in range(150):
        tasks: deque[asyncio.Task[int]] = deque(ledger.receiver() for _ in range(chance.randint(1, 5)))
        for _ in range(chance.randint(1, 8)):
            await iterations(chance.randint(0, 3))
            match chance.randrange(4):
                case 0:
                    await ledger.send(chance.randint(1, 3))
                case 1 if tasks:
                    tasks[chance.randrange(len(tasks))].cancel()
                case 2:
                    tasks.append(ledger.receiver())
                case _:
                    chosen = chance.sample(list(tasks), len(tasks) // 2)
                    await ledger.send()
                    for task in chosen:
                        task.cancel()
        await end(*tasks)
        await ledger.settle(round_number)
    await ledger.settle_finally()


@kinds
async def test_receivers_that_stay_get_everything(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for steps in range(ITERATIONS):
        leaving = [ledger.receiver() for _ in range(2)]
        staying = ledger.receiver()
        leaving += [ledger.receiver() for _ in range(2)]
        await iterations(steps)
        await ledger.send(2)
        await end(*leaving)
        if len(ledger.received) == len(ledger.sent):
            # Those that left had got both before they were cancelled.
            await ledger.send()
        await asyncio.wait([staying], timeout=DEADLINE_S)
        assert staying.done(), steps
        await ledger.settle(steps)
    await ledger.settle_finally()


async def test_normal_channels_of_two_layers_hand_over_what_is_cancelled(make_layer: LayerFactory) -> None:
    first, second = make_layer(capacity=1000), make_layer(capacity=1000)
    here, there = Ledger(first, "channel"), Ledger(second, "channel")
    for steps in [*range(ITERATIONS), *range(ITERATIONS)]:
        mine, other = here.receiver(), there.receiver()
        await iterations(ITERATIONS)
        await here.send(2)
        await iterations(steps)
        await end(mine, other)

    def everything() -> bool:
        return len(here.received) + len(there.received) >= len(here.sent)

    while not everything():
        await asyncio.wait_for(there.receive(), DEADLINE_S)
    # Two readers: each message once.
    assert sorted(here.received + there.received) == here.sent


# Other threads


@kinds
async def test_cancelled_while_another_thread_sends(ledger_of: MakeLedger, other_loop: OtherLoop, kind: str) -> None:
    ledger = await ledger_of(kind)

    async def sends() -> None:
        for number in range(400):
            await ledger.send()
            await asyncio.sleep((0, 0, 0, 1e-4, 1e-3)[number % 5])

    sending = other_loop.start(sends())
    for steps in itertools.cycle(range(ITERATIONS)):
        task = ledger.receiver()
        await iterations(steps)
        await end(task)
        if sending.done():
            break
    await sending
    await ledger.settle_finally()


@kinds
async def test_receivers_in_two_threads_are_cancelled(ledger_of: MakeLedger, other_loop: OtherLoop, kind: str) -> None:
    ledger = await ledger_of(kind)
    received: list[int] = []

    async def cancels(count: int) -> None:
        for steps in itertools.islice(itertools.cycle(range(ITERATIONS)), count):
            task = asyncio.create_task(ledger.layer.receive(ledger.listen_on))
            await iterations(steps)
            await end(task)
            if not task.cancelled():
                received.append(task.result()["n"])

    async def sends() -> None:
        for number in range(150):
            await ledger.send()
            await asyncio.sleep((0, 0, 1e-4)[number % 3])

    await asyncio.gather(other_loop.start(cancels(400)), cancels(400), sends())
    while len(received) < len(ledger.sent):
        received.append((await asyncio.wait_for(ledger.layer.receive(ledger.listen_on), DEADLINE_S))["n"])
    # Two readers: each message once.
    assert sorted(received) == ledger.sent


class Interruption:
    """Runs `action` before the nth line of this package that runs in this thread.

    It is how a thread switch at that very place looks like to the code, made to happen instead of waited for.
    """

    def __init__(self, line: int, action: Callable[[], None]) -> None:
        self._left = line
        self._action = action

    @property
    def happened(self) -> bool:
        return self._left <= 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        tracer = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(tracer)

    def _enter(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        return self._step if frame.f_code.co_filename.startswith(PACKAGE_FOLDER) else None

    def _step(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        if event == "line" and self._left > 0:
            self._left -= 1
            if self._left == 0:
                self._action()
        return self._step


async def all_sent(ledger: Ledger, count: int) -> None:
    """The other thread has come as far as its send."""
    await aeventually(lambda: len(ledger.sent) == count, what=f"message {count} was sent")


async def received_by(task: "asyncio.Task[int]", ledger: Ledger) -> None:
    """The task has received something, unless nothing was left for it: a send that another thread completed lets those
    that were to be cancelled come first.
    """
    await aeventually(lambda: task.done() or len(ledger.received) == len(ledger.sent), what="the next one received")
    await end(task)


async def all_received(ledger: Ledger) -> None:
    """The receivers that wait have received everything."""
    await aeventually(lambda: len(ledger.received) == len(ledger.sent), what=f"somebody got message {len(ledger.sent)}")


# Where the interrupted line holds a lock that the action needs, the action gets on when the line has been left.
LOCKED_OUT_S = 0.005


@kinds
async def test_message_of_another_thread_between_any_two_lines_of_receive_arrives(
    make_layer: LayerFactory, other_loop: OtherLoop, kind: str
) -> None:
    # Without polling to mend a lost wake-up.
    layer = make_layer(polling_interval=NEVER_POLL_S, capacity=10_000)
    ledger = await Ledger.of_kind(layer, kind)
    await ledger.send()
    await ledger.drain()
    for line in itertools.count(1):
        interruption = Interruption(line, partial(other_loop.send, ledger, LOCKED_OUT_S))
        task = ledger.receiver()
        with interruption.watching():
            await iterations(3)
        if not interruption.happened:
            await end(task)
            break
        done, _ = await asyncio.wait([task], timeout=3)
        assert done, f"receive() still waits after a message came before its line {line}"
        await all_sent(ledger, line + 1)
        await ledger.settle(line)
    assert line > 20


@pytest.mark.slow
@kinds
async def test_message_of_another_thread_between_any_two_lines_of_a_cancellation_arrives(
    make_layer: LayerFactory, other_loop: OtherLoop, kind: str
) -> None:
    layer = make_layer(polling_interval=NEVER_POLL_S, capacity=10_000)
    ledger = await Ledger.of_kind(layer, kind)
    for line in itertools.count(1):
        happened = False
        # With the longest wait the other thread has done its work when this one goes on, with the others it is at it.
        for wait_s in (LOCKED_OUT_S, (0, 1e-4, 3e-4)[line % 3]):
            sent = len(ledger.sent)
            interruption = Interruption(line, partial(other_loop.send, ledger, wait_s))
            tasks = [ledger.receiver(), ledger.receiver()]
            await iterations(ITERATIONS)
            await ledger.send()
            for task in tasks:
                task.cancel()
            replacement = ledger.receiver()
            with interruption.watching():
                await asyncio.gather(*tasks, return_exceptions=True)
            happened |= interruption.happened
            await all_sent(ledger, sent + 1 + interruption.happened)
            await received_by(replacement, ledger)
            await ledger.settle(line, wait_s)
        if not happened:
            break
    assert line > 20


@kinds
async def test_receiver_of_another_thread_that_is_cancelled_at_any_line_of_receive_leaves_its_message(
    make_layer: LayerFactory, other_loop: OtherLoop, kind: str
) -> None:
    layer = make_layer(polling_interval=NEVER_POLL_S, capacity=10_000)
    ledger = await Ledger.of_kind(layer, kind)

    async def woken_and_cancelled() -> None:
        rival = ledger.receiver()
        await iterations(ITERATIONS)
        await ledger.send()
        await end(rival)

    for line in itertools.count(1):
        interruption = Interruption(line, lambda: other_loop.run(woken_and_cancelled(), LOCKED_OUT_S))
        task = ledger.receiver()
        with interruption.watching():
            await iterations(3)
        if not interruption.happened:
            await end(task)
            break
        await all_sent(ledger, line)
        await all_received(ledger)
        await end(task)
        assert sorted(ledger.received) == ledger.sent
    assert line > 20


# Other processes


async def send_numbers(parent: Parent, *, channel: str, count: int) -> None:
    layer = parent.make_layer()
    for number in range(count):
        await layer.send(channel, {"n": number})
        if number % 7 == 0:
            await asyncio.sleep(0.001)
    parent.say("sent")


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["normal", "specific"])
@pytest.mark.parametrize("way", ["steps", "time-outs"])
async def test_cancelled_while_another_process_sends(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory, kind: str, way: str
) -> None:
    layer = make_layer(capacity=10_000)
    ledger = await Ledger.of_kind(layer, kind)
    count = 300
    child = start_process(
        send_numbers, database=database, config={"capacity": 10_000}, channel=ledger.channel, count=count
    )
    ledger.sent = list(range(count))
    ended = asyncio.create_task(child.ahear(60))
    for number in itertools.count():
        if way == "steps":
            task = ledger.receiver()
            await iterations(number % ITERATIONS)
            await end(task)
            # Else this loop would leave no time to its own descriptors.
            await asyncio.sleep(0.0005)
        else:
            try:
                await asyncio.wait_for(ledger.receive(), (0, 1e-5, 1e-4, 5e-4, 2e-3)[number % 5])
            except asyncio.TimeoutError:
                pass
        if ended.done():
            break
    assert await ended == "sent"
    await ledger.settle_finally()
    child.wait()


# Channels


@pytest.mark.parametrize("kind", ["normal", "specific"])
async def test_consumer_that_ends_at_any_step_loses_nothing(ledger_of: MakeLedger, kind: str) -> None:
    ledger = await ledger_of(kind)
    for before, after in itertools.product(range(5), range(ITERATIONS)):
        socket: asyncio.Queue[int] = asyncio.Queue()
        dispatched: list[int] = []

        async def dispatch(message: int, dispatched: list[int] = dispatched) -> None:
            await asyncio.sleep(0)
            dispatched.append(message)

        consumer = asyncio.create_task(await_many_dispatch([socket.get, ledger.receive], dispatch))
        await iterations(before)
        await ledger.send(2)
        socket.put_nowait(-1)
        await iterations(after)
        # What receive() has returned is the consumer's, dispatched or not: the ledger counts it as received.
        await end(consumer)
        await ledger.settle(before, after)
        numbers = [message for message in dispatched if message >= 0]
        assert numbers == sorted(numbers)
    await ledger.settle_finally()


# Writes


@contextmanager
def write_lock(database: ChannelDatabase) -> Iterator[None]:
    """Another connection holds the write lock until the block ends."""
    with closing(sqlite3.connect(database.path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")


@pytest.mark.parametrize("kind", ["normal", "specific"])
@pytest.mark.parametrize("locked", [False, True], ids=["free", "locked"])
async def test_cancelled_send_is_done_once_or_not_at_all(
    ledger_of: MakeLedger, database: ChannelDatabase, kind: str, locked: bool
) -> None:
    ledger = await ledger_of(kind)
    layer, channel = ledger.layer, ledger.channel
    kept: list[int] = []
    cancelled: set[int] = set()
    number = itertools.count()

    async def attempt(steps: int) -> None:
        batch = [(n, asyncio.create_task(layer.send(channel, {"n": n}))) for n in itertools.islice(number, 6)]
        await iterations(steps)
        victims = batch[steps % 2 :: 2]
        for _, task in victims:
            task.cancel()
        unlocked.append((batch, victims))

    unlocked: list[tuple[Any, Any]] = []
    for steps in range(6):
        if locked:
            with write_lock(database):
                await attempt(steps)
                await iterations(steps * 50)
        else:
            await attempt(steps)
        batch, victims = unlocked.pop()
        await asyncio.gather(*(task for _, task in batch), return_exceptions=True)
        cancelled.update(n for n, task in victims if task.cancelled())
        kept += [n for n, task in batch if not task.cancelled() and task.exception() is None]
    await layer.send(channel, {"n": "last"})
    received: list[int] = []
    while (message := await asyncio.wait_for(layer.receive(channel), DEADLINE_S))["n"] != "last":
        received.append(message["n"])
    assert len(set(received)) == len(received)
    assert received == sorted(received)
    assert set(kept) <= set(received) <= set(kept) | cancelled
    if locked:
        # The test would show nothing if each had been sent before its cancellation.
        assert cancelled


async def test_cancelled_group_calls_are_done_or_not_done_and_harm_nobody(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer(capacity=1000)
    member = await layer.new_channel()
    for steps in range(10):
        group = f"group-{steps}"
        with write_lock(database):
            calls = [
                asyncio.create_task(layer.group_add(group, "normal")),
                asyncio.create_task(layer.group_add(group, member)),
                asyncio.create_task(layer.group_send(group, {"n": steps})),
                asyncio.create_task(layer.group_discard(group, member)),
            ]
            await iterations(steps)
            calls[steps % 4].cancel()
            await iterations(5)
        await asyncio.gather(*calls, return_exceptions=True)
        members = set(await layer.group_channels(group))
        assert ("normal" in members) or calls[0].cancelled()
        assert (member not in members) or calls[3].cancelled()
    await layer.flush()
    await layer.send(member, {"n": "last"})
    assert await asyncio.wait_for(layer.receive(member), DEADLINE_S) == {"n": "last"}


async def test_write_that_was_cancelled_in_the_queue_is_dropped(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    await layer.new_channel()
    with write_lock(database):
        first = asyncio.create_task(layer.send("channel", {"n": "first"}))
        second = asyncio.create_task(layer.send("channel", {"n": "second"}))
        third = asyncio.create_task(layer.send("channel", {"n": "third"}))
        await iterations(ITERATIONS)
        await end(second)
    await asyncio.gather(first, third)
    assert [(await asyncio.wait_for(layer.receive("channel"), DEADLINE_S))["n"] for _ in range(2)] == ["first", "third"]


@kinds
async def test_cancelled_while_the_write_lock_is_taken(
    ledger_of: MakeLedger, database: ChannelDatabase, kind: str
) -> None:
    ledger = await ledger_of(kind)
    for steps in range(ITERATIONS):
        await ledger.send(2)
        waiting = ledger.receiver()
        with write_lock(database):
            # What a normal channel's receiver needs of the database now waits on the background thread.
            tasks = [ledger.receiver() for _ in range(2)]
            await iterations(steps)
            sends = [asyncio.create_task(ledger.send()) for _ in range(2)]
            await iterations(steps)
            await end(*tasks[:1])
            tasks.append(ledger.receiver())
            await iterations(steps)
        await asyncio.gather(*sends)
        await iterations(steps)
        await end(waiting, *tasks)
        await ledger.settle(steps)
    await ledger.settle_finally()
