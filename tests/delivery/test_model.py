"""Random histories of one layer, compared with a model that fits on a page.

Hypothesis makes up sequences of send, receive, cancel, group_add, group_discard, group_send, flush, and time that
passes; the real layer works on a real file. The machine drives the event loop by hand, so that a rule can decide what
happens within one iteration of it. After each rule everything that waits must be as the model has it.
"""

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from channels.exceptions import ChannelFull
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from channels_sqlite.layers import SqliteChannelLayer
from tests.support.databases import channel_database
from tests.support.machines import run_histories
from tests.support.waiting import aeventually

T = TypeVar("T")

DEADLINE_S = 5.0
EXPIRY_S = 100.0
GROUP_EXPIRY_S = 400.0
SMALL_CAPACITY = 3

NORMAL = ["jobs", "small"]
GROUP = "group"
SPECIFIC_COUNT = 3
BOUNDED = 2
"""The place of the process-specific channel with a small capacity, in a queue of its own."""

channels = st.integers(0, len(NORMAL) + SPECIFIC_COUNT - 1)
waits = st.integers(0, 10)
positions = st.integers(0, 5)


@dataclass
class Waiting:
    """A receive() under way."""

    listen_on: str
    task: "asyncio.Task[dict[str, Any]]"


@dataclass
class Model:
    """What the specification says of one process: a queue for each channel and the members of each group."""

    queues: dict[str, deque[tuple[int, float]]] = field(default_factory=dict)
    """Channel to (number, time of expiry)."""
    members: dict[str, float] = field(default_factory=dict)
    """The one group's members, and when their membership ends."""
    now: float = 0.0

    def waiting(self, channel: str) -> deque[tuple[int, float]]:
        """What waits on `channel` and has not expired."""
        messages = self.queues.setdefault(channel, deque())
        while messages and messages[0][1] <= self.now:
            messages.popleft()
        return messages

    def put(self, channel: str, number: int) -> bool:
        """Put a message on `channel`; False when that is full."""
        messages = self.waiting(channel)
        if is_small(channel) and len(messages) >= SMALL_CAPACITY:
            return False
        messages.append((number, self.now + EXPIRY_S))
        return True

    def present(self) -> list[str]:
        return [channel for channel, ends in self.members.items() if ends > self.now]


def is_small(channel: str) -> bool:
    """Whether a channel has the small capacity."""
    return channel == "small" or channel.startswith("bounded.")


def reaches(listen_on: str, channel: str) -> bool:
    """Whether a receiver of `listen_on` gets what is sent to `channel`."""
    return channel == listen_on or (listen_on.endswith("!") and channel.startswith(listen_on))


class LayerMachine(RuleBasedStateMachine):
    retention = 86400

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.receivers: list[Waiting] = []
        self.numbers = 0
        self.cleaning = ExitStack()
        self.loop = asyncio.new_event_loop()
        self.cleaning.callback(self.loop.close)
        monkeypatch = self.cleaning.enter_context(pytest.MonkeyPatch.context())
        real_time = time.time
        # A clock of its own: one that a rule puts forward.
        monkeypatch.setattr(time, "time", lambda: real_time() + self.model.now)
        folder = self.cleaning.enter_context(tempfile.TemporaryDirectory())
        database = self.cleaning.enter_context(channel_database(Path(folder), alias="model"))
        self.layer = SqliteChannelLayer(
            database=database.alias,
            expiry=EXPIRY_S,
            group_expiry=GROUP_EXPIRY_S,
            channel_capacity={"small": SMALL_CAPACITY, "bounded.*": SMALL_CAPACITY},
            # Far more than a history sends, as its exact limit depends on how many receive at the time.
            capacity=100_000,
            message_retention=self.retention,
        )
        self.cleaning.callback(lambda: self.run(self.layer.close()))
        self.names: list[str] = []

    @initialize()
    def make_channels(self) -> None:
        self.names = [*NORMAL, self.run(self.layer.new_channel("bounded"))]
        self.names += [self.run(self.layer.new_channel()) for _ in range(SPECIFIC_COUNT - 1)]
        # A local part of one's own choice is a channel like any other.
        self.names[-1] = self.names[-1][: self.names[-1].index("!") + 1] + "own"

    def teardown(self) -> None:
        try:
            if self.names:
                self.receive_all()
        finally:
            self.run(self.end(self.receivers))
            self.cleaning.close()

    # Steps

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, DEADLINE_S))

    def iterate(self, count: int) -> None:
        """Let the event loop run `count` times."""

        async def iterations() -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        self.loop.run_until_complete(iterations())

    async def end(self, receivers: list[Waiting]) -> None:
        for receiver in receivers:
            receiver.task.cancel()
        await asyncio.gather(*(receiver.task for receiver in receivers), return_exceptions=True)

    def next_numbers(self, count: int) -> list[int]:
        self.numbers += count
        return list(range(self.numbers - count, self.numbers))

    def start(self, listen_on: str) -> None:
        self.receivers.append(Waiting(listen_on, self.loop.create_task(self.layer.receive(listen_on))))

    def candidates(self, channel: str) -> list[Waiting]:
        return [receiver for receiver in self.receivers if reaches(receiver.listen_on, channel)]

    # Rules

    @rule(channel=channels, count=st.integers(1, 4))
    def send(self, channel: int, count: int) -> None:
        name = self.names[channel]
        for number in self.next_numbers(count):
            self.send_one(name, number)

    def send_one(self, name: str, number: int) -> None:
        # What has room is decided by what waits, and who waits has taken his share of it.
        self.settle()
        fits = self.model.put(name, number)
        if name == self.names[BOUNDED]:
            # For senders it has room for as many channels as wait; what it does not hold itself is dropped.
            fits = fits or self.channels_that_wait() > 1
        try:
            self.run(self.layer.send(name, {"n": number}))
        except ChannelFull:
            assert not fits, f"{name} was full with {self.model.waiting(name)}"
        else:
            assert fits, f"{name} took a message beyond {self.model.waiting(name)}"

    def channels_that_wait(self) -> int:
        """How many process-specific channels have a receiver."""
        return len({receiver.listen_on for receiver in self.receivers if "!" in receiver.listen_on})

    @rule(channel=channels, count=st.integers(2, 5))
    def send_at_once(self, channel: int, count: int) -> None:
        name = self.names[channel]
        if is_small(name):
            # How much room there is depends on when its receivers take something.
            return
        numbers = self.next_numbers(count)
        for number in numbers:
            self.model.put(name, number)

        async def gathered() -> None:
            await asyncio.gather(*(self.layer.send(name, {"n": number}) for number in numbers))

        self.run(gathered())

    @rule(channel=channels, count=st.integers(1, 3), steps=waits)
    def receive(self, channel: int, count: int, steps: int) -> None:
        for _ in range(count):
            self.start(self.names[channel])
        self.iterate(steps)

    @rule(count=st.integers(1, 2), steps=waits)
    def receive_up_to_the_mark(self, count: int, steps: int) -> None:
        name = self.names[-1]
        for _ in range(count):
            self.start(name[: name.index("!") + 1])
        self.iterate(steps)

    # Which rules there are, and what they draw, must not depend on who has received something yet: Hypothesis repeats
    # histories, and time does not repeat. So receivers are counted round, and without any nothing happens.

    @rule(which=positions, steps=waits)
    def cancel(self, which: int, steps: int) -> None:
        if self.receivers:
            self.receivers[which % len(self.receivers)].task.cancel()
        self.iterate(steps)

    @rule(which=positions, channel=positions, steps=waits, again=st.booleans(), everybody=st.booleans())
    def send_and_cancel_who_was_woken(self, which: int, channel: int, steps: int, again: bool, everybody: bool) -> None:
        if not self.receivers:
            return
        receiver = self.receivers[which % len(self.receivers)]
        mine = [name for name in self.names if reaches(receiver.listen_on, name) and not is_small(name)]
        if not mine:
            return
        name = mine[channel % len(mine)]
        (number,) = self.next_numbers(1)
        self.model.put(name, number)

        async def send_and_cancel() -> None:
            await self.layer.send(name, {"n": number})
            for candidate in self.candidates(name) if everybody else [receiver]:
                candidate.task.cancel()

        self.run(send_and_cancel())
        if again:
            self.start(receiver.listen_on)
        self.iterate(steps)

    @rule(members=st.sets(channels, min_size=1))
    def group_add(self, members: set[int]) -> None:
        for channel in members:
            self.run(self.layer.group_add(GROUP, self.names[channel]))
            self.model.members[self.names[channel]] = self.model.now + GROUP_EXPIRY_S

    @rule(channel=channels)
    def group_discard(self, channel: int) -> None:
        self.settle()  # a member that leaves may miss what it has not received
        self.run(self.layer.group_discard(GROUP, self.names[channel]))
        self.model.members.pop(self.names[channel], None)

    @rule(count=st.integers(1, 3))
    def group_send(self, count: int) -> None:
        for number in self.next_numbers(count):
            self.settle()
            for channel in self.model.present():
                self.model.put(channel, number)
            self.run(self.layer.group_send(GROUP, {"n": number}))

    @rule(seconds=st.sampled_from([60.0, 101.0, 401.0]))
    def time_passes(self, seconds: float) -> None:
        self.settle()
        # The layer's clock runs on by itself, so it may be a little ahead: no message's time may end within that.
        self.model.now += seconds

    @rule()
    def flush(self) -> None:
        self.settle()
        self.run(self.layer.flush())
        self.model.queues.clear()
        self.model.members.clear()

    @rule()
    def look_at_the_group(self) -> None:
        expected = sorted(self.model.present())
        assert self.run(self.layer.group_channels(GROUP)) == expected
        assert self.run(self.layer.group_count(GROUP)) == len(expected)

    @rule()
    def receive_all(self) -> None:
        """Nobody waits any more, and what is left on each channel is what the model says, in its order."""
        self.settle()
        self.run(self.end(self.receivers))
        self.settle()
        for name in self.names:
            expected = [number for number, _ in self.model.waiting(name)]
            received = [self.run(self.layer.receive(name))["n"] for _ in expected]
            assert received == expected, name
            self.model.queues[name].clear()
            # There is no more: what arrives first now is what is sent now.
            (number,) = self.next_numbers(1)
            self.run(self.layer.send(name, {"n": number}))
            assert self.run(self.layer.receive(name))["n"] == number, name

    # What must hold after each

    @invariant()
    def settle(self) -> None:
        """Whoever can have received something has, and received what the model says."""
        if not self.names:
            return
        self.loop.run_until_complete(self._due())
        self._compare()

    async def _due(self) -> None:
        """Wait until no receiver waits that has something to receive."""
        await asyncio.sleep(0)
        if self._overdue():
            await aeventually(lambda: not self._overdue(), DEADLINE_S, what="those who can receive something have")

    def _overdue(self) -> bool:
        """Whether some channel has messages left and a receiver that could take them."""
        left = {name: len(self.model.waiting(name)) for name in self.names}
        waiting: list[str] = []
        for receiver in self.receivers:
            if not receiver.task.done():
                waiting.append(receiver.listen_on)
            elif not receiver.task.cancelled() and receiver.task.exception() is None:
                name = self._channel_of(receiver)
                left[name] -= 1
        return any(left[name] > 0 and reaches(listen_on, name) for listen_on in waiting for name in self.names)

    def _channel_of(self, receiver: Waiting) -> str:
        message = receiver.task.result()
        name: str = message.get("__asgi_channel__", receiver.listen_on)
        return name

    def _compare(self) -> None:
        """Take what was received out of the model: of each channel its oldest messages, each once."""
        received: dict[str, list[int]] = {}
        still: list[Waiting] = []
        for receiver in self.receivers:
            if not receiver.task.done():
                still.append(receiver)
            elif not receiver.task.cancelled():
                message = receiver.task.result()
                assert ("__asgi_channel__" in message) == receiver.listen_on.endswith("!")
                received.setdefault(self._channel_of(receiver), []).append(message["n"])
        for name, numbers in received.items():
            messages = self.model.waiting(name)
            expected = [messages.popleft()[0] for _ in range(min(len(numbers), len(messages)))]
            # Receivers that waited at once may have come in any order.
            assert sorted(numbers) == expected, f"{name}: received {numbers}, not {expected}"
        for receiver in still:
            for name in self.names:
                left = [number for number, _ in self.model.waiting(name)]
                assert not (left and reaches(receiver.listen_on, name)), (
                    f"a receiver of {receiver.listen_on} still waits although {left} wait on {name}"
                )
        self.receivers = still


class UnkeptMachine(LayerMachine):
    """The same where rows go as soon as they are read."""

    retention = 0


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("machine", [LayerMachine, UnkeptMachine], ids=["kept", "retention 0"])
def test_layer_does_what_the_model_says(machine: type[LayerMachine]) -> None:
    run_histories(machine, 60)
