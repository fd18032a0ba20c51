"""Who is here, in many processes that come, change, leave, die, stop and go on: all lists are the truth."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.processes.attending import Lists, Slot, attend
from tests.processes.evidence import (
    BURIAL_DEADLINE_S,
    SETTLE_DEADLINE_S,
    client_of,
    registered_clients,
    suspend_without_the_lock,
)
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ChildProcess, ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

GROUPS = ["red", "blue"]
KEYS = ["ann", "bob", "cid", "dee"]
SLOTS = 3
CROWD = 3
ROUNDS = 8
ORDERS = 4
"""Of each process in a round."""

CONFIG: dict[str, Any] = {"capacity": 5, "group_expiry": None}


@dataclass
class Other:
    """A process, and what the channels in its slots are by what it was told: (key, infos), with "" for who watches."""

    child: ChildProcess
    channels: list[str]
    places: dict[tuple[int, str], tuple[str, Any]] = field(default_factory=dict)
    suspended: bool = False

    @property
    def client(self) -> str:
        return client_of(self.channels[0])


class Crowd:
    """The processes of one test, and who watches them."""

    def __init__(self, seed: int, database: ChannelDatabase, start: ProcessFactory, watchers: list[Slot]) -> None:
        self.random = random.Random(seed)
        self._database = database
        self._start = start
        self.watchers = watchers
        self.others: list[Other] = []
        self._infos = 0
        self._markers = 0

    async def grow(self) -> None:
        """Start the processes that are missing."""
        children = [
            self._start(attend, database=self._database, config=CONFIG, slots=SLOTS)
            for _ in range(CROWD - len(self.others))
        ]
        self.others += [Other(child, await child.ahear()) for child in children]

    def order(self, other: Other) -> None:
        """Tell a process to do something, and note what it will be then."""
        slot, group = self.random.randrange(SLOTS), self.random.choice(GROUPS)
        place = other.places.get((slot, group))
        ways = ["join", "join", "join", "watch", "leave", "discard"]
        if place is not None and place[0]:
            ways += ["update", "update"]
        way = self.random.choice(ways)
        arguments: list[Any] = []
        if way in ("join", "update"):
            self._infos += 1
            info = {"n": self._infos} if self.random.random() < 0.7 else {"same": True}
            key = self.random.choice(KEYS) if way == "join" or place is None else place[0]
            arguments = [key, info] if way == "join" else [info]
            other.places[slot, group] = key, info
        elif way == "watch":
            other.places.setdefault((slot, group), ("", None))
        else:
            other.places.pop((slot, group), None)
        other.child.say([slot, way, group, *arguments])

    async def live_on(self) -> None:
        """Have all do something at once, while one of them dies or stops, or none does."""
        for other in self.others:
            if self.random.random() < 0.5:
                self.resume(other)
        running = [other for other in self.others if not other.suspended]
        for _ in range(ORDERS):
            for other in running:
                self.order(other)
        victim = self.random.choice(self.others)
        fate = self.random.choice(["live", "die", "stop"])
        if fate == "die":
            self.kill(victim)  # in the middle of what it was told
        for other in running:
            if other in self.others:
                assert [await other.child.ahear() for _ in range(ORDERS)] == ["done"] * ORDERS
        if fate == "stop" and not victim.suspended:
            suspend_without_the_lock(victim.child, self._database)
            victim.suspended = True

    def resume(self, other: Other) -> None:
        if other.suspended:
            other.child.resume()
            other.suspended = False

    def kill(self, other: Other) -> None:
        self.resume(other)
        other.child.kill()
        self.others.remove(other)

    async def until_buried(self) -> None:
        """Wait until nothing is left of the processes that were killed."""

        def all_live() -> bool:
            living = {other.client for other in self.others} | {client_of(self.watchers[0].channel)}
            return registered_clients(self._database) <= living

        await aeventually(all_live, BURIAL_DEADLINE_S + SETTLE_DEADLINE_S)

    def expected(self) -> dict[str, dict[str, list[Any]]]:
        """By group and key, the infos of all channels of that key: one of them is shown."""
        found: dict[str, dict[str, list[Any]]] = {group: {} for group in GROUPS}
        for other in self.others:
            for (_, group), (key, info) in other.places.items():
                if key:
                    found[group].setdefault(key, []).append(info)
        return found

    async def heard(self) -> list[Lists]:
        """What every channel here and in processes that run has made of its list, at a quiet point."""
        self._markers += 1
        layer = self.watchers[0].layer
        running = [other for other in self.others if not other.suspended]
        marker = {"type": "marker", "number": self._markers}
        for channel in [slot.channel for slot in self.watchers] + [name for one in running for name in one.channels]:
            await layer.send(channel, marker)
        for other in running:
            other.child.say(["marker", self._markers])
        found = [await slot.until_marked(self._markers) for slot in self.watchers]
        for other in running:
            lists = await other.child.ahear(SETTLE_DEADLINE_S)
            for slot in range(SLOTS):
                assert set(lists[slot]) == {group for at, group in other.places if at == slot}
            found += lists
        return found

    async def compare(self) -> None:
        """At a quiet point: what is listed is what was ordered, and what all have heard is what is listed."""
        truth: Lists = {}
        for group, keys in self.expected().items():
            listed = await self.watchers[0].layer.presence_list(group)
            assert {one.key: one.channels for one in listed} == {key: len(infos) for key, infos in keys.items()}
            assert all(one.info in keys[one.key] for one in listed)
            truth[group] = {one.key: one.info for one in listed}
        for lists in await asyncio.wait_for(self.heard(), SETTLE_DEADLINE_S):
            for group, shown in lists.items():
                assert shown == truth[group]


@pytest.mark.parametrize("seed", range(4))
async def test_lists_and_diffs_are_the_truth_whatever_becomes_of_the_processes(
    seed: int, database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    layer = make_layer(**CONFIG)
    watchers = [Slot(layer, await layer.new_channel()), Slot(layer, "normal")]
    crowd = Crowd(seed, database, start_process, watchers)
    try:
        for watcher in watchers:
            for group in GROUPS:
                await watcher.do("watch", group)
        for _ in range(ROUNDS):
            await crowd.grow()
            await crowd.live_on()
            await crowd.until_buried()
            await crowd.compare()
        for other in crowd.others:
            crowd.resume(other)
        await crowd.compare()
        for other in list(crowd.others):
            crowd.kill(other)
        await crowd.until_buried()
        await crowd.compare()
    finally:
        for watcher in watchers:
            await watcher.stop()


async def test_a_suspended_process_stays_present_and_a_killed_one_goes(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    layer = make_layer()
    watcher = Slot(layer, await layer.new_channel())
    await watcher.do("watch", "room")
    try:
        child = start_process(attend, database=database, slots=2)
        (first, _) = await child.ahear()
        for slot in range(2):
            child.say([slot, "join", "room", "ann", {"name": "Ann"}])
            assert await child.ahear() == "done"
        await aeventually(lambda: watcher.lists["room"] == {"ann": {"name": "Ann"}}, SETTLE_DEADLINE_S)
        suspend_without_the_lock(child, database)
        other = make_layer()  # looks for the dead before it lists
        (listed,) = await other.presence_list("room")
        assert (listed.key, listed.channels) == ("ann", 2)
        await other.presence_update("room", first, {"name": "Ann B."})  # of the older tab: nothing to see
        child.resume()
        child.say([0, "leave", "room"])
        assert await child.ahear() == "done"
        assert watcher.lists["room"] == {"ann": {"name": "Ann"}}
        child.kill()
        await aeventually(lambda: watcher.lists["room"] == {}, BURIAL_DEADLINE_S + SETTLE_DEADLINE_S)
    finally:
        await watcher.stop()


async def test_the_first_process_after_all_were_killed_lists_nobody(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    children = [start_process(attend, database=database, slots=1) for _ in range(2)]
    for child, key in zip(children, ["ann", "bob"], strict=True):
        await child.ahear()
        child.say([0, "join", "room", key, {}])
        assert await child.ahear() == "done"
    for child in children:
        child.kill()
    layer = make_layer()
    assert await layer.presence_list("room") == []
    assert await layer.presence_count("room") == 0


async def test_a_process_that_ends_says_goodbye_at_once(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    layer = make_layer()
    watcher = await layer.new_channel()
    await layer.presence_watch("room", watcher)
    child = start_process(attend, database=database, slots=1)
    await child.ahear()
    child.say([0, "join", "room", "ann", {}])
    assert await child.ahear() == "done"
    assert (await asyncio.wait_for(layer.receive(watcher), SETTLE_DEADLINE_S))["joins"] == {"ann": {}}
    child.say(["end"])
    child.wait()
    assert await layer.presence_list("room") == []
    assert (await asyncio.wait_for(layer.receive(watcher), SETTLE_DEADLINE_S))["leaves"] == {"ann": {}}
