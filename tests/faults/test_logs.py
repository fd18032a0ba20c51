"""Nothing of a message's contents gets into the log or into the layer's database errors, whatever goes wrong."""

import asyncio
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import Clock, housekeep, query, receive, refusal, remove, replace, write_lock
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory

pytestmark = pytest.mark.faults

MARKER = "Wombat"
MESSAGE: dict[str, object] = {"type": "chat.message", "text": f"{MARKER} in a text", MARKER: [f"{MARKER} in a list"]}


@pytest.fixture
def database(no_leaks: None, tmp_path: Path) -> Iterator[ChannelDatabase]:
    with channel_database(tmp_path, options={"timeout": 0.2}) as database:
        yield database


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that is logged, by anybody, from DEBUG on; the test ends with a look at all of it."""
    with caplog.at_level(logging.DEBUG):
        yield caplog
    shown = [_everything(record) for record in caplog.get_records("call")]
    assert not [text for text in shown if MARKER.lower() in text.lower()]


def _everything(record: logging.LogRecord) -> str:
    """What any handler could print of a record."""
    return " ".join([logging.Formatter("%(message)s").format(record), repr(record.args), str(record.stack_info)])


async def send_everywhere(layer: SqliteChannelLayer, channel: str, message: dict[str, object]) -> list[str]:
    """Send on all ways, and return what the errors of the database said."""
    said = []
    for call in (layer.send(channel, message), layer.send("jobs", message), layer.group_send("room", message)):
        try:
            await call
        except ChannelFull:
            pass
        except ChannelDatabaseError as error:
            said.append(str(error))
    return said


async def member(layer: SqliteChannelLayer) -> str:
    channel = await layer.new_channel()
    for name in (channel, "jobs"):
        await layer.group_add("room", name)
    return channel


async def test_messages_that_arrive_are_not_logged(make_layer: LayerFactory, log: pytest.LogCaptureFixture) -> None:
    layer = make_layer()
    channel = await member(layer)
    await send_everywhere(layer, channel, MESSAGE)
    for name in (channel, channel, "jobs", "jobs"):
        assert await receive(layer, name) == MESSAGE
    await layer.flush()


async def test_messages_that_are_dropped_are_not_logged(
    make_layer: LayerFactory, log: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(capacity=2)
    channel = await member(layer)
    busy = [asyncio.create_task(layer.receive(await layer.new_channel())) for _ in range(3)]
    await asyncio.sleep(0)
    for _ in range(10):
        await send_everywhere(layer, channel, MESSAGE)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    assert "full" in log.text


async def test_messages_that_expire_are_not_logged(
    make_layer: LayerFactory, clock: Clock, log: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(message_retention=100, group_expiry=50)
    channel = await member(layer)
    await send_everywhere(layer, channel, MESSAGE)
    clock.shift_s += 1000
    await housekeep(layer)


async def test_messages_that_cannot_be_read_are_not_logged(
    make_layer: LayerFactory, database: ChannelDatabase, log: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    channel = await member(layer)
    queue, _, local = channel.partition("!")
    rows = [(0, "jobs", None, None), (1, f"{queue}!", local, queue.rpartition(".")[2]), (2, "room", None, None)]
    payloads: list[bytes | str] = [
        b"\xc1" + MARKER.encode(),
        b"\xa6" + MARKER.encode(),
        MARKER.encode()[:3] + b"\xff",
        MARKER,
        b"\x81\xa6" + MARKER.encode() + b"\xc1",
    ]
    for kind, name, local_part, client in rows:
        for payload in payloads:
            query(
                database.path,
                "INSERT INTO channels_sqlite_message "
                "(prefix, kind, state, queue, local, client, created_at, expires_at, payload) "
                "VALUES ('asgi', ?, ?, ?, ?, ?, ?, ?, ?)",
                *(kind, 0 if kind == 0 else 2, name, local_part, client, time.time(), time.time() + 60, payload),
            )
    query(
        database.path,
        "UPDATE channels_sqlite_message SET payload = CAST(x'ff576f6d626174' AS TEXT) WHERE payload = ?",
        b"\xc1" + MARKER.encode(),
    )
    for name in (channel, "jobs"):
        await layer.send(name, {"type": "next"})
        assert await receive(layer, name) == {"type": "next"}
    assert "skipped" in log.text


async def test_messages_that_cannot_be_written_are_not_logged(
    make_layer: LayerFactory, database: ChannelDatabase, log: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    channel = await member(layer)
    with write_lock(database.path):
        said = await send_everywhere(layer, channel, MESSAGE)
    assert len(said) == 3
    remove(database.path)
    await refusal(layer)
    said += await send_everywhere(layer, channel, MESSAGE)
    assert len(said) == 6
    assert not [text for text in said if MARKER in text]


async def test_messages_that_go_with_their_file_are_not_logged(
    make_layer: LayerFactory, database: ChannelDatabase, log: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    channel = await member(layer)
    await send_everywhere(layer, channel, MESSAGE)
    replace(database.path)
    await housekeep(layer)
    # What it held when the file went is still delivered, or is not; neither is told.
    await send_everywhere(layer, channel, MESSAGE)


async def test_values_that_cannot_be_sent_are_not_shown(
    make_layer: LayerFactory, log: pytest.LogCaptureFixture
) -> None:
    layer = make_layer(max_message_size=1000)
    secret = type("Secret", (), {"__repr__": lambda self: MARKER})()
    for wrong, error in (({"a": secret}, TypeError), ({"a": MARKER * 1000}, MessageTooLarge)):
        with pytest.raises(error) as raised:
            await layer.send("jobs", wrong)
        assert MARKER not in str(raised.value)


async def test_encryption_keys_are_not_logged(make_layer: LayerFactory, log: pytest.LogCaptureFixture) -> None:
    layer, stranger = make_layer(symmetric_encryption_keys=[MARKER]), make_layer()
    await stranger.send("jobs", {"n": 1})
    await layer.send("jobs", {"n": 2})
    assert await receive(layer, "jobs") == {"n": 2}
