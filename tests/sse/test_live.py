"""Streams of groups without history: what is sent arrives, and who is gone leaves nothing behind."""

import asyncio
import gc
import itertools
import logging
from typing import Any

import pytest
from channels.layers import channel_layers
from django.test import AsyncRequestFactory

from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.sse import event_stream
from channels_sqlite.sse.stream import MOST_EVENTS
from tests.faults.support import write_lock
from tests.sse.conftest import VisitFactory
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

DEADLINE_S = 10.0


def said(number: int) -> dict[str, object]:
    return {"type": "room.said", "n": number}


async def gone(layer: SqliteChannelLayer, *groups: str) -> None:
    """Return once these groups are empty, and nothing is left of any stream."""

    async def empty() -> bool:
        return not any([await layer.group_count(group) for group in groups or ("room", "news")])

    await aeventually(empty, DEADLINE_S)
    inbox = engine_of(layer).inbox
    await aeventually(lambda: not any(inside.kept_for_channels(inbox)), DEADLINE_S, what="nothing kept")


async def test_what_groups_are_sent_arrives_in_order(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = await visit().begun()
    assert (here.status, here.headers["Content-Type"]) == (200, "text/event-stream")
    for number in range(5):
        await layer.group_send("news" if number % 2 else "room", said(number))
    await here.hears(*(f'{{"n":{number}}}' for number in range(5)))
    assert {(event.type, event.last_event_id) for event in here.events} == {("room.said", "")}


async def test_the_headers_keep_caches_and_proxies_from_holding_it_back(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    make_default()
    here = await visit().begun()
    assert here.headers["Cache-Control"] == "no-cache"
    assert here.headers["X-Accel-Buffering"] == "no"


async def test_the_stream_begins_at_once_and_is_a_member_then(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = await visit().begun()  # long before the first heartbeat
    assert here.chunks == [b":\n\n"]
    assert [await layer.group_count(group) for group in ("room", "news")] == [1, 1]


async def test_a_sync_view_may_return_it(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = await visit("/sync").begun()
    await layer.group_send("room", said(1))
    await here.hears('{"n":1}')


async def test_a_group_that_is_named_twice_is_heard_once(
    make_default: LayerFactory, visit: VisitFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.sse.urls.GROUPS", ("room", "room"))
    layer = make_default()
    here = await visit().begun()
    await layer.group_send("room", said(1))
    await layer.group_send("room", said(2))
    await here.hears('{"n":1}', '{"n":2}')


async def test_encode_says_it_otherwise(
    make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["encode"] = lambda message: f"{message['type']} {message['n']}\nmore"
    layer = make_default()
    here = await visit().begun()
    await layer.group_send("room", said(1))
    await here.hears("room.said 1\nmore")


async def test_another_layer_may_be_named(
    make_layer: LayerFactory, make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any]
) -> None:
    make_default()
    options["layer"] = "other"
    channel_layers.backends["other"] = other = make_layer(prefix="other")
    try:
        here = await visit().begun()
        await other.group_send("room", said(1))
        await here.hears('{"n":1}')
        await here.leave()
    finally:
        del channel_layers.backends["other"]


# Heartbeats


async def test_comments_come_while_nothing_happens(
    make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["heartbeat"] = 0.05
    make_default()
    here = await visit().begun()
    await aeventually(lambda: here.source.comments >= 4, DEADLINE_S)
    assert here.events == []
    assert set(here.chunks) == {b":\n\n"}


async def test_comments_come_while_much_happens(
    make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["heartbeat"] = 0.05
    layer = make_default(capacity=10_000)
    here = await visit().begun()
    number = 0
    while here.source.comments < 4:
        await layer.group_send("room", said(number))
        number += 1
        await asyncio.sleep(0)
    await here.hears(*(f'{{"n":{n}}}' for n in range(number)))


async def test_other_tasks_have_their_turn_while_neither_side_waits(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default(capacity=20 * MOST_EVENTS)
    here = await visit().begun()
    here.reads.clear()
    await layer.group_send("room", said(0))
    await aeventually(lambda: here.blocked, DEADLINE_S)
    await layer.group_send_many("room", [said(number) for number in range(1, 10 * MOST_EVENTS)])
    inbox = engine_of(layer).inbox
    await aeventually(lambda: inbox.boxes.unread().held, DEADLINE_S)
    turns: list[int] = []

    async def other() -> None:
        while len(here.events) < 10 * MOST_EVENTS:
            turns.append(len(here.events))
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    here.reads.set()
    await asyncio.wait_for(task, DEADLINE_S)
    # Between two turns there are the events of one chunk, and not all of them.
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 2 * MOST_EVENTS


# The end


async def test_who_is_gone_leaves_nothing_behind(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = await visit().begun()
    await here.leave()
    await gone(layer)


async def test_who_is_gone_while_the_server_sends_leaves_nothing_behind(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default()
    here = await visit().begun()
    here.reads.clear()
    await layer.group_send("room", said(1))
    await aeventually(lambda: here.blocked, DEADLINE_S)
    await layer.group_send("room", said(2))  # waits in its mailbox
    await here.leave()
    await gone(layer)


async def test_a_task_that_is_cancelled_while_it_sends_leaves_nothing_behind(make_default: LayerFactory) -> None:
    """As a server does it that ends: Django closes no response then, and somebody may keep it."""
    layer = make_default()
    response = event_stream(AsyncRequestFactory().get("/events"), "room", "news")

    async def serve() -> None:
        async for _ in response:
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await aeventually(lambda: len(engine_of(layer).inbox.members.all()) == 2, DEADLINE_S)
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await gone(layer)
    assert response.streaming


async def test_who_is_gone_before_the_view_has_answered_was_never_there(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default()
    here = visit("/slow-view")
    await asyncio.sleep(0)
    await here.leave()
    await gone(layer)


async def test_who_is_gone_while_the_stream_joins_leaves_nothing_behind(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default()
    await layer.new_channel()  # everything is open
    for turns in range(12):
        here = visit()
        for _ in range(turns):
            await asyncio.sleep(0)
        await here.leave()
    await gone(layer)


async def test_who_is_gone_while_the_database_is_locked_leaves_once_it_is_not(
    make_default: LayerFactory, visit: VisitFactory, database: ChannelDatabase
) -> None:
    layer = make_default()
    here = await visit().begun()
    connections = engine_of(layer).database.connections
    assert connections is not None
    connections.busy_timeout_s = 0.1
    with write_lock(database.path):
        await here.leave()
        await aeventually(lambda: engine_of(layer).reports.counters.retried > 2, DEADLINE_S)
    await gone(layer)


async def test_who_passes_the_stream_on_in_a_generator_need_not_close_it(
    make_default: LayerFactory, visit: VisitFactory
) -> None:
    layer = make_default()
    here = await visit("/wrapped").begun()
    here.reads.clear()
    await layer.group_send("room", said(1))
    await aeventually(lambda: here.blocked, DEADLINE_S)
    await here.leave()
    await gone(layer)


async def test_closing_the_layer_ends_the_stream_that_waits(
    make_default: LayerFactory, visit: VisitFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_default()
    here = await visit().begun()
    await layer.close()
    await here.ended()
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_closing_the_layer_ends_the_stream_that_sends(
    make_default: LayerFactory, visit: VisitFactory, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_default()
    here = await visit().begun()
    here.reads.clear()
    await layer.group_send("room", said(1))
    await aeventually(lambda: here.blocked, DEADLINE_S)
    await layer.close()
    here.reads.set()
    await here.ended()
    gc.collect()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_head_ends_at_once(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = visit(method="HEAD")
    await here.ended()
    assert here.headers["Content-Type"] == "text/event-stream"
    await gone(layer)
