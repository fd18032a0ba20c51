"""Clients that do not keep up, messages that cannot be said, memberships that end: the stream ends, and says why."""

import logging
import time
from typing import Any

import pytest

from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.support import write_lock
from tests.sse.conftest import VisitFactory
from tests.sse.test_live import gone, said
from tests.sse.visits import Visit
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

DEADLINE_S = 10.0
LOGGER = "channels_sqlite.sse.stream"


def logged(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if (record.name, record.levelno) == (LOGGER, level)]


async def stuck(layer: SqliteChannelLayer, here: Visit, number: int = 0) -> None:
    """Have the client read no further than one event."""
    here.reads.clear()
    await layer.group_send("room", said(number))
    await aeventually(lambda: here.blocked, DEADLINE_S)


async def arrived(layer: SqliteChannelLayer) -> None:
    """Return once everything that was sent has come to where it waits, or was dropped."""
    inbox = engine_of(layer).inbox
    await aeventually(lambda: not inbox.reader.wanted, DEADLINE_S)
    newest = await inbox.reader.aread(lambda store: store.newest_id())
    await aeventually(lambda: inbox.boxes.cursor >= newest, DEADLINE_S)


async def test_a_client_so_slow_that_messages_were_dropped_comes_back(
    make_default: LayerFactory, visit: VisitFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    layer = make_default(capacity=5)
    here = await visit().begun()
    await stuck(layer, here)
    for number in range(1, 8):
        await layer.group_send("room", said(number))
    await arrived(layer)
    here.reads.set()
    await here.ended()
    # Nothing comes from behind the gap.
    assert [event.data for event in here.events] == [f'{{"n":{n}}}' for n in range(6)][: len(here.events)]
    assert here.source.events
    assert any("too slow" in line for line in logged(caplog, logging.INFO))
    await gone(layer)


async def test_a_client_that_catches_up_in_time_misses_nothing(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default(capacity=5)
    here = await visit().begun()
    for begin in range(0, 30, 6):
        here.reads.clear()
        await layer.group_send("room", said(begin))
        await aeventually(lambda: here.blocked, DEADLINE_S)
        for number in range(begin + 1, begin + 6):
            await layer.group_send("room", said(number))
        await arrived(layer)
        here.reads.set()
        await here.hears(*(f'{{"n":{n}}}' for n in range(begin + 6)))


async def test_messages_that_expired_unread_end_the_stream(
    make_default: LayerFactory, visit: VisitFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    layer = make_default()
    here = await visit().begun()
    await stuck(layer, here)
    await layer.group_send("room", said(1), expiry=0.05)
    expired_at = time.time() + 0.05
    await arrived(layer)
    await aeventually(lambda: time.time() > expired_at, DEADLINE_S)
    here.reads.set()
    await here.ended()
    assert any("too slow" in line for line in logged(caplog, logging.INFO))
    await gone(layer)


async def test_messages_that_were_swept_away_end_the_stream(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = await visit().begun()
    await stuck(layer, here)
    await layer.group_send("room", said(1), expiry=0.05)
    await arrived(layer)
    boxes = engine_of(layer).inbox.boxes
    await aeventually(lambda: not boxes.unread().held, DEADLINE_S, what="a sweep")
    here.reads.set()
    await here.ended()
    await gone(layer)


async def test_a_flush_ends_the_stream_which_is_a_member_no_more(
    make_default: LayerFactory, visit: VisitFactory, options: dict[str, Any]
) -> None:
    options["heartbeat"] = 0.05
    layer = make_default()
    here = await visit().begun()
    await layer.flush()
    await here.ended()
    await gone(layer)


async def test_memberships_are_renewed_before_they_end(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default(group_expiry=1.0)
    here = await visit().begun()

    async def ends() -> list[float]:
        rows = await engine_of(layer).inbox.reader.aread(
            lambda store: store.members("room", engine_of(layer).client, 0)
        )
        return [expires_at for _, _, expires_at in rows if expires_at is not None]

    [first] = await ends()

    async def is_renewed_twice() -> bool:
        return min(await ends()) > first + 0.6

    await aeventually(is_renewed_twice, DEADLINE_S)
    await layer.group_send("room", said(1))
    await here.hears('{"n":1}')


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"type": "room.said", "items": [1, {"raw": b"secret"}]}, r"message['items'][1]['raw']: bytes cannot be said"),
        ({"type": "room.said", "n": float("nan")}, "message['n']: nan is no number in JSON"),
        ({"type": "room.said\ndata: secret"}, "message['type']: a str with a line break"),
    ],
    ids=["bytes", "nan", "type"],
)
async def test_what_cannot_be_said_ends_the_stream_behind_what_came_before(
    make_default: LayerFactory,
    visit: VisitFactory,
    caplog: pytest.LogCaptureFixture,
    message: dict[str, Any],
    complaint: str,
) -> None:
    layer = make_default()
    here = await visit().begun()
    await layer.group_send_many("room", [said(1), message, said(2)])
    await here.ended()
    assert [event.data for event in here.events] == ['{"n":1}']
    [line] = logged(caplog, logging.ERROR)
    assert line.startswith(f"event stream of group 'room', 'news' ended: {complaint}")
    assert "secret" not in line
    await gone(layer)


async def test_an_encode_that_raises_ends_the_stream_with_its_traceback(
    make_default: LayerFactory, visit: VisitFactory, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    options["encode"] = lambda message: str(1 / (message["n"] - 2))
    layer = make_default()
    here = await visit().begun()
    await layer.group_send("room", said(3))
    await layer.group_send("room", said(2))
    await here.ended()
    assert [event.data for event in here.events] == ["1.0"]
    [record] = [record for record in caplog.records if record.name == LOGGER]
    assert "encode() has failed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_a_database_that_cannot_be_written_ends_the_stream_and_says_so(
    make_default: LayerFactory, visit: VisitFactory, caplog: pytest.LogCaptureFixture, database: ChannelDatabase
) -> None:
    layer = make_default()
    await layer.send("jobs", {})
    connections = engine_of(layer).database.connections
    assert connections is not None
    connections.busy_timeout_s = 0.1
    with write_lock(database.path):
        here = visit()
        await here.ended()
    assert here.status == 200  # it was sent before
    [line] = logged(caplog, logging.ERROR)
    assert "locked" in line
    await gone(layer)
