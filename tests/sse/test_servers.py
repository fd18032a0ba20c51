"""Real servers: each tells of clients that are gone in its own way, and each ends in its own way."""

import json
import signal

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from tests.sse.conftest import ListenFactory
from tests.sse.event_source import EventSource
from tests.sse.site import DEADLINE_S, SERVERS, EventSite
from tests.sse.test_live import said
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

every_server = pytest.mark.parametrize("server", SERVERS)
BIG = "x" * 60_000


async def members(layer: SqliteChannelLayer, count: int) -> None:
    async def there_are() -> bool:
        return await layer.group_count("room") == count

    await aeventually(there_are, DEADLINE_S, what=f"{count} members")


@every_server
async def test_events_arrive_and_who_is_gone_leaves_its_groups(
    event_site: EventSite, listen: ListenFactory, layer: SqliteChannelLayer, server: str
) -> None:
    event_site.configure()
    event_site.start(server)
    here = await listen(event_site)
    assert b"\r\ncontent-encoding" not in here.head.lower()
    await members(layer, 1)
    for number in range(3):
        await layer.group_send("room", said(number))
    await here.hears(*(f'{{"n":{n}}}' for n in range(3)))
    other = await listen(event_site)
    await members(layer, 2)
    await here.leave()
    await members(layer, 1)
    await other.leave(reset=True)
    await members(layer, 0)
    assert "Traceback" not in event_site.program.output
    assert "THE LAYER SAYS" not in event_site.program.output


@every_server
async def test_comments_come_while_nothing_happens(
    event_site: EventSite, listen: ListenFactory, layer: SqliteChannelLayer, server: str
) -> None:
    event_site.configure()
    event_site.start(server)
    here = await listen(event_site, "/events?heartbeat=0.1")
    await aeventually(lambda: here.source.comments >= 3, DEADLINE_S)
    assert here.events == []


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])  # daphne takes whatever it is given into its memory
async def test_the_stream_of_a_client_that_does_not_read_ends(
    event_site: EventSite, listen: ListenFactory, layer: SqliteChannelLayer, server: str
) -> None:
    event_site.configure(capacity=5)
    event_site.start(server)
    here = await listen(event_site, slow=True)

    async def full() -> bool:
        await layer.group_send("room", {**said(0), "text": BIG})
        return "were full and missed a message" in event_site.program.output

    await aeventually(full, DEADLINE_S)
    here.read()
    await here.ended()
    await members(layer, 0)
    assert "too slow" in event_site.program.output
    assert "Traceback" not in event_site.program.output


@pytest.mark.parametrize("server", ["uvicorn", "daphne"])  # hypercorn waits, from Python 3.12 on, for every visitor
async def test_a_server_that_is_told_to_end_ends_with_its_streams(
    event_site: EventSite, listen: ListenFactory, layer: SqliteChannelLayer, server: str
) -> None:
    event_site.configure()
    event_site.start(server)
    here = await listen(event_site)
    await members(layer, 1)
    event_site.program.process.send_signal(signal.SIGTERM)
    await here.ended()
    event_site.program.wait(DEADLINE_S)
    await members(layer, 0)


@every_server
async def test_who_comes_back_to_a_server_that_was_killed_gets_what_was_missed(
    event_site: EventSite, listen: ListenFactory, make_layer: LayerFactory, server: str
) -> None:
    history = {"history": {"*": {"size": 1000, "ttl": 300}}}
    layer = make_layer(**history)
    event_site.configure(**history)
    here, n = None, 0
    source = EventSource()
    for _ in range(3):
        event_site.start(server)
        here = await listen(event_site, "/events?group=room&group=news", source=source)
        await members(layer, 1)
        for _ in range(5):
            await layer.group_send(("room", "news")[n % 2], said(n))
            n += 1
        await here.hears(*(f'{{"n":{i}}}' for i in range(n)))
        for _ in range(5):  # in the air, or in the history alone
            await layer.group_send(("room", "news")[n % 2], said(n))
            n += 1
        event_site.kill()
        await here.ended()
        await layer.group_send("room", said(n))
        n += 1
    event_site.start(server)
    here = await listen(event_site, "/events?group=room&group=news", source=source)
    await here.hears(*(f'{{"n":{i}}}' for i in range(n)))
    await here.leave()
    await members(layer, 0)
    assert "Traceback" not in event_site.program.output


@pytest.mark.parametrize("server", ["uvicorn", "hypercorn"])
async def test_a_client_that_does_not_read_is_read_up_from_history(
    event_site: EventSite, listen: ListenFactory, make_layer: LayerFactory, server: str
) -> None:
    history = {"history": {"*": {"size": 1000, "ttl": 300}}}
    layer = make_layer(**history)
    event_site.configure(capacity=5, **history)
    event_site.start(server)
    here = await listen(event_site, slow=True)
    await members(layer, 1)
    sent = 0

    async def full() -> bool:
        nonlocal sent
        assert await layer.group_count("room") == 1, event_site.program.output
        await layer.group_send("room", {**said(sent), "text": BIG})
        sent += 1
        return "were full and missed a message" in event_site.program.output

    await aeventually(full, DEADLINE_S)
    here.read()
    await aeventually(lambda: len(here.events) >= sent, DEADLINE_S)
    assert [json.loads(event.data)["n"] for event in here.events] == list(range(sent))
