"""The folder of lock files and sockets goes, or is no folder any more, under processes in use: it is made up for."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.processes.lock_files import ElectionLock, LockFile
from channels_sqlite.processes.meeting_place import MeetingPlace, folder_beside, own_folder
from tests.faults.support import receive, remove_folder
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.inside import made
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

REPAIRED_S = 10.0
LARGE = 500_000


@pytest.fixture
def home(tmp_path: Path, no_leaks: None) -> Iterator[Path]:
    """A folder whose path is short enough for sockets, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="wake-") as folder:
        yield Path(folder)


@pytest.fixture
def temporary(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, for this test and its processes alone."""
    folder = home / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def database(home: Path, temporary: Path) -> Iterator[ChannelDatabase]:
    with channel_database(home) as database:
        yield database


@pytest.fixture
def wake(database: ChannelDatabase) -> Path:
    return folder_beside(str(database.path))


# What happens to it


def to_a_file(wake: Path) -> None:
    obstacle = wake.with_name("obstacle")
    obstacle.write_text("no folder")
    put_in_its_place(obstacle, wake)


def to_a_dangling_link(wake: Path) -> None:
    obstacle = wake.with_name("obstacle")
    obstacle.symlink_to(wake.with_name("nowhere"))
    put_in_its_place(obstacle, wake)


def put_in_its_place(obstacle: Path, wake: Path) -> None:
    """Again where a process has made the folder anew in between."""
    while True:
        remove_folder(wake)
        try:
            obstacle.rename(wake)
        except (IsADirectoryError, FileExistsError):
            continue
        return


def make_room(wake: Path) -> None:
    """Undo the last two."""
    wake.unlink()


OBSTACLES: dict[str, Callable[[Path], None]] = {"a file": to_a_file, "a dangling link": to_a_dangling_link}
obstacles = pytest.mark.parametrize("obstruct", OBSTACLES.values(), ids=OBSTACLES)


# The place


def test_a_removed_folder_is_made_anew(database: ChannelDatabase, wake: Path) -> None:
    place = MeetingPlace(str(database.path))
    remove_folder(wake)
    place.make_sure()
    assert place.folder == wake
    assert wake.is_dir()


@obstacles
def test_where_it_cannot_be_made_the_temporary_folder_serves_until_it_can(
    database: ChannelDatabase, wake: Path, temporary: Path, obstruct: Callable[[Path], None]
) -> None:
    place = MeetingPlace(str(database.path))
    obstruct(wake)
    place.make_sure()
    assert place.folder.is_relative_to(temporary)
    make_room(wake)
    place.make_sure()
    assert place.folder == wake


def test_looking_makes_nothing(database: ChannelDatabase, wake: Path, temporary: Path) -> None:
    MeetingPlace(str(database.path), make=False)
    assert not wake.exists()
    assert list(temporary.iterdir()) == []


def test_who_has_moved_and_who_has_not_elect_one_between_them(database: ChannelDatabase, wake: Path) -> None:
    """Checkpoints side by side could corrupt the file."""
    early, late = MeetingPlace(str(database.path)), MeetingPlace(str(database.path))
    to_a_file(wake)
    with ElectionLock(early, "housekeeping") as elected:
        assert elected
        make_room(wake)
        with ElectionLock(late, "housekeeping") as second:
            assert late.folder != early.folder
            assert not second


def test_a_lock_file_that_cannot_be_removed_is_let_go_all_the_same(database: ChannelDatabase, wake: Path) -> None:
    place = MeetingPlace(str(database.path))
    lock = LockFile(place.path("client.lock"))
    to_a_file(wake)
    lock.release()
    lock.release()


# In use


async def consume(parent: Parent) -> None:
    """Say the numbers of what comes for this process, and hold a place in the group."""
    logging.basicConfig(level=logging.WARNING)
    layer = parent.make_layer(message_retention=0)
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    parent.say(channel)
    while (message := await layer.receive(channel))["n"] is not None:
        parent.say(message["n"])


def is_repaired(folder: Path, clients: list[str]) -> bool:
    return all((folder / f"{client}{suffix}").exists() for client in clients for suffix in (".lock", ".sock"))


def client_of(layer: SqliteChannelLayer) -> str:
    process = engine_of(layer)
    return process.client


def fallback(database: ChannelDatabase) -> Path:
    """The folder of this database's below the temporary one."""
    [folder] = own_folder().iterdir()
    return folder


@pytest.mark.processes
async def test_removing_the_folder_in_the_middle_of_traffic_is_noticed_by_nobody(
    make_layer: LayerFactory,
    database: ChannelDatabase,
    wake: Path,
    start_process: ProcessFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    readers = [start_process(consume, database=database) for _ in range(2)]
    channels = [await reader.ahear() for reader in readers]
    clients = [channel.partition("!")[0].rpartition(".")[2] for channel in channels]
    layer = make_layer(message_retention=0)
    number = 0
    for _ in range(3):
        remove_folder(wake)

        async def all_is_back() -> bool:
            nonlocal number
            await layer.group_send("room", {"n": number, "data": b"x" * 10_000})
            assert [await reader.ahear() for reader in readers] == [number, number]
            number += 1
            return is_repaired(wake, clients)

        await aeventually(all_is_back, REPAIRED_S, what="lock files and sockets are there again")

    # The election goes on,
    for _ in range(50):
        await layer.send("jobs", {"data": b"x" * LARGE})
        await receive(layer, "jobs")
    await aeventually(lambda: os.stat(f"{database.path}-wal").st_size < 1_000_000, 30, what="a checkpoint")
    # and deaths are seen.
    readers[0].kill()

    async def only_the_other_is_left() -> bool:
        return await layer.group_channels("room") == [channels[1]]

    await aeventually(only_the_other_is_left, 20)
    assert [reader.stderr for reader in readers] == ["", ""]
    await layer.group_send("room", {"n": None})
    await asyncio.to_thread(readers[1].wait)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.processes
@obstacles
async def test_where_it_cannot_be_made_again_messages_flow_on_and_closing_is_clean(
    make_layer: LayerFactory,
    database: ChannelDatabase,
    wake: Path,
    start_process: ProcessFactory,
    obstruct: Callable[[Path], None],
) -> None:
    readers = [start_process(consume, database=database) for _ in range(2)]
    channels = [await reader.ahear() for reader in readers]
    clients = [channel.partition("!")[0].rpartition(".")[2] for channel in channels]
    layer = make_layer(message_retention=0)
    number = 0

    async def passes() -> None:
        nonlocal number
        await layer.group_send("room", {"n": number})
        assert [await reader.ahear() for reader in readers] == [number, number]
        number += 1

    obstruct(wake)

    async def moved() -> bool:
        await passes()
        return own_folder().is_dir() and is_repaired(fallback(database), clients)

    await aeventually(moved, REPAIRED_S, what="lock files and sockets are in the temporary folder")
    readers[0].kill()

    async def only_the_other_is_left() -> bool:
        return await layer.group_channels("room") == [channels[1]]

    await aeventually(only_the_other_is_left, 20)
    del readers[0], clients[0]
    make_room(wake)

    async def moved_back() -> bool:
        await layer.group_send("room", {"n": number})
        assert await readers[0].ahear() == number
        return is_repaired(wake, clients)

    await aeventually(moved_back, REPAIRED_S, what="lock files and sockets are beside the database again")
    await layer.group_send("room", {"n": None})
    await asyncio.to_thread(readers[0].wait)
    assert "ERROR" not in readers[0].stderr
    await layer.close()
    assert [path.name for path in wake.iterdir()] == ["housekeeping.lock"]
    assert [path.name for path in fallback(database).iterdir()] == ["housekeeping.lock"]


@obstacles
async def test_closing_while_it_is_no_folder_leaves_nothing_open(
    make_layer: LayerFactory, wake: Path, obstruct: Callable[[Path], None]
) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})
    obstruct(wake)
    await layer.close()
    assert made(layer) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_a_folder_that_may_not_be_written_any_more_is_left_for_the_temporary_one(
    make_layer: LayerFactory, database: ChannelDatabase, wake: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer()
    channel = await layer.new_channel()
    with monkeypatch.context() as patch:  # root may write anywhere
        patch.setattr("channels_sqlite.processes.meeting_place.why_unusable", lambda folder: "it may not be written")
        await aeventually(
            lambda: own_folder().is_dir() and is_repaired(fallback(database), [client_of(layer)]), REPAIRED_S
        )
        await layer.send(channel, {"n": 1})
        assert await receive(layer, channel) == {"n": 1}
        await layer.close()
    assert [path.name for path in fallback(database).iterdir()] == ["housekeeping.lock"]
