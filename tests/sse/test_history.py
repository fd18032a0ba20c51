"""Streams of groups with history: who comes back gets what he missed, once and in order."""

import asyncio
import json
import random
import re
from typing import Any

import pytest
from channels.layers import BaseChannelLayer

from channels_sqlite.codec import Message
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.sse.sources import Caught, OwnSource
from tests.sse.conftest import VisitFactory
from tests.sse.event_source import EventSource, Heard
from tests.sse.test_live import gone, said
from tests.sse.test_slow import arrived, stuck
from tests.sse.visits import Visit
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

DEADLINE_S = 10.0
GROUPS = ("room", "news")
HISTORY = {"room": {"size": 100, "ttl": 300}, "news": {"size": 100, "ttl": 300}}

Elsewhere = tuple[SqliteChannelLayer, str]


@pytest.fixture
def keeping(make_default: LayerFactory) -> SqliteChannelLayer:
    """A layer that keeps what both groups of the pages are sent."""
    return make_default(history=HISTORY)


def numbers(events: list[Heard]) -> list[int]:
    return [json.loads(event.data)["n"] for event in events if event.type == "room.said"]


async def hears_numbers(here: Visit, expected: list[int]) -> None:
    """Return once the numbers that were heard are these."""
    await aeventually(lambda: len(numbers(here.events)) >= len(expected), DEADLINE_S, what=f"{expected}")
    assert numbers(here.events) == expected


async def position_of(layer: SqliteChannelLayer, group: str = "room") -> str:
    return (await layer.group_history(group)).position


async def send(layer: BaseChannelLayer, *ns: int) -> None:
    """Send these numbers to the groups in turn."""
    for n in ns:
        await layer.group_send(GROUPS[n % 2], said(n))


# Ids


async def test_on_connecting_there_is_the_present_position_and_no_event(
    keeping: SqliteChannelLayer, visit: VisitFactory
) -> None:
    await send(keeping, 1, 2)
    here = await visit().begun()
    assert b"".join(here.chunks) == f":\n\nid: {await position_of(keeping)}\n\n".encode()
    assert here.events == []


async def test_the_id_of_an_event_is_its_position(keeping: SqliteChannelLayer, visit: VisitFactory) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("room", channel)
    here = await visit().begun()
    await keeping.group_send("room", said(1))
    await here.hears('{"n":1}')
    message = await keeping.receive(channel)
    assert here.events[0].last_event_id == message["__position__"]


async def test_a_client_that_had_no_event_yet_resumes(keeping: SqliteChannelLayer, visit: VisitFactory) -> None:
    await send(keeping, 0)
    here = await visit().begun()
    await here.leave()
    await send(keeping, 1, 2)
    again = await visit(source=here.source).begun()
    await again.hears('{"n":1}', '{"n":2}')


async def test_a_client_that_has_all_gets_nothing_twice(keeping: SqliteChannelLayer, visit: VisitFactory) -> None:
    here = await visit().begun()
    await send(keeping, 1, 2)
    await here.hears('{"n":1}', '{"n":2}')
    await here.leave()
    again = await visit(source=here.source).begun()
    await send(keeping, 3)
    await again.hears('{"n":1}', '{"n":2}', '{"n":3}')


async def test_who_comes_back_gets_what_was_missed_in_order_across_the_groups(
    keeping: SqliteChannelLayer, visit: VisitFactory
) -> None:
    here = await visit().begun()
    await send(keeping, 1)
    await here.hears('{"n":1}')
    await here.leave()
    missed = [2, 4, 6, 3, 5, 8, 7]
    await send(keeping, *missed)
    again = await visit(source=here.source).begun()
    await hears_numbers(again, [1, *missed])
    await send(keeping, 9, 10)
    await hears_numbers(again, [1, *missed, 9, 10])
    assert {event.type for event in again.events} == {"room.said"}


async def test_after_what_was_missed_there_is_the_present_position(
    keeping: SqliteChannelLayer, visit: VisitFactory
) -> None:
    here = await visit().begun()
    await here.leave()
    await send(keeping, 1)
    await keeping.send("jobs", {})  # something that is none of the stream's
    again = await visit(source=here.source).begun()
    await hears_numbers(again, [1])
    position = await position_of(keeping)
    await aeventually(lambda: again.source.last_event_id == position, DEADLINE_S)
    assert again.events[-1].last_event_id != position


async def test_live_messages_and_those_of_the_history_look_alike(
    keeping: SqliteChannelLayer, visit: VisitFactory, options: dict[str, Any]
) -> None:
    seen: list[Message] = []

    def encode(message: Message) -> str:
        seen.append(message)
        return "said"

    options["encode"] = encode
    here = await visit().begun()
    await keeping.group_send("room", said(1))
    await here.hears("said")
    await here.leave()
    await keeping.group_send("room", said(1))
    again = await visit(source=here.source).begun()
    await again.hears("said", "said")
    assert seen == [said(1), said(1)]


async def test_what_is_not_kept_has_no_id_and_is_not_read_again(
    keeping: SqliteChannelLayer, visit: VisitFactory
) -> None:
    here = await visit().begun()
    await keeping.group_send("room", said(1))
    await keeping.group_send("room", said(2), history=False)
    await hears_numbers(here, [1, 2])
    assert here.events[1].last_event_id == here.events[0].last_event_id
    assert b'event: room.said\ndata: {"n":2}\n\n' in b"".join(here.chunks)
    await here.leave()
    await keeping.group_send("room", said(3), history=False)
    await keeping.group_send("room", said(4))
    again = await visit(source=here.source).begun()
    await hears_numbers(again, [1, 2, 4])


async def test_whoever_comes_and_goes_hears_everything_once_while_several_send(
    keeping: SqliteChannelLayer, visit: VisitFactory
) -> None:
    chance = random.Random(5)
    source = EventSource()
    total = 90

    async def speak(first: int) -> None:
        for n in range(first, total, 3):
            await keeping.group_send(chance.choice(GROUPS), said(n))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)

    here = await visit(source=source).begun()  # the position from which on nothing is missed
    speaking = [asyncio.create_task(speak(first)) for first in range(3)]
    while not all(task.done() for task in speaking):
        for _ in range(chance.randrange(40)):
            await asyncio.sleep(0)
        await here.leave()
        here = visit(source=source)
    await aeventually(lambda: len(numbers(source.events)) >= total, DEADLINE_S, what="everything")
    heard = numbers(source.events)
    assert sorted(heard) == list(range(total))
    for first in range(3):
        assert [n for n in heard if n % 3 == first] == list(range(first, total, 3))
    ids = [int(event.last_event_id.rpartition("-")[2]) for event in source.events]
    assert ids == sorted(ids)
    assert {event.type for event in source.events} == {"room.said"}
    await here.leave()
    await gone(keeping)


# The beginning


async def test_last_gives_the_newest_of_the_groups_together(
    keeping: SqliteChannelLayer, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["last"] = 3
    await send(keeping, 1, 3, 5, 2, 4)
    here = await visit().begun()
    await hears_numbers(here, [5, 2, 4])
    await send(keeping, 6)
    await hears_numbers(here, [5, 2, 4, 6])
    assert {event.type for event in here.events} == {"room.said"}


async def test_last_event_id_wins_over_last(
    keeping: SqliteChannelLayer, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["last"] = 1
    await send(keeping, 1, 2)
    position = await position_of(keeping)
    await send(keeping, 3, 4, 5)
    source = EventSource()
    source.last_event_id = position
    here = await visit(source=source).begun()
    await hears_numbers(here, [3, 4, 5])


@pytest.mark.parametrize("last", [None, 2])
async def test_an_empty_last_event_id_counts_as_none(
    keeping: SqliteChannelLayer, visit: VisitFactory, options: dict[str, Any], last: int | None
) -> None:
    options["last"] = last
    await send(keeping, 1, 2, 3)
    here = await visit(headers={"Last-Event-ID": ""}).begun()
    await send(keeping, 4)
    await hears_numbers(here, [4] if last is None else [2, 3, 4])
    assert {event.type for event in here.events} == {"room.said"}


# What cannot be had


async def too_old(layer: SqliteChannelLayer) -> str:
    position = await position_of(layer)
    await send(layer, *range(1000, 1400))
    return position


async def of_another_layer(layer: SqliteChannelLayer) -> str:
    kind, _, number = (await position_of(layer)).rpartition("-")
    return f"{kind[::-1]}x-{number}"


async def from_before_a_flush(layer: SqliteChannelLayer) -> str:
    position = await position_of(layer)
    await layer.flush()
    return position


async def malformed(_: SqliteChannelLayer) -> str:
    return "no position at all"


@pytest.mark.parametrize("make_id", [too_old, of_another_layer, from_before_a_flush, malformed])
async def test_where_that_cannot_be_had_there_is_a_reset_and_then_what_is_kept(
    make_default: LayerFactory, visit: VisitFactory, make_id: Any
) -> None:
    layer = make_default(history={"room": {"size": 3, "ttl": 300}, "news": {"size": 2, "ttl": 300}})
    source = EventSource()
    source.last_event_id = await make_id(layer)
    await send(layer, *range(10))
    here = await visit(source=source).begun()
    await hears_numbers(here, [4, 6, 7, 8, 9])
    first = here.events[0]
    assert (first.type, first.data, first.last_event_id) == ("reset", "", await position_of(layer))
    assert [event.type for event in here.events].count("reset") == 1
    await send(layer, 10)
    await hears_numbers(here, [4, 6, 7, 8, 9, 10])
    # From then on it can come back.
    await here.leave()
    await send(layer, 11)
    again = await visit(source=source).begun()
    await hears_numbers(again, [4, 6, 7, 8, 9, 10, 11])
    assert [event.type for event in again.events].count("reset") == 1


async def test_a_reset_of_one_group_gives_what_is_kept_of_all(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default(history={"room": {"size": 2, "ttl": 300}, "news": {"size": 100, "ttl": 300}})
    await send(layer, 1, 3)
    source = EventSource()
    source.last_event_id = await position_of(layer)
    await send(layer, 2, 4, 6, 8, 5)  # too many for the room, and not for the news
    here = await visit(source=source).begun()
    await hears_numbers(here, [1, 3, 6, 8, 5])
    assert here.events[0].type == "reset"


async def test_a_reset_with_nothing_kept_says_so_all_the_same(keeping: SqliteChannelLayer, visit: VisitFactory) -> None:
    source = EventSource()
    source.last_event_id = "garbage"
    here = await visit(source=source).begun()
    await aeventually(lambda: here.events, DEADLINE_S)
    assert here.events == [Heard("reset", "", await position_of(keeping))]


async def test_a_flush_under_way_is_a_reset_and_the_stream_goes_on(
    keeping: SqliteChannelLayer, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["heartbeat"] = 0.05
    here = await visit().begun()
    await send(keeping, 1)
    await hears_numbers(here, [1])
    await keeping.flush()
    await aeventually(lambda: here.events[-1].type == "reset", DEADLINE_S)
    await send(keeping, 2)
    await hears_numbers(here, [1, 2])


# Groups without history


async def test_groups_without_history_take_no_part_in_any_of_this(
    make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["last"] = 10
    layer = make_default(history={"room": {"size": 100, "ttl": 300}})
    await send(layer, 1, 2, 3)
    here = await visit().begun()
    await hears_numbers(here, [2])
    await send(layer, 4, 5)
    await hears_numbers(here, [2, 4, 5])
    assert here.events[-1].last_event_id == here.events[-2].last_event_id
    await here.leave()
    await send(layer, 6, 7)
    again = await visit(source=here.source).begun()
    await send(layer, 9, 8)
    await hears_numbers(again, [2, 4, 5, 6, 9, 8])
    assert {event.type for event in again.events} == {"room.said"}


@pytest.mark.parametrize("last", [None, 5])
async def test_where_no_group_has_history_an_id_and_last_mean_nothing(
    make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any], last: int | None
) -> None:
    options["last"] = last
    layer = make_default()
    await send(layer, 1)
    source = EventSource()
    source.last_event_id = "9"
    here = await visit(source=source).begun()
    await send(layer, 2)
    await hears_numbers(here, [2])
    assert b"id:" not in b"".join(here.chunks)
    assert [event.type for event in here.events] == ["room.said"]


# Slow clients


async def test_a_slow_client_is_read_up_from_history(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default(history=HISTORY, capacity=5)
    here = await visit().begun()
    for begin in range(0, 60, 20):
        await stuck(layer, here, begin)
        await send(layer, *range(begin + 1, begin + 20))
        await arrived(layer)
        here.reads.set()
        await hears_numbers(here, list(range(begin + 20)))
    assert {event.type for event in here.events} == {"room.said"}
    ids = [int(event.last_event_id.rpartition("-")[2]) for event in here.events]
    assert ids == sorted(set(ids))


async def test_a_slow_client_hears_everything_once_while_others_send(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    """The gap may open at any moment, also between two messages that the stream takes."""
    layer = make_default(history=HISTORY, capacity=3)
    here = await visit().begun()
    chance = random.Random(7)
    total = 90

    async def stumble() -> None:
        while len(here.events) < total:
            here.reads.clear()
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            here.reads.set()
            await asyncio.sleep(0)

    stumbling = asyncio.create_task(stumble())
    for n in range(total):
        await layer.group_send(chance.choice(GROUPS), said(n))
    await asyncio.wait_for(stumbling, DEADLINE_S)
    assert numbers(here.events) == list(range(total))


async def test_what_expired_unread_is_read_from_history(keeping: SqliteChannelLayer, visit: VisitFactory) -> None:
    here = await visit().begun()
    await stuck(keeping, here)
    await keeping.group_send("room", said(1), expiry=0.05)
    await keeping.group_send("room", said(2))
    await arrived(keeping)
    counters = engine_of(keeping).reports.counters
    await aeventually(lambda: counters.dropped_expired, DEADLINE_S, what="a sweep")
    here.reads.set()
    await hears_numbers(here, [0, 1, 2])


async def test_a_client_slower_than_the_history_is_told_by_a_reset(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default(history={"*": {"size": 4, "ttl": 300}}, capacity=2)
    here = await visit().begun()
    await stuck(layer, here)
    await send(layer, *range(2, 22, 2))
    await arrived(layer)
    here.reads.set()
    await aeventually(lambda: here.events and here.events[-1].data == '{"n":20}', DEADLINE_S)
    kinds = [event.type for event in here.events]
    assert kinds.count("reset") == 1
    assert numbers(here.events[kinds.index("reset") :]) == [14, 16, 18, 20]


async def test_a_slow_client_of_groups_that_do_not_all_have_history_comes_back(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default(history={"room": {"size": 100, "ttl": 300}}, capacity=3)
    here = await visit().begun()
    await stuck(layer, here)
    await send(layer, *range(1, 10))
    await arrived(layer)
    here.reads.set()
    await here.ended()
    heard = numbers(here.events)
    assert heard == list(range(len(heard)))
    again = await visit(source=here.source).begun()
    await aeventually(lambda: again.events and again.events[-1].data == '{"n":8}', DEADLINE_S)
    assert [n for n in numbers(again.events) if n % 2 == 0] == [0, 2, 4, 6, 8]


# What else happens to a stream


async def test_memberships_are_renewed_without_anything_twice(
    make_default: LayerFactory, visit: VisitFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[str | None] = []
    join = OwnSource.join

    async def counted(self: OwnSource, since: str | None, last: int | None) -> Caught:
        joined.append(since)
        return await join(self, since, last)

    monkeypatch.setattr(OwnSource, "join", counted)
    layer = make_default(history=HISTORY, group_expiry=0.4)
    here = await visit().begun()
    n = 0
    while len(joined) < 5:
        await send(layer, n)
        n += 1
        await hears_numbers(here, list(range(n)))
    assert {event.type for event in here.events} == {"room.said"}


async def test_what_cannot_be_said_is_not_met_again(
    keeping: SqliteChannelLayer, visit: VisitFactory, caplog: pytest.LogCaptureFixture
) -> None:
    here = await visit().begun()
    await keeping.group_send_many("room", [said(1), {"type": "room.said", "raw": b"x"}, said(3)])
    await here.ended()
    assert numbers(here.events) == [1]
    again = await visit(source=here.source).begun()
    await hears_numbers(again, [1, 3])
    assert len([record for record in caplog.records if "bytes cannot be said" in record.getMessage()]) == 1


async def test_what_cannot_be_said_of_the_history_is_not_met_again_either(
    keeping: SqliteChannelLayer, visit: VisitFactory
) -> None:
    here = await visit().begun()
    await here.leave()
    await keeping.group_send_many("room", [said(1), {"type": "a\nb"}, said(3)])
    again = await visit(source=here.source).begun()
    await again.ended()
    assert numbers(again.events) == [1]
    third = await visit(source=here.source).begun()
    await hears_numbers(third, [1, 3])


async def test_a_great_history_is_sent_in_pieces(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default(history={"*": {"size": 10_000, "ttl": 300}})
    here = await visit().begun()
    await here.leave()
    await layer.group_send_many("room", [said(n) for n in range(1500)])
    again = await visit(source=here.source).begun()
    await hears_numbers(again, list(range(1500)))
    assert max(len(re.findall(rb"^data:", chunk, re.MULTILINE)) for chunk in again.chunks) <= 100


class Slow(SqliteChannelLayer):
    """A layer whose `receive` is not this package's: it is called ahead of time."""

    async def receive(self, channel: str) -> Message:
        await asyncio.sleep(0)
        return await super().receive(channel)


async def test_a_layer_with_a_receive_of_its_own_gives_nothing_twice(
    make_layer: LayerFactory, set_default: Any, visit: VisitFactory
) -> None:
    make_layer()  # its database is that of the other one
    layer = Slow(database="channels", history=HISTORY, capacity=5)
    set_default(layer)
    try:
        here = await visit().begun()
        for begin in range(0, 60, 20):
            await stuck(layer, here, begin)
            await send(layer, *range(begin + 1, begin + 20))
            await arrived(layer)
            here.reads.set()
            await hears_numbers(here, list(range(begin + 20)))
        await here.leave()
        await gone(layer)
    finally:
        await layer.close()
