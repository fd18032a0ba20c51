"""Random histories of two layers on one file, compared with a model that fits on a page.

Hypothesis makes up sequences of sends, subscriptions, readings, receives, departures, flushes, restarts, trimming and
time that passes. What is read and what arrives must be what the model says, and `recovered` must be true exactly where
nothing is missing.
"""

import asyncio
import tempfile
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from channels_sqlite import History
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.support import inside
from tests.support.databases import channel_database
from tests.support.machines import run_histories

T = TypeVar("T")

DEADLINE_S = 20.0
SIZE = 4
TTL_S = 1000.0
WAIT_S = 140.0  # no multiple of it is near the ttl
GROUPS = ("room.1", "room.2")
CHANNELS = 3  # the last one is the other layer's

layers_of = st.integers(0, 1)
groups = st.sampled_from(GROUPS)
channels = st.integers(0, CHANNELS - 1)


@dataclass(frozen=True)
class Sent:
    place: int  # in the order of all
    number: int
    group: str
    at: float
    kept: bool


@dataclass
class Model:
    now: float = 0.0
    epoch: int = 0
    sent: list[Sent] = field(default_factory=list)
    """Since the last flush."""
    places: int = 0
    waiting: dict[int, list[Sent]] = field(default_factory=lambda: {number: [] for number in range(CHANNELS)})
    members: set[tuple[str, int]] = field(default_factory=set)
    positions: list[tuple[str, int, int]] = field(default_factory=list)
    """(position, place that it stands for, epoch)."""

    def history(self, group: str) -> list[Sent]:
        """What is kept of a group."""
        newest = [sent for sent in self.sent if sent.group == group and sent.kept][-SIZE:]
        return [sent for sent in newest if self.now - sent.at < TTL_S]

    def after(self, group: str, place: int, epoch: int) -> tuple[list[Sent], bool]:
        """What there is after a position, and whether that is all there was."""
        history = self.history(group)
        if epoch != self.epoch:
            return history, False
        wanted = [sent for sent in self.sent if sent.group == group and sent.kept and sent.place > place]
        found = [sent for sent in history if sent.place > place]
        return (found, True) if found == wanted else (found, False)


class HistoryMachine(RuleBasedStateMachine):
    retention = 86400.0

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.numbers = 0
        self.cleaning = ExitStack()
        self.loop = asyncio.new_event_loop()
        self.cleaning.callback(self.loop.close)
        monkeypatch = self.cleaning.enter_context(pytest.MonkeyPatch.context())
        real_time = time.time
        monkeypatch.setattr(time, "time", lambda: real_time() + self.model.now)
        folder = self.cleaning.enter_context(tempfile.TemporaryDirectory())
        database = self.cleaning.enter_context(channel_database(Path(folder), alias="model"))
        self.layers = [
            SqliteChannelLayer(
                database=database.alias,
                expiry=10**7,  # what waits, waits
                group_expiry=None,
                capacity=100_000,
                message_retention=self.retention,
                history={"room.*": {"size": SIZE, "ttl": TTL_S}},
                trim_batch_size=2,
            )
            for _ in range(2)
        ]
        for layer in self.layers:
            self.cleaning.callback(self.close, layer)
        self.names: list[str] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, DEADLINE_S))

    def close(self, layer: SqliteChannelLayer) -> None:
        self.run(layer.close())

    def owner(self, channel: int) -> SqliteChannelLayer:
        return self.layers[channel == CHANNELS - 1]

    @initialize()
    def make_channels(self) -> None:
        self.names = [self.run(self.owner(channel).new_channel()) for channel in range(CHANNELS)]

    # What is done

    @rule(layer=layers_of, group=groups, kept=st.sampled_from([True, True, True, False]))
    def send(self, layer: int, group: str, kept: bool) -> None:
        self.numbers += 1
        self.run(self.layers[layer].group_send(group, {"n": self.numbers}, history=kept))
        self.note_sent(group, [self.numbers], kept=kept)

    @rule(layer=layers_of, group=groups, count=st.integers(2, SIZE + 3))
    def send_many(self, layer: int, group: str, count: int) -> None:
        numbers = list(range(self.numbers + 1, self.numbers + 1 + count))
        self.numbers += count
        self.run(self.layers[layer].group_send_many(group, [{"n": number} for number in numbers]))
        self.note_sent(group, numbers, kept=True)

    def note_sent(self, group: str, numbers: list[int], *, kept: bool) -> None:
        for number in numbers:
            self.model.places += 1
            sent = Sent(self.model.places, number, group, self.model.now, kept)
            self.model.sent.append(sent)
            for channel in range(CHANNELS):
                if (group, channel) in self.model.members:
                    self.model.waiting[channel].append(sent)

    @rule(group=groups, channel=channels, data=st.data())
    def subscribe(self, group: str, channel: int, data: st.DataObject) -> None:
        question, expected, recovered = self.ask(group, data)
        history = self.run(self.owner(channel).group_subscribe(group, self.names[channel], **question))
        self.compare(history, expected, recovered=recovered)
        self.model.members.add((group, channel))
        self.model.waiting[channel] = [sent for sent in self.model.waiting[channel] if sent not in expected]

    @rule(layer=layers_of, group=groups, data=st.data())
    def read(self, layer: int, group: str, data: st.DataObject) -> None:
        question, expected, recovered = self.ask(group, data)
        history = self.run(self.layers[layer].group_history(group, **question))
        self.compare(history, expected, recovered=recovered)

    def ask(self, group: str, data: st.DataObject) -> tuple[dict[str, Any], list[Sent], bool]:
        """Make up a question; return what must be the answer as well."""
        kind = data.draw(st.sampled_from(["nothing", "last", "since", "since", "since"]))
        if kind == "last":
            last = data.draw(st.integers(1, SIZE + 1))
            return {"last": last}, self.model.history(group)[-last:], True
        if kind == "since" and self.model.positions:
            position, place, epoch = data.draw(st.sampled_from(self.model.positions))
            return {"since": position}, *self.model.after(group, place, epoch)
        return {}, [], True

    def compare(self, history: History[Any], expected: list[Sent], *, recovered: bool) -> None:
        assert [entry.message["n"] for entry in history.entries] == [sent.number for sent in expected]
        assert history.recovered is recovered
        for entry, sent in zip(history.entries, expected, strict=True):
            self.model.positions.append((entry.position, sent.place, self.model.epoch))
        self.model.positions.append((history.position, self.model.places, self.model.epoch))

    @rule(channel=channels, count=st.integers(1, 4))
    def receive(self, channel: int, count: int) -> None:
        for sent in self.model.waiting[channel][:count]:
            message = self.run(self.owner(channel).receive(self.names[channel]))
            assert message["n"] == sent.number
            assert ("__position__" in message) is sent.kept
            if sent.kept:
                self.model.positions.append((message["__position__"], sent.place, self.model.epoch))
        del self.model.waiting[channel][:count]

    @rule(group=groups, channel=channels)
    def leave(self, group: str, channel: int) -> None:
        # What was sent before may be dropped or not, so that nothing waits there now.
        self.receive(channel, len(self.model.waiting[channel]))
        self.run(self.owner(channel).group_discard(group, self.names[channel]))
        self.model.members.discard((group, channel))

    @rule(steps=st.integers(1, 5))
    def pass_time(self, steps: int) -> None:
        self.model.now += steps * WAIT_S

    @rule(layer=layers_of)
    def trim(self, layer: int) -> None:
        engine = engine_of(self.layers[layer])
        self.run(engine.ready())
        self.run(inside.background(engine).acall(inside.housekeeping(engine).histories.trim_fully))

    @rule(layer=layers_of)
    def flush(self, layer: int) -> None:
        self.run(self.layers[layer].flush())
        # The other process hears of it when it next reads.
        for channel in range(CHANNELS):
            self.run(self.owner(channel).send(self.names[channel], {"n": "mark"}))
            while self.run(self.owner(channel).receive(self.names[channel]))["n"] != "mark":
                pass
        self.model = Model(
            self.model.now, self.model.epoch + 1, places=self.model.places, positions=self.model.positions
        )

    @rule()
    def restart(self) -> None:
        """Both processes end and begin again, with other channels."""
        for layer in self.layers:
            self.run(layer.close())
        self.make_channels()
        self.model.members.clear()
        self.model.waiting = {number: [] for number in range(CHANNELS)}

    def teardown(self) -> None:
        with self.cleaning:
            for channel in range(CHANNELS if self.names else 0):
                self.receive(channel, len(self.model.waiting[channel]))
                self.run(self.owner(channel).send(self.names[channel], {"n": "mark"}))
                assert self.run(self.owner(channel).receive(self.names[channel])) == {"n": "mark"}


class UnkeptMachine(HistoryMachine):
    """The same where rows go as soon as they are read."""

    retention = 0.0


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("machine", [HistoryMachine, UnkeptMachine], ids=["kept", "retention 0"])
def test_histories_are_what_the_model_says(machine: type[HistoryMachine]) -> None:
    run_histories(machine, 40)
