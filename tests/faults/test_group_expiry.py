"""Memberships end `group_expiry` seconds after their last group_add; the log says when a live member goes."""

import logging

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import Clock, housekeep, next_is_marker, query, receive_numbers
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

TEN_YEARS_S = 10 * 365 * 86400


async def member(layer: SqliteChannelLayer, kind: str) -> str:
    channel = "jobs" if kind == "normal" else await layer.new_channel()
    await layer.group_add("room", channel)
    return channel


KINDS = pytest.mark.parametrize("kind", ["normal", "specific"])


@KINDS
async def test_a_membership_lasts_until_its_expiry_and_no_longer(
    make_layer: LayerFactory, clock: Clock, kind: str
) -> None:
    layer = make_layer(group_expiry=100)
    channel = await member(layer, kind)
    clock.shift_s += 99
    await layer.group_send("room", {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]
    clock.shift_s += 1
    await layer.group_send("room", {"n": 2})
    assert await layer.group_channels("room") == []
    assert await layer.group_count("room") == 0
    assert await next_is_marker(layer, channel)


@KINDS
async def test_adding_again_renews_the_membership(make_layer: LayerFactory, clock: Clock, kind: str) -> None:
    layer = make_layer(group_expiry=100)
    channel = await member(layer, kind)
    for number in range(5):
        clock.shift_s += 80
        await layer.group_add("room", channel)
        await layer.group_send("room", {"n": number})
        assert await receive_numbers(layer, channel, 1) == [number]
    assert await layer.group_count("room") == 1
    clock.shift_s += 100
    assert await layer.group_count("room") == 0


@KINDS
async def test_adding_again_after_the_end_begins_a_membership_anew(
    make_layer: LayerFactory, clock: Clock, kind: str
) -> None:
    layer, sender = make_layer(group_expiry=100, expiry=1000), make_layer(expiry=1000)
    channel = await member(layer, kind)
    clock.shift_s += 100
    await sender.group_send("room", {"n": 1})  # between two memberships
    await layer.group_add("room", channel)
    await sender.group_send("room", {"n": 2})
    assert await receive_numbers(layer, channel, 1) == [2]
    assert await next_is_marker(layer, channel)


async def test_another_process_can_renew_a_membership(make_layer: LayerFactory, clock: Clock) -> None:
    layer, other = make_layer(group_expiry=100), make_layer(group_expiry=100)
    channel = await member(layer, "specific")
    clock.shift_s += 80
    await other.group_add("room", channel)
    clock.shift_s += 80
    await other.group_send("room", {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]


@KINDS
async def test_none_means_until_discarded(make_layer: LayerFactory, clock: Clock, kind: str) -> None:
    layer = make_layer(group_expiry=None)
    channel = await member(layer, kind)
    clock.shift_s += TEN_YEARS_S
    await housekeep(layer)
    assert await layer.group_channels("room") == [channel]
    await layer.group_send("room", {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]
    await layer.group_discard("room", channel)
    assert await layer.group_channels("room") == []


async def test_none_means_until_the_layer_is_closed(make_layer: LayerFactory) -> None:
    layer, other = make_layer(group_expiry=None), make_layer()
    await member(layer, "specific")
    assert await other.group_count("room") == 1
    await layer.close()
    assert await other.group_count("room") == 0


@KINDS
async def test_ended_memberships_leave_no_rows(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock, kind: str
) -> None:
    layer = make_layer(group_expiry=100, trim_batch_size=3)
    for number in range(10):
        await layer.group_add(f"room-{number}", "jobs" if kind == "normal" else await layer.new_channel())
    clock.shift_s += 100
    await housekeep(layer)
    assert query(database.path, "SELECT count(*) FROM channels_sqlite_membership") == [(0,)]


async def test_the_end_of_a_live_members_membership_is_told(
    make_layer: LayerFactory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(group_expiry=100)
    channel = await member(layer, "specific")
    stays = await layer.new_channel()
    await layer.group_add("room", stays)
    with caplog.at_level(logging.INFO, "channels_sqlite"):
        clock.shift_s += 60
        await layer.group_add("room", stays)
        clock.shift_s += 40
        await aeventually(lambda: [record for record in caplog.records if "group_expiry" in record.getMessage()])
    text = next(record.getMessage() for record in caplog.records if "group_expiry" in record.getMessage())
    assert channel in text
    assert "'room'" in text
    assert "100" in text
    assert "group_add" in text
    assert stays not in text


async def test_a_member_that_left_by_itself_is_not_told(
    make_layer: LayerFactory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(group_expiry=100)
    left = await member(layer, "specific")
    await layer.group_discard("room", left)
    told = await layer.new_channel()
    await layer.group_add("hall", told)
    with caplog.at_level(logging.INFO, "channels_sqlite"):
        clock.shift_s += 100
        await aeventually(lambda: "'hall'" in caplog.text)
    assert left not in caplog.text
