"""Files that are no databases, and rows that are no messages."""

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.support import assert_works, next_is_marker, query, receive, receive_numbers, refusals, remove
from tests.support.databases import ChannelDatabase, fresh_file
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults


# Files. Nothing has them open yet, so that writing them by hand is safe.


def garbage_over_the_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xde\xad\xbe\xef" * 25)


def garbage_over_everything(path: Path) -> None:
    path.write_bytes(b"\xde\xad\xbe\xef" * (path.stat().st_size // 4))


def text(path: Path) -> None:
    path.write_text("This is no database. " * 500)


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_in_the_first_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def garbage_behind_the_header(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xde\xad\xbe\xef" * ((len(content) - 100) // 4))


DAMAGES = [
    garbage_over_the_header,
    garbage_over_everything,
    garbage_behind_the_header,
    text,
    cut_in_half,
    cut_in_the_first_page,
]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_told_with_what_to_do_and_the_advice_works(
    make_layer: LayerFactory, database: ChannelDatabase, damage: Callable[[Path], None]
) -> None:
    layer = make_layer()
    remove_sidecars(database.path)
    damage(database.path)
    for said in await refusals(layer):
        assert "damaged or is no SQLite database" in said
        assert "migrate --database=channels" in said
        assert str(database.path) in said
    remove(database.path)
    fresh_file(database.path.parent)
    await assert_works(layer)


def remove_sidecars(path: Path) -> None:
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


# Rows

BAD_PAYLOADS: dict[str, str] = {
    "no msgpack": "x'c1c1c1'",
    "nothing": "x''",
    "cut off": "x'81a16e'",
    "more than a message": "x'81a16e01ff'",
    "a list": "x'93010203'",
    "a number": "x'05'",
    "keys that are numbers": "x'810102'",
    "text of a message": "x'81a3ff78'",
    "an extension type": "x'd4017a'",
    "a text instead of bytes": "'plain text'",
    "a text that is no text": "CAST(x'ff' AS TEXT)",
    "an integer instead of bytes": "5",
    "a real instead of bytes": "0.5",
}


def insert_row(
    path: Path, kind: int, queue: str, payload: str, *, local: str | None = None, client: str | None = None
) -> int:
    """Write a row as only another program would, with the payload that this SQL means, and return its id."""
    state = 0 if kind == 0 else 2
    return int(
        query(
            path,
            "INSERT INTO channels_sqlite_message "
            "(prefix, kind, state, queue, local, client, created_at, expires_at, payload) "
            f"VALUES ('asgi', ?, ?, ?, ?, ?, ?, ?, {payload}) RETURNING id",
            kind,
            state,
            queue,
            local,
            client,
            time.time(),
            time.time() + 60,
        )[0][0]
    )


@pytest.mark.parametrize("kind", ["normal channel", "specific channel", "group"])
async def test_rows_that_are_no_messages_are_skipped_and_told_and_the_rest_is_delivered(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    layer, sender = make_layer(), make_layer()
    channel = "jobs" if kind == "normal channel" else await layer.new_channel()
    await layer.group_add("room", channel)
    queue, _, local = channel.partition("!")
    ids: dict[str, int] = {}
    with caplog.at_level(logging.DEBUG, "channels_sqlite"):
        for name, payload in BAD_PAYLOADS.items():
            if kind == "normal channel":
                ids[name] = insert_row(database.path, 0, "jobs", payload)
            elif kind == "specific channel":
                client = queue.rpartition(".")[2]
                ids[name] = insert_row(database.path, 1, f"{queue}!", payload, local=local, client=client)
            else:
                ids[name] = insert_row(database.path, 2, "room", payload)
            await sender.send(channel, {"after": name})
        received = [(await receive(layer, channel))["after"] for _ in BAD_PAYLOADS]
        assert received == list(BAD_PAYLOADS)
        assert await next_is_marker(layer, channel)
        # Lines may be held back for a second.
        await aeventually(lambda: all(told(caplog, row_id) for row_id in ids.values()))


def told(caplog: pytest.LogCaptureFixture, row_id: int) -> list[logging.LogRecord]:
    """The lines about a row, at a level that people see."""
    return [
        record
        for record in caplog.records
        if record.levelno >= logging.WARNING and str(row_id) in record.getMessage().replace(",", " ").split()
    ]


async def test_a_membership_change_that_cannot_be_read_harms_nothing(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer, sender = make_layer(), make_layer()
    channel = await layer.new_channel()
    client = channel.partition("!")[0].rpartition(".")[2]
    for payload in ("x'ff'", "5", "'text'", "CAST(x'ff' AS TEXT)"):
        insert_row(database.path, 3, "room", payload, client=client)
    await sender.send(channel, {"n": 1})
    assert await receive_numbers(layer, channel, 1) == [1]


async def test_a_row_of_an_unknown_kind_harms_nothing(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer, sender = make_layer(), make_layer()
    channel = await layer.new_channel()
    client = channel.partition("!")[0].rpartition(".")[2]
    await sender.send("elsewhere", {"n": 0})
    await sender.send(channel, {"n": 1})
    insert_row(database.path, 99, "room", "x'80'", client=client)
    await sender.send(channel, {"n": 2})
    assert await receive_numbers(layer, channel, 2) == [1, 2]


async def test_a_message_under_a_foreign_key_is_skipped_and_told(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    reader = make_layer(symmetric_encryption_keys=["new", "old"])
    plain, foreign, old = (
        make_layer(),
        make_layer(symmetric_encryption_keys=["foreign"]),
        make_layer(symmetric_encryption_keys=["old"]),
    )
    with caplog.at_level(logging.WARNING, "channels_sqlite"):
        for number, sender in enumerate((plain, foreign, old)):
            await sender.send("jobs", {"n": number})
        assert await receive_numbers(reader, "jobs", 1) == [2]
        assert await next_is_marker(reader, "jobs")
        await aeventually(lambda: told(caplog, 1) and told(caplog, 2))


async def test_many_undecodable_rows_do_not_flood_the_log(
    make_layer: LayerFactory, database: ChannelDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer()
    await layer.send("elsewhere", {"n": 0})
    for _ in range(200):
        insert_row(database.path, 0, "jobs", "x'c1'")
    insert_row(database.path, 0, "jobs", "x'81a16e05'")  # {"n": 5}
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "channels_sqlite"):
        assert await receive_numbers(layer, "jobs", 1) == [5]
    assert 1 <= len(caplog.records) <= time.monotonic() - started + 2


def test_the_bad_payloads_are_what_their_names_say() -> None:
    connection = sqlite3.connect(":memory:")
    kinds = {
        name: connection.execute(f"SELECT typeof({payload})").fetchone()[0] for name, payload in BAD_PAYLOADS.items()
    }
    connection.close()
    assert {name: kind for name, kind in kinds.items() if kind != "blob"} == {
        "a text instead of bytes": "text",
        "a text that is no text": "text",
        "an integer instead of bytes": "integer",
        "a real instead of bytes": "real",
    }
