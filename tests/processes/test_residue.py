"""What killed processes leave beside the database goes while anybody lives, and with whoever comes or goes last."""

import os
import threading
import time
from pathlib import Path

import pytest

from channels_sqlite.layers import engine_of
from channels_sqlite.processes.liveness import remove_orphans
from channels_sqlite.processes.lock_files import LockFile
from channels_sqlite.processes.meeting_place import MeetingPlace, folder_beside
from channels_sqlite.sync import SyncChannelLayer
from tests.faults.support import housekeep, query
from tests.support import inside
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ChildProcess, ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

GONE_S = 10.0


def send_and_stay(parent: Parent) -> None:
    SyncChannelLayer(parent.make_layer()).send("jobs", {"n": 1})
    parent.say("sent")
    parent.hear()


async def receive_and_stay(parent: Parent) -> None:
    layer = parent.make_layer()
    channel = await layer.new_channel()
    await layer.group_add("room", channel)
    parent.say("here")
    await layer.receive(channel)


def files_in(database: ChannelDatabase) -> set[str]:
    """What lies in the folder of lock files and sockets, but for the lock of the election, and while that is made."""
    names = {path.name for path in folder_beside(str(database.path)).iterdir()}
    return {name for name in names if not name.startswith("housekeeping")}


def kill(*children: ChildProcess) -> None:
    for child in children:
        child.hear()
    for child in children:
        child.kill()


async def test_the_files_of_a_killed_sender_go_while_a_reader_lives(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    layer = make_layer()
    await layer.new_channel()
    mine = files_in(database)
    child = start_process(send_and_stay, database=database)
    await child.ahear()
    assert len(files_in(database) - mine) == 1
    child.kill()
    await aeventually(lambda: files_in(database) == mine, GONE_S)


async def test_they_go_while_an_idle_sender_lives_and_so_does_what_a_killed_reader_left(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    children = [start_process(one, database=database) for one in (send_and_stay, receive_and_stay)]
    layer = make_layer()
    await layer.send("jobs", {"n": 2})
    for child in children:
        await child.ahear()
    process = engine_of(layer)
    await aeventually(lambda: not inside.ticks(process), 10, what="it has nothing to do")
    for child in children:
        child.kill()
    await aeventually(lambda: files_in(database) == {f"{process.client}.lock"}, GONE_S)
    assert query(database.path, "SELECT * FROM channels_sqlite_membership") == []


async def test_whoever_closes_last_takes_along_what_the_dead_left(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    layer = make_layer()
    await layer.new_channel()
    children = [start_process(one, database=database) for one in (send_and_stay, receive_and_stay)]
    for child in children:
        await child.ahear()
    for child in children:
        child.kill()
    await layer.close()
    assert files_in(database) == set()
    assert query(database.path, "SELECT * FROM channels_sqlite_process") == []


async def test_whoever_comes_next_does_so_at_once(
    make_layer: LayerFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    kill(*(start_process(one, database=database) for one in (send_and_stay, receive_and_stay, send_and_stay)))
    assert len(files_in(database)) >= 3
    layer = make_layer()
    await layer.send("jobs", {"n": 2})
    process = engine_of(layer)
    await aeventually(lambda: files_in(database) == {f"{process.client}.lock"}, GONE_S)


def test_a_sweep_never_takes_the_file_of_somebody_who_has_just_made_it(tmp_path: Path) -> None:
    """Half of them have made their files and not locked them yet when the sweep comes."""
    database = tmp_path / "channels.sqlite3"
    database.touch()
    place = MeetingPlace(str(database))
    ends = time.monotonic() + 2
    failures: list[str] = []

    def sweep() -> None:
        while time.monotonic() < ends:
            remove_orphans(place, lambda client: False)

    def come_and_go(number: int) -> None:
        turn = 0
        while time.monotonic() < ends:
            turn += 1
            path = place.path(f"client-{number}-{turn}.lock")
            lock = LockFile(path)
            if not os.path.exists(path):
                failures.append(path)
            lock.release()

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    threads += [threading.Thread(target=come_and_go, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


async def test_the_memberships_of_one_who_lives_and_has_lost_its_row_are_left_alone(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    """It is about to register again; `flush` and tests delete rows behind a process's back."""
    layer = make_layer()
    alive, dead = "specific.0123456789abcdef!x", "specific.fedcba9876543210!x"
    lock = LockFile(MeetingPlace(str(database.path)).path("0123456789abcdef.lock"))
    for channel in (alive, dead):
        await layer.group_add("room", channel)

    async def members() -> list[str]:
        process = engine_of(layer)
        inside.look_for_orphans(process)
        await housekeep(layer)
        return await layer.group_channels("room")

    async def only_one_is_left() -> bool:
        return await members() == [alive]

    await aeventually(only_one_is_left)
    lock.unlock()

    async def nobody_is_left() -> bool:
        return await members() == []

    await aeventually(nobody_is_left)
