"""What a layer counts, and where others see it."""

import asyncio
import os
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from channels.exceptions import ChannelFull

from channels_sqlite.channel_layers import LayerEntry
from channels_sqlite.counters import Counters, total
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.management.status import LayerStatus, look_at
from channels_sqlite.processes.lock_files import LockFile
from channels_sqlite.processes.notes import Note, living_notes
from channels_sqlite.waking.sender import Sender
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

DEADLINE_S = 30


def changes(layer: SqliteChannelLayer, *ignored: str) -> dict[str, float]:
    """What is not zero."""
    counters = layer.counters
    names = [name for name in Counters.__slots__ if name not in ("checkpoints", "checkpoint_s", *ignored)]
    return {name: getattr(counters, name) for name in names if getattr(counters, name)}


async def look() -> LayerStatus:
    entry = LayerEntry(alias="default", backend="", config={"database": "channels"}, backend_error="", is_ours=True)
    return await asyncio.to_thread(look_at, entry)


async def test_what_is_sent_and_received_is_counted(make_layer: LayerFactory) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    assert changes(layer) == {}
    await layer.group_add("room", channel)
    await layer.group_add("room", "jobs")
    await layer.group_send("room", {"n": 1})
    await layer.send("jobs", {"n": 2})
    await layer.send(channel, {"n": 3})
    assert changes(layer) == {"sent": 3}
    for name in (channel, channel, "jobs", "jobs"):
        await asyncio.wait_for(layer.receive(name), DEADLINE_S)
    assert changes(layer) == {"sent": 3, "received": 4}


async def test_a_copy_does_not_change_and_closing_does_not_begin_anew(make_layer: LayerFactory) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 1})
    before = layer.counters
    await layer.close()
    await layer.send("jobs", {"n": 2})
    assert (before.sent, layer.counters.sent) == (1, 2)


async def test_drops_are_counted_by_their_reason(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=2, expiry=0.2)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    for number in range(5):
        await layer.group_send("room", {"n": number})
    for number in range(3):
        if number < 2:
            await layer.send("jobs", {"n": number})
        else:
            with pytest.raises(ChannelFull):
                await layer.send("jobs", {"n": number})
    await aeventually(lambda: layer.counters.dropped_expired == 4, DEADLINE_S)
    assert changes(layer) == {"sent": 7, "refused": 1, "dropped_full": 3, "dropped_expired": 4}


async def test_normal_members_without_room_are_counted(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=1)
    for name in ("a", "b"):
        await layer.group_add("room", name)
    for number in range(3):
        await layer.group_send("room", {"n": number})
    assert changes(layer) == {"sent": 3, "dropped_full": 4}


async def test_a_message_that_no_key_decrypts_is_counted(make_layer: LayerFactory) -> None:
    sender, reader = make_layer(symmetric_encryption_keys=["other"]), make_layer(symmetric_encryption_keys=["own"])
    await sender.send("jobs", {"n": 1})
    await reader.send("jobs", {"n": 2})
    assert await asyncio.wait_for(reader.receive("jobs"), DEADLINE_S) == {"n": 2}
    assert changes(reader, "retried") == {"sent": 1, "received": 1, "dropped_undecodable": 1}


async def test_what_found_the_database_locked_is_counted(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer()
    await layer.send("jobs", {"n": 0})
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sending = asyncio.create_task(layer.send("jobs", {"n": 1}))
        await aeventually(lambda: layer.counters.retried, DEADLINE_S)
        assert layer.counters.sent == 1
        other.execute("COMMIT")
        await sending
    assert layer.counters.sent == 2


async def test_wake_ups_are_counted_and_those_that_did_not_come(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, sender = make_layer(polling_interval=0.05), make_layer()
    channel = await reader.new_channel()
    for number in range(3):
        await sender.send(channel, {"n": number})
        await asyncio.wait_for(reader.receive(channel), DEADLINE_S)
    assert sender.counters.wakeups_sent == 3
    assert reader.counters.wakeups_missed == 0
    wake = inside.seat(engine_of(reader)).wake_socket
    assert wake is not None
    wake.drain()  # what comes after its message was found would wake for the next one
    await asyncio.sleep(0)  # the loop may have been told of it already
    monkeypatch.setattr(Sender, "send", lambda self, path: False)
    await sender.send(channel, {"n": 3})
    await asyncio.wait_for(reader.receive(channel), DEADLINE_S)
    assert sender.counters.wakeups_sent == 3
    assert reader.counters.wakeups_missed == 1
    receiving = asyncio.create_task(reader.receive("jobs"))

    async def listening() -> bool:
        return any(process.listening for process in (await look()).processes)

    await aeventually(listening, DEADLINE_S)
    await sender.send("jobs", {"n": 4})
    await asyncio.wait_for(receiving, DEADLINE_S)
    assert reader.counters.wakeups_missed == 2


async def test_trimming_and_checkpoints_are_counted(make_layer: LayerFactory) -> None:
    layer = make_layer(message_retention=0)
    for number in range(20):
        await layer.send("jobs", {"n": number})
        await asyncio.wait_for(layer.receive("jobs"), DEADLINE_S)
    process = engine_of(layer)
    inside.background(process).submit(inside.housekeeping(process).checkpoints.do_now)
    await layer.group_add("room", await layer.new_channel())
    await layer.group_send("room", {"n": 0})
    await aeventually(lambda: layer.counters.trimmed, DEADLINE_S)
    await aeventually(lambda: layer.counters.checkpoints, DEADLINE_S)
    assert layer.counters.trim_s > 0
    assert layer.counters.checkpoint_s > 0


# Over all processes


async def test_the_status_has_the_counters_of_who_receives_and_who_only_sends(make_layer: LayerFactory) -> None:
    reader, sender, other = make_layer(), make_layer(), make_layer(prefix="other")
    channel = await reader.new_channel()
    for number in range(5):
        await sender.send(channel, {"n": number})
        await reader.receive(channel)
    await other.send("jobs", {"n": 1})

    async def complete() -> LayerStatus | None:
        found = await look()
        return found if (found.counters.sent, found.counters.received) == (5, 5) else None

    found = await aeventually(complete, DEADLINE_S)
    assert found is not None
    assert {process.client: process.counters for process in found.processes} == {
        engine_of(reader).client: reader.counters,
        engine_of(sender).client: sender.counters,
    }
    assert all(process.pid == os.getpid() for process in found.processes)
    await sender.close()
    await reader.close()
    assert (await look()).processes == ()


def test_sums() -> None:
    one, two = Counters(sent=1, trim_s=0.5), Counters(sent=2, received=3, trim_s=0.25)
    assert total([one, two]) == Counters(sent=3, received=3, trim_s=0.75)
    assert total([]) == Counters()


# Notes


def a_note(**counted: int) -> Note:
    return Note("client", 4711, "asgi", 1e9, Counters(**counted))


def test_a_note_that_was_not_all_written_is_none() -> None:
    first, second = a_note(sent=1).encode(), a_note(sent=10**12, received=10**12).encode()
    assert len(first) == len(second)
    assert Note.decode(second) == a_note(sent=10**12, received=10**12)
    for cut in range(1, len(second.rstrip())):
        torn = second[:cut] + first[cut:]
        assert Note.decode(torn) in (None, a_note(sent=1)), cut
    assert Note.decode(b"") is None


def test_counters_that_this_version_does_not_know_are_left_out() -> None:
    encoded = a_note(sent=1).encode()
    text = encoded[8:].replace(b'"sent": 1', b'"news": 1, "sent": 1')
    assert Note.decode(b"%08x%s" % (zlib.crc32(text.rstrip()), text)) == a_note(sent=1)


def test_only_the_living_speak(tmp_path: Path) -> None:
    alive, dead = LockFile(str(tmp_path / "alive.lock")), LockFile(str(tmp_path / "dead.lock"))
    try:
        for lock in (alive, dead):
            lock.write(a_note().encode())
        assert len(living_notes(tmp_path)) == 2
        dead.unlock()
        (tmp_path / "empty.lock").touch()
        (tmp_path / "other.lock").write_bytes(b"something else")
        assert living_notes(tmp_path) == [a_note()]
        assert living_notes(tmp_path / "missing") == []
    finally:
        alive.release()
