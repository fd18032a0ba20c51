"""What a history holds, and what it says of itself."""

import asyncio
import json
import re
import time
from urllib.parse import quote

import pytest

from channels_sqlite import History, HistoryEntry
from channels_sqlite.codec import Message
from channels_sqlite.layers import SqliteChannelLayer
from tests.history.conftest import KeepingFactory


def texts(history: History[Message]) -> list[object]:
    return [entry.message["n"] for entry in history.entries]


async def send(layer: SqliteChannelLayer, *numbers: int, group: str = "room") -> None:
    for number in numbers:
        await layer.group_send(group, {"type": "chat", "n": number})


async def test_what_came_after_a_position_is_read_in_order(keeping: SqliteChannelLayer) -> None:
    before = await keeping.group_history("room")
    await send(keeping, 1, 2, 3)
    since = await keeping.group_history("room", since=before.position)
    assert texts(since) == [1, 2, 3]
    assert since.recovered
    assert texts(await keeping.group_history("room", since=since.entries[1].position)) == [3]
    nothing = await keeping.group_history("room", since=since.position)
    assert (nothing.entries, nothing.recovered) == ([], True)


async def test_a_message_is_kept_for_a_group_without_members(keeping: SqliteChannelLayer) -> None:
    await send(keeping, 1)
    assert texts(await keeping.group_history("room", last=10)) == [1]


async def test_an_entry_says_when_it_was_sent_and_has_the_message_as_it_was(keeping: SqliteChannelLayer) -> None:
    message: Message = {"type": "chat", "n": 1, "data": b"\x00", "deep": {"list": [1, None, 2.5]}}
    before = time.time()
    await keeping.group_send("room", message)
    [entry] = (await keeping.group_history("room", last=1)).entries
    assert isinstance(entry, HistoryEntry)
    assert entry.message == message
    assert before <= entry.sent_at <= time.time()


async def test_neither_since_nor_last_gives_the_present_position_alone(keeping: SqliteChannelLayer) -> None:
    await send(keeping, 1)
    history = await keeping.group_history("room")
    assert (history.entries, history.recovered) == ([], True)
    await send(keeping, 2)
    assert texts(await keeping.group_history("room", since=history.position)) == [2]


@pytest.mark.parametrize(("last", "expected"), [(1, [3]), (2, [2, 3]), (3, [1, 2, 3]), (1000, [1, 2, 3])])
async def test_last_gives_the_newest(keeping: SqliteChannelLayer, last: int, expected: list[int]) -> None:
    await send(keeping, 1, 2, 3)
    history = await keeping.group_history("room", last=last)
    assert texts(history) == expected
    assert history.recovered


async def test_a_position_fits_everywhere(keeping: SqliteChannelLayer) -> None:
    await send(keeping, 1)
    history = await keeping.group_history("room", last=1)
    for position in (history.position, history.entries[0].position):
        assert len(position) <= 64
        assert re.fullmatch(r"[!-~]+", position), "ASCII without spaces"
        assert quote(position, safe="") == position
        assert json.loads(json.dumps(position)) == position


async def test_groups_do_not_get_in_each_others_way(keeping: SqliteChannelLayer) -> None:
    before = (await keeping.group_history("room.1")).position
    await send(keeping, 1, group="room.1")
    await send(keeping, 2, group="room.2")
    await send(keeping, 3, group="room.1")
    assert texts(await keeping.group_history("room.1", since=before)) == [1, 3]
    other = await keeping.group_history("room.2", since=before)
    assert (texts(other), other.recovered) == ([2], True)


# Positions that say nothing


@pytest.mark.parametrize(
    "since",
    ["", "x", "0", 0, 7, 1.5, b"bytes", [], {}, object(), "a" * 64, "a" * 100_000, "0" * 16 + "-1", "é" * 20, "\x00"],
    ids=lambda since: f"{type(since).__name__}-{str(since)[:20]!a}" if isinstance(since, str) else type(since).__name__,
)
async def test_a_position_that_is_none_gives_all_that_is_kept(keeping: SqliteChannelLayer, since: object) -> None:
    await send(keeping, 1, 2)
    history = await keeping.group_history("room", since=since)
    assert texts(history) == [1, 2]
    assert not history.recovered


@pytest.mark.parametrize("change", ["-{}", "-0{}", "-{} ", "-+{}", "-{}٣", "-9{:0>17}", "-{}\n"])
async def test_a_position_that_somebody_has_changed_is_none(keeping: SqliteChannelLayer, change: str) -> None:
    await send(keeping, 1)
    epoch, _, number = (await keeping.group_history("room", last=1)).position.partition("-")
    history = await keeping.group_history("room", since=epoch + change.format(number))
    if change == "-{}":
        assert (texts(history), history.recovered) == ([], True)
    else:
        assert (texts(history), history.recovered) == ([1], False)


async def test_a_position_of_another_layer_is_none(make_keeping: KeepingFactory) -> None:
    one, other = make_keeping(prefix="one"), make_keeping(prefix="other")
    await send(one, 1)
    await send(other, 2)
    position = (await one.group_history("room", last=1)).position
    history = await other.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([2], False)


async def test_a_position_from_before_a_flush_is_none(keeping: SqliteChannelLayer) -> None:
    await send(keeping, 1)
    position = (await keeping.group_history("room", last=1)).position
    await keeping.flush()
    history = await keeping.group_history("room", since=position)
    assert (history.entries, history.recovered) == ([], False)
    await send(keeping, 2)
    history = await keeping.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([2], False)
    history = await keeping.group_history("room", since=history.position)
    assert (history.entries, history.recovered) == ([], True)


# What is kept


async def test_size_bounds_what_is_returned_at_once(make_keeping: KeepingFactory) -> None:
    layer = make_keeping(history={"room*": {"size": 3, "ttl": 300}})
    before = (await layer.group_history("room")).position
    await send(layer, 1, 2, 3)
    assert (await layer.group_history("room", since=before)).recovered
    await send(layer, 4, 5)
    history = await layer.group_history("room", since=before)
    assert (texts(history), history.recovered) == ([3, 4, 5], False)
    assert texts(await layer.group_history("room", last=10)) == [3, 4, 5]
    complete = await layer.group_history("room", since=history.entries[0].position)
    assert (texts(complete), complete.recovered) == ([4, 5], True)


async def test_the_first_pattern_that_matches_counts(make_keeping: KeepingFactory) -> None:
    history = {"room.vip": {"size": 2, "ttl": 300}, re.compile(r"room\."): {"size": 1, "ttl": 300}}
    layer = make_keeping(history=history)
    for group, size in (("room.vip", 2), ("room.1", 1)):
        await send(layer, 1, 2, 3, group=group)
        assert len((await layer.group_history(group, last=10)).entries) == size


async def test_a_message_of_its_own_expiry_and_without_some_is_kept_like_any(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_send("room", {"type": "chat", "n": 1}, expiry=0.001, exclude=channel)
    await asyncio.sleep(0.01)
    assert texts(await keeping.group_subscribe("room", channel, last=5)) == [1]


async def test_batches_and_what_was_scheduled_are_kept(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("room", channel)
    await keeping.group_send_many("room", [{"type": "chat", "n": 1}, {"type": "chat", "n": 2}])
    await keeping.group_send_later("room", {"type": "chat", "n": 3}, delay=0.1)
    live = [await asyncio.wait_for(keeping.receive(channel), 10) for _ in range(3)]
    history = await keeping.group_history("room", last=10)
    assert texts(history) == [1, 2, 3]
    assert [entry.position for entry in history.entries] == [message["__position__"] for message in live]


async def test_what_is_scheduled_is_kept_once_it_is_sent(keeping: SqliteChannelLayer) -> None:
    await keeping.group_send_later("room", {"type": "chat", "n": 1}, delay=3600)
    history = await keeping.group_history("room", last=10)
    assert history.entries == []
    await send(keeping, 2)
    assert texts(await keeping.group_history("room", since=history.position)) == [2]


async def test_what_is_not_to_be_kept_is_not_and_has_no_position(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("room", channel)
    await keeping.group_send("room", {"type": "typing", "n": 1}, history=False)
    await keeping.group_send_many("room", [{"type": "typing", "n": 2}], history=False)
    await keeping.group_send_later("room", {"type": "typing", "n": 3}, delay=0, history=False)
    for number in (1, 2, 3):
        assert await asyncio.wait_for(keeping.receive(channel), 10) == {"type": "typing", "n": number}
    assert (await keeping.group_history("room", last=10)).entries == []


async def test_what_is_encrypted_is_kept_encrypted(make_keeping: KeepingFactory) -> None:
    layer = make_keeping(symmetric_encryption_keys=["secret"])
    await send(layer, 1)
    assert texts(await layer.group_history("room", last=1)) == [1]
    other = make_keeping(symmetric_encryption_keys=["other"])
    before = await other.group_history("room")
    await send(layer, 2)
    await send(other, 3)
    history = await other.group_history("room", since=before.position)
    assert (texts(history), history.recovered) == ([3], False), "what cannot be decoded is left out, and said"


# Live messages


async def test_a_live_message_says_where_to_go_on(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_subscribe("room", channel)
    await send(keeping, 1, 2)
    first = await keeping.receive(channel)
    second = await keeping.receive(channel)
    entries = (await keeping.group_history("room", last=2)).entries
    assert [entry.position for entry in entries] == [first["__position__"], second["__position__"]]
    assert all("__position__" not in entry.message for entry in entries)
    assert texts(await keeping.group_history("room", since=first["__position__"])) == [2]


async def test_each_member_gets_a_message_of_its_own(keeping: SqliteChannelLayer) -> None:
    channels = [await keeping.new_channel() for _ in range(3)]
    for channel in channels:
        await keeping.group_add("room", channel)
    await send(keeping, 1)
    received = [await keeping.receive(channel) for channel in channels]
    assert received[0] == received[1] == received[2]
    assert len({id(message) for message in received}) == 3


async def test_a_message_of_a_group_without_history_has_no_position(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    await keeping.group_add("news", channel)
    await send(keeping, 1, group="news")
    await keeping.send(channel, {"type": "chat", "n": 2})
    assert await keeping.receive(channel) == {"type": "chat", "n": 1}
    assert await keeping.receive(channel) == {"type": "chat", "n": 2}


@pytest.mark.parametrize("message_retention", [0, 86400])
async def test_a_normal_channel_that_is_a_member_gets_positions_too(
    make_keeping: KeepingFactory, message_retention: float
) -> None:
    layer = make_keeping(message_retention=message_retention)
    await layer.group_add("room", "jobs")
    await send(layer, 1)
    live = await asyncio.wait_for(layer.receive("jobs"), 10)
    [entry] = (await layer.group_history("room", last=1)).entries
    assert live == {"type": "chat", "n": 1, "__position__": entry.position}
    await layer.send("jobs", {"type": "chat", "n": 2})
    assert await asyncio.wait_for(layer.receive("jobs"), 10) == {"type": "chat", "n": 2}


# Refusals


async def test_a_group_of_which_nothing_is_kept_is_named(keeping: SqliteChannelLayer) -> None:
    channel = await keeping.new_channel()
    with pytest.raises(ValueError, match=r"'news'.*\"history\""):
        await keeping.group_subscribe("news", channel)
    with pytest.raises(ValueError, match=r"'news'.*\"history\""):
        await keeping.group_history("news")
    assert await keeping.group_channels("news") == []


@pytest.mark.parametrize("last", [0, -1])
async def test_last_is_at_least_one(keeping: SqliteChannelLayer, last: int) -> None:
    with pytest.raises(ValueError, match="last must be at least 1"):
        await keeping.group_history("room", last=last)


@pytest.mark.parametrize("last", [True, 1.0, "1", b"1"])
async def test_last_is_a_number(keeping: SqliteChannelLayer, last: object) -> None:
    channel = await keeping.new_channel()
    with pytest.raises(TypeError, match="last must be a whole number"):
        await keeping.group_subscribe("room", channel, last=last)  # type: ignore[arg-type]  # wrong on purpose
    assert await keeping.group_channels("room") == []


async def test_since_and_last_exclude_each_other(keeping: SqliteChannelLayer) -> None:
    with pytest.raises(TypeError, match="exclude each other"):
        await keeping.group_history("room", since="x", last=1)


@pytest.mark.parametrize("history", [None, 1, 0, "no"])
async def test_history_is_a_flag(keeping: SqliteChannelLayer, history: object) -> None:
    with pytest.raises(TypeError, match="history must be True or False"):
        await keeping.group_send("room", {"type": "chat"}, history=history)  # type: ignore[arg-type]  # wrong on purpose
    assert (await keeping.group_history("room", last=1)).entries == []


async def test_a_sender_may_not_set_a_position(keeping: SqliteChannelLayer) -> None:
    with pytest.raises(ValueError, match="__position__"):
        await keeping.group_send("room", {"type": "chat", "__position__": "x"})
    with pytest.raises(ValueError, match="__position__"):
        await keeping.send("jobs", {"type": "chat", "__position__": "x"})
