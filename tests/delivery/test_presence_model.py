"""Random histories of presence, on two layers over one file, compared with a model that fits on a page.

Either layer acts for any channel, its own, the other's or a normal one. What is told waits until it is drained, so that
it may be withdrawn, put together, or be of no effect. Then each list with what was told is the truth.
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

from channels_sqlite import Present
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.support import inside
from tests.support.databases import channel_database
from tests.support.machines import run_histories

T = TypeVar("T")

DEADLINE_S = 20.0
GROUP_EXPIRY_S = 100.0
CAPACITY = 3
GROUPS = ["red", "blue"]
KEYS = ["ann", "bob", "cid"]

Shown = dict[str, Any]
"""Key to info."""

layers = st.integers(0, 1)
channels = st.integers(0, 4)
groups = st.sampled_from(GROUPS)
keys = st.sampled_from(KEYS)
infos = st.integers(0, 2).map(lambda number: {"n": number})


@dataclass
class Place:
    """What a channel is in a group; its key is "" where it watches."""

    key: str
    info: Any
    turn: int
    ends: float


@dataclass
class Room:
    """One group."""

    members: dict[str, float] = field(default_factory=dict)
    """Channel to the end of its membership."""
    places: dict[str, Place] = field(default_factory=dict)

    def shown(self) -> dict[str, tuple[Any, int]]:
        """Key to its info and the number of its channels."""
        found: dict[str, tuple[Any, int]] = {}
        for place in sorted(self.places.values(), key=lambda place: place.turn):
            if place.key:
                found[place.key] = place.info, found.get(place.key, (None, 0))[1] + 1
        return found

    def infos(self) -> Shown:
        return {key: info for key, (info, _) in self.shown().items()}

    def end(self, channel: str) -> None:
        self.places.pop(channel, None)

    def expire(self, now: float) -> None:
        for channel in [name for name, ends in self.members.items() if ends <= now]:
            del self.members[channel]
            if (place := self.places.get(channel)) is not None and place.key:
                self.end(channel)
        for channel, place in list(self.places.items()):
            if not place.key and place.ends <= now:
                self.end(channel)


class PresenceMachine(RuleBasedStateMachine):
    encryption: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self.markers = 0
        self.rooms = {group: Room() for group in GROUPS}
        self.lists: dict[tuple[str, str], Shown] = {}
        """Group and channel to what the channel has been told."""
        self.farewells: set[tuple[str, str]] = set()
        """Those that hear no more, after what still waits for them."""
        self.names: list[str] = []
        self.cleaning = ExitStack()
        self.loop = asyncio.new_event_loop()
        self.cleaning.callback(self.loop.close)
        monkeypatch = self.cleaning.enter_context(pytest.MonkeyPatch.context())
        real_time = time.time
        monkeypatch.setattr(time, "time", lambda: real_time() + self.now)
        folder = self.cleaning.enter_context(tempfile.TemporaryDirectory())
        database = self.cleaning.enter_context(channel_database(Path(folder), alias="model"))
        self.layers = [
            SqliteChannelLayer(
                database=database.alias,
                expiry=10,
                group_expiry=GROUP_EXPIRY_S,
                capacity=CAPACITY,
                symmetric_encryption_keys=list(self.encryption) or None,
            )
            for _ in range(2)
        ]
        for layer in self.layers:
            self.cleaning.callback(self.close, layer)

    @initialize()
    def make_channels(self) -> None:
        self.names = [self.run(self.layers[n // 2].new_channel()) for n in range(4)] + ["normal"]

    def teardown(self) -> None:
        try:
            if self.names:
                self.compare()
        finally:
            self.cleaning.close()

    # Steps

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, DEADLINE_S))

    def close(self, layer: SqliteChannelLayer) -> None:
        self.run(layer.close())

    def owner(self, channel: str) -> SqliteChannelLayer:
        """The layer that receives there."""
        return self.layers[0 if channel == "normal" else self.names.index(channel) // 2]

    def read(self) -> None:
        """Have both layers read what the other has told."""
        for layer in self.layers:
            engine_of(layer).inbox.reader.pull()

    def listed(self, group: str, channel: str, listed: list[Present[Any]]) -> None:
        """Compare a list that a channel got, and note it."""
        room = self.rooms[group]
        assert {one.key: (one.info, one.channels) for one in listed} == room.shown()
        self.lists[group, channel] = {one.key: one.info for one in listed}
        self.farewells.discard((group, channel))

    def ended(self, group: str, channel: str) -> None:
        self.lists.pop((group, channel), None)
        self.farewells.discard((group, channel))

    def drain(self, channel: str) -> None:
        """Receive all that waits on a channel."""
        self.read()
        self.markers += 1
        layer = self.owner(channel)
        self.run(layer.send(channel, {"type": "marker", "number": self.markers}))
        self.read()
        while (message := self.run(layer.receive(channel)))["type"] != "marker":
            if message["type"] == "presence.diff":
                self.apply(channel, message)
        assert message["number"] == self.markers
        for group in GROUPS:
            if (group, channel) in self.farewells:
                assert self.lists[group, channel] == {}
                self.ended(group, channel)

    def apply(self, channel: str, diff: dict[str, Any]) -> None:
        shown = self.lists[diff["group"], channel]  # a KeyError: it hears what it should not
        assert diff["joins"] or diff["leaves"] or diff["updates"]
        for key, info in diff["leaves"].items():
            assert shown.pop(key) == info
        for key, info in diff["joins"].items():
            assert key not in shown
            shown[key] = info
        for key, info in diff["updates"].items():
            assert shown[key] != info
            shown[key] = info

    def compare(self) -> None:
        for channel in self.names:
            self.drain(channel)
        for group, room in self.rooms.items():
            hearing = {channel for at, channel in self.lists if at == group}
            assert hearing == room.places.keys()
            for channel in hearing:
                assert self.lists[group, channel] == room.infos(), channel
            for layer in self.layers:
                listed = self.run(layer.presence_list(group))
                assert {one.key: (one.info, one.channels) for one in listed} == room.shown()
                assert self.run(layer.presence_count(group)) == len(room.shown())
                assert self.run(layer.group_channels(group)) == sorted(room.members)
        for key in KEYS:
            places = sorted(group for group, room in self.rooms.items() if key in room.shown())
            assert self.run(self.layers[0].presence_groups(key)) == places

    # Rules

    @rule(by=layers, which=channels, group=groups, key=keys, info=infos)
    def join(self, by: int, which: int, group: str, key: str, info: Any) -> None:
        channel, room = self.names[which], self.rooms[group]
        self.turns += 1
        ends = self.now + GROUP_EXPIRY_S
        room.members[channel] = ends
        room.places[channel] = Place(key, info, self.turns, ends)
        listed = self.run(self.layers[by].presence_join(group, channel, key, info))
        self.read()
        self.listed(group, channel, listed)

    @rule(by=layers, which=channels, group=groups)
    def watch(self, by: int, which: int, group: str) -> None:
        channel, room = self.names[which], self.rooms[group]
        ends = self.now + GROUP_EXPIRY_S
        place = room.places.setdefault(channel, Place("", None, 0, ends))
        place.ends = ends
        if place.key:
            room.members[channel] = ends
        listed = self.run(self.layers[by].presence_watch(group, channel))
        self.read()
        self.listed(group, channel, listed)

    @rule(by=layers, which=channels, group=groups, info=infos)
    def update(self, by: int, which: int, group: str, info: Any) -> None:
        channel, room = self.names[which], self.rooms[group]
        place = room.places.get(channel)
        updating = self.layers[by].presence_update(group, channel, info)
        if place is None or not place.key:
            with pytest.raises(ValueError, match="is not present"):
                self.run(updating)
            return
        place.info, place.ends = info, self.now + GROUP_EXPIRY_S
        room.members[channel] = place.ends
        self.run(updating)
        self.read()

    @rule(by=layers, which=channels, group=groups)
    def leave(self, by: int, which: int, group: str) -> None:
        channel, room = self.names[which], self.rooms[group]
        place = room.places.get(channel)
        if place is not None:
            if place.key:
                del room.members[channel]
            room.end(channel)
            self.ended(group, channel)
        self.run(self.layers[by].presence_leave(group, channel))
        self.read()

    @rule(by=layers, which=channels, group=groups)
    def discard(self, by: int, which: int, group: str) -> None:
        channel, room = self.names[which], self.rooms[group]
        room.members.pop(channel, None)
        if channel in room.places:
            room.end(channel)
            self.ended(group, channel)
        self.run(self.layers[by].group_discard(group, channel))
        self.read()

    @rule(by=layers, which=channels, group=groups)
    def add(self, by: int, which: int, group: str) -> None:
        channel, room = self.names[which], self.rooms[group]
        room.members[channel] = self.now + GROUP_EXPIRY_S
        self.run(self.layers[by].group_add(group, channel))
        self.read()

    @rule(by=layers)
    def flush(self, by: int) -> None:
        self.farewells |= self.lists.keys()
        self.rooms = {group: Room() for group in GROUPS}
        self.run(self.layers[by].flush())

    @rule(seconds=st.sampled_from([30.0, 60.0, 120.0]))
    def wait(self, seconds: float) -> None:
        self.read()
        self.now += seconds
        before = {(group, channel) for group, room in self.rooms.items() for channel in room.places}
        for room in self.rooms.values():
            room.expire(self.now)
        for group, channel in before:
            if channel not in self.rooms[group].places:
                self.ended(group, channel)
        engine = engine_of(self.layers[0])
        self.run(engine.ready())
        self.run(inside.background(engine).acall(inside.housekeeping(engine).trimming.end_expired))
        self.read()

    @rule(which=channels)
    def receive_on(self, which: int) -> None:
        self.drain(self.names[which])

    @rule()
    def all_agree(self) -> None:
        self.compare()


class EncryptedMachine(PresenceMachine):
    """The same where infos look different each time."""

    encryption: tuple[str, ...] = ("a key",)


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("machine", [PresenceMachine, EncryptedMachine], ids=["plain", "encrypted"])
def test_every_history_agrees_with_the_model(machine: type[PresenceMachine]) -> None:
    run_histories(machine, 40)


@pytest.mark.parametrize("machine", [PresenceMachine, EncryptedMachine], ids=["plain", "encrypted"])
def test_a_second_flush_leaves_the_last_word_of_the_first(machine: type[PresenceMachine]) -> None:
    state = machine()
    try:
        state.make_channels()
        state.join(by=0, which=0, group=GROUPS[0], key=KEYS[0], info={"n": 0})
        state.flush(by=1)
        state.flush(by=0)
    finally:
        state.teardown()


def test_what_a_flush_tells_of_several_groups_is_not_mixed_up_where_it_is_put_together() -> None:
    """Two channels of one key in two groups: the second to come changes an info, as encryption has it."""
    state = EncryptedMachine()
    try:
        state.make_channels()
        for which in (1, 0):
            for group in GROUPS:
                state.join(by=0, which=which, group=group, key=KEYS[0], info={"n": 0})
        state.flush(by=0)
        state.all_agree()
    finally:
        state.teardown()


@pytest.mark.parametrize("machine", [PresenceMachine, EncryptedMachine], ids=["plain", "encrypted"])
@pytest.mark.parametrize("by", [0, 1])
def test_who_is_added_again_after_a_flush_keeps_its_last_word(by: int, machine: type[PresenceMachine]) -> None:
    state = machine()
    try:
        state.make_channels()
        state.join(by=0, which=2, group=GROUPS[0], key=KEYS[0], info={"n": 0})
        state.flush(by=0)
        state.add(by=by, which=2, group=GROUPS[0])
        state.discard(by=by, which=2, group=GROUPS[0])
        state.all_agree()
    finally:
        state.teardown()


@pytest.mark.parametrize("machine", [PresenceMachine, EncryptedMachine], ids=["plain", "encrypted"])
def test_who_joins_and_leaves_after_a_flush_hears_no_more(machine: type[PresenceMachine]) -> None:
    state = machine()
    try:
        state.make_channels()
        state.join(by=0, which=2, group=GROUPS[0], key=KEYS[0], info={"n": 0})
        state.flush(by=0)
        channel = state.names[2]
        # Both before the channel's own layer reads of the flush.
        for work in (
            state.layers[0].presence_join(GROUPS[0], channel, KEYS[0], {"n": 1}),
            state.layers[0].presence_leave(GROUPS[0], channel),
        ):
            state.run(work)
        state.ended(GROUPS[0], channel)
        state.all_agree()
    finally:
        state.teardown()
