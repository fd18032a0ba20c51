"""A user who may not write the database is told so, and goes on once the permissions are right."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from channels_sqlite.exceptions import ChannelDatabaseError
from tests.faults.support import count_messages, files_of, query
from tests.support.child import Parent
from tests.support.databases import DOCUMENTED_OPTIONS, ChannelDatabase, channel_database
from tests.support.processes import ChildProcess, ProcessFactory

pytestmark = [pytest.mark.faults, pytest.mark.processes]

NOBODY = 65534


@pytest.fixture
def folder(no_leaks: None) -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="channels-sqlite-readonly-"))
    folder.chmod(0o755)
    temporary = folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o777)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture(params=[DOCUMENTED_OPTIONS], ids=["documented options"])
def database(request: pytest.FixtureRequest, folder: Path) -> Iterator[ChannelDatabase]:
    """A database in a folder of its own there."""
    home = folder / "home"
    home.mkdir(mode=0o755)
    with channel_database(home, options=request.param) as database:
        yield database


async def try_as_nobody(parent: Parent) -> None:
    """Try to use the layer each time that the test says so, as a user without any rights."""
    layer = parent.make_layer()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    parent.say("ready")
    while await parent.ahear() == "try":
        try:
            await layer.send("jobs", {"n": 2})
            channel = await layer.new_channel()
            await layer.send(channel, {"n": 3})
            received = [await layer.receive(name) for name in ("jobs", "jobs", channel)]
        except ChannelDatabaseError as error:
            parent.say({"refused": str(error)})
        else:
            parent.say({"received": received})


def start_nobody(start_process: ProcessFactory, database: ChannelDatabase, folder: Path) -> ChildProcess:
    child = start_process(
        try_as_nobody,
        database=database,
        environment={"TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert child.hear() == "ready"
    return child


def send_one(database: ChannelDatabase) -> None:
    """A message that the owner of the file wrote earlier: {"n": 1}."""
    query(
        database.path,
        "INSERT INTO channels_sqlite_message (prefix, kind, state, queue, created_at, expires_at, payload) "
        "VALUES ('asgi', 0, 0, 'jobs', unixepoch(), unixepoch() + 600, x'81a16e01')",
    )


PERMISSIONS = {
    "neither file nor folder": (0o644, 0o755),
    "the folder only": (0o644, 0o777),
    "the file only": (0o666, 0o755),
}


@pytest.mark.parametrize(
    ("database", "writable"),
    [*((DOCUMENTED_OPTIONS, writable) for writable in PERMISSIONS), ({}, "neither file nor folder")],
    indirect=["database"],
    ids=[*PERMISSIONS, "neither, without options"],
)
def test_missing_rights_are_told_and_granted_ones_are_enough(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path, writable: str
) -> None:
    send_one(database)
    file_mode, folder_mode = PERMISSIONS[writable]
    if os.geteuid() != 0:  # whoever owns the files is kept out by their own bits
        file_mode, folder_mode = file_mode & 0o466, folder_mode & 0o577
    home = database.path.parent
    database.path.chmod(file_mode)
    home.chmod(folder_mode)

    child = start_nobody(start_process, database, folder)
    child.say("try")
    refused = child.hear()["refused"]
    assert str(database.path) in refused
    assert "may write" in refused or "may not write" in refused
    assert "folder" in refused
    home.chmod(0o755)
    assert count_messages(database.path) == 1, "something was written"

    home.chmod(0o777)
    for file in files_of(database.path):
        if file.exists():
            file.chmod(0o666)
    child.say("try")
    assert child.hear() == {"received": [{"n": 1}, {"n": 2}, {"n": 3}]}
    child.say("end")
    child.wait()


def test_other_users_can_use_a_database_that_they_may_write(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path
) -> None:
    """Two users at once: none of them makes files that the other cannot open."""
    home = database.path.parent
    home.chmod(0o777)
    database.path.chmod(0o666)
    child = start_nobody(start_process, database, folder)
    for _ in range(2):
        send_one(database)
        child.say("try")
        assert child.hear() == {"received": [{"n": 1}, {"n": 2}, {"n": 3}]}
    for file in files_of(database.path):
        if file.exists():
            assert stat.S_IMODE(file.stat().st_mode) & 0o666 == 0o666
    child.say("end")
    child.wait()
