"""The disk, or the size that the user allows, is full: told, nothing accepted is lost, and it works again with room."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import (
    Clock,
    assert_works,
    count_messages,
    next_is_marker,
    patient_of,
    receive_numbers,
    refusals,
)
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

LARGE = b"x" * 20_000


async def fill(layer: SqliteChannelLayer, channel: str) -> tuple[int, str]:
    """Send until that is refused: how many were accepted, and what was said."""
    for number in range(10_000):
        try:
            await layer.send(channel, {"n": number, "data": LARGE})
        except ChannelDatabaseError as error:
            return number, str(error)
    raise AssertionError("it never became full")


# A size limit


@pytest.fixture
def limited(no_leaks: None, tmp_path: Path) -> Iterator[ChannelDatabase]:
    """A database of at most two megabytes."""
    with channel_database(
        tmp_path, alias="limited", options={"timeout": 2, "init_command": "PRAGMA max_page_count=500"}
    ) as database:
        yield database


async def test_a_full_database_is_told_and_what_it_holds_can_still_be_received(
    limited: ChannelDatabase, make_layer: LayerFactory
) -> None:
    layer, reader = make_layer("limited", capacity=1000), make_layer("limited", capacity=1000)
    channel = await reader.new_channel()
    await layer.send(channel, {"n": -1, "data": LARGE})
    accepted, said = await fill(layer, "jobs")
    assert accepted > 20
    assert "full" in said
    assert "max_page_count" in said
    assert "message_retention" in said
    assert await receive_numbers(reader, channel, 1) == [-1]
    assert await receive_numbers(reader, "jobs", accepted) == list(range(accepted))


async def test_a_flush_makes_room_again(limited: ChannelDatabase, make_layer: LayerFactory) -> None:
    layer = make_layer("limited", capacity=1000)
    await fill(layer, "jobs")
    await layer.flush()
    await assert_works(layer)


async def test_trimming_makes_room_again_by_itself(
    limited: ChannelDatabase, make_layer: LayerFactory, clock: Clock
) -> None:
    layer = make_layer("limited", capacity=1000, message_retention=100)
    async with patient_of(layer) as patient:
        await fill(layer, "jobs")
        clock.shift_s += 100
        await aeventually(lambda: count_messages(limited.path) == 0)
        await patient.assert_served(layer)
    await assert_works(layer)


async def test_a_full_database_without_retention_empties_as_it_is_read(
    limited: ChannelDatabase, make_layer: LayerFactory
) -> None:
    layer = make_layer("limited", capacity=1000, message_retention=0)
    accepted, _ = await fill(layer, "jobs")
    assert await receive_numbers(layer, "jobs", accepted) == list(range(accepted))
    again, _ = await fill(layer, "jobs")
    assert again >= accepted * 0.8


async def test_a_refused_message_does_not_refuse_the_small_ones_beside_it(
    limited: ChannelDatabase, make_layer: LayerFactory
) -> None:
    layer = make_layer("limited", capacity=1000)
    await layer.send("jobs", {"n": 1})
    with pytest.raises(ChannelDatabaseError, match="full"):
        await layer.send("jobs", {"n": 2, "data": b"x" * 4_000_000})
    await layer.send("jobs", {"n": 3})
    assert await receive_numbers(layer, "jobs", 2) == [1, 3]
    assert await next_is_marker(layer, "jobs")


# A full disk


@pytest.fixture
def small_disk(no_leaks: None, tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


@pytest.fixture
def on_small_disk(small_disk: Path) -> Iterator[ChannelDatabase]:
    with channel_database(small_disk, alias="small") as database:
        yield database


class Filler:
    """A file that takes all the room there is, until it is removed."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "filler"

    def fill(self) -> None:
        with suppress(OSError), self._path.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)

    def remove(self) -> None:
        self._path.unlink()


async def test_a_full_disk_is_told_and_nothing_accepted_is_lost(
    on_small_disk: ChannelDatabase, make_layer: LayerFactory
) -> None:
    filler = Filler(on_small_disk.path.parent)
    layer, reader = make_layer("small", capacity=1000), make_layer("small", capacity=1000)
    async with patient_of(reader) as patient:
        await layer.send("jobs", {"n": 0, "data": LARGE})
        filler.fill()
        accepted = [0]
        said = ""
        for number in range(1, 500):
            try:
                await layer.send("jobs", {"n": number, "data": LARGE})
                accepted.append(number)
            except ChannelDatabaseError as error:
                said = str(error)
                break
        assert "disk" in said
        assert "space" in said or "check the disk" in said
        filler.remove()
        await layer.send("jobs", {"n": 1000})
        assert await receive_numbers(reader, "jobs", len(accepted) + 1) == [*accepted, 1000]
        await patient.assert_served(layer)
    await assert_works(layer)
    await assert_works(reader)


async def test_a_disk_that_is_full_from_the_start_is_told(
    on_small_disk: ChannelDatabase, make_layer: LayerFactory
) -> None:
    filler = Filler(on_small_disk.path.parent)
    filler.fill()
    layer = make_layer("small")
    for said in await refusals(layer, "send", "new_channel", "group_add"):
        assert "disk" in said
    filler.remove()
    await assert_works(layer)


async def test_messages_that_wait_on_a_full_disk_are_received_once_there_is_room(
    on_small_disk: ChannelDatabase, make_layer: LayerFactory
) -> None:
    filler = Filler(on_small_disk.path.parent)
    layer, sender = make_layer("small"), make_layer("small")
    channel = await layer.new_channel()
    for number in range(5):
        await sender.send("jobs", {"n": number})
        await sender.send(channel, {"n": number})
    filler.fill()
    # Reading writes nothing for process-specific channels.
    assert await receive_numbers(layer, channel, 5) == list(range(5))
    filler.remove()
    assert await receive_numbers(layer, "jobs", 5) == list(range(5))
    assert await next_is_marker(layer, "jobs")
