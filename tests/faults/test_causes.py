"""What the operating system refuses is told by its cause, each with its own remedy, and made up for once it is gone."""

import asyncio
import ctypes
import errno
import os
import socket
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.storage import causes
from channels_sqlite.storage.errors import explain, explain_os
from channels_sqlite.sync import SyncChannelLayer
from tests.faults.support import assert_works, receive, refusals
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory

pytestmark = pytest.mark.faults

REMEDIES = {
    errno.EMFILE: ("this process has no file descriptor left", "LimitNOFILE="),
    errno.ENFILE: ("this machine has no file descriptor left", "fs.file-max"),
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("quota", "raise it"),
    errno.EROFS: ("mounted read-only", "mount it for writing"),
    errno.EACCES: ("may not write", "give its user write permission"),
    errno.EPERM: ("may not write", "give its user write permission"),
    errno.EIO: ("the disk failed", "kernel's log"),
    errno.ENOMEM: ("no memory left", "give this process more"),
    errno.ENOBUFS: ("no memory left for sockets", "this machine"),
}
by_errno = pytest.mark.parametrize("number", REMEDIES, ids=[errno.errorcode[number] for number in REMEDIES])

HIDING = {
    "unable to open database file": sqlite3.OperationalError,
    "disk I/O error": sqlite3.OperationalError,
    "attempt to write a readonly database": sqlite3.OperationalError,
}
"""What SQLite says, whatever it met."""


@by_errno
def test_each_error_has_its_own_remedy(number: int) -> None:
    error = OSError(number, os.strerror(number), "/srv/channels.sqlite3.wake/x.lock")
    text = str(explain_os(error, "making the lock file"))
    assert text.startswith("making the lock file failed: ")
    assert all(part in text for part in REMEDIES[number])
    assert os.strerror(number) in text


def test_another_error_is_told_as_it_is() -> None:
    text = str(explain_os(OSError(errno.ELOOP, "a loop"), "making it"))
    assert "see what the system says" in text
    assert "a loop" in text


@by_errno
@pytest.mark.parametrize("said", HIDING)
def test_what_sqlite_hides_is_found(monkeypatch: pytest.MonkeyPatch, number: int, said: str) -> None:
    monkeypatch.setattr("channels_sqlite.storage.errors.hidden_errno", lambda path: (number, f"the file {path!r}"))
    text = str(explain(HIDING[said](said), "file:/srv/c.sqlite3?mode=rw", "channels"))
    assert all(part in text for part in REMEDIES[number])
    assert said in text
    if number in (errno.EACCES, errno.EPERM):
        assert "may not write the file '/srv/c.sqlite3'" in text


def test_nothing_is_found_where_all_is_well(database: ChannelDatabase) -> None:
    assert causes.hidden_errno(str(database.path))[0] is None


def test_a_full_disk_is_found(database: ChannelDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(database.path.parent)

    def full(index: int) -> Callable[[str], os.statvfs_result]:
        return lambda path: os.statvfs_result([0 if at == index else value for at, value in enumerate(real)])

    for index in (4, 7):  # blocks and files for those who are not root
        monkeypatch.setattr(os, "statvfs", full(index))
        assert causes.hidden_errno(str(database.path))[0] == errno.ENOSPC


# Descriptors


async def use_both_faces(parent: Parent) -> None:
    """With ever more descriptors to be had: use the layer for the first time, and again when there are enough."""
    import resource

    def count() -> int:
        return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208  # what lists has one

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    loop = asyncio.get_running_loop()
    for spare in range(16):
        for calls in (async_calls, sync_calls):
            layer = parent.make_layer()
            await loop.run_in_executor(None, int)  # has its thread
            before = count()
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
            said = await calls(layer)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if said[0] != "ok" and count() != before:
                said.append(f"left {count() - before} descriptors open")
            said += [one for one in await calls(layer) if one != "ok"]
            await layer.close()
            if count() != before:
                said.append(f"left {count() - before} descriptors open when it was closed")
            parent.say({"spare": spare, "face": calls.__name__, "said": said})


async def async_calls(layer: SqliteChannelLayer) -> list[str]:
    async def specific() -> None:
        channel = await layer.new_channel()
        await layer.send(channel, {"n": 2})
        assert await asyncio.wait_for(layer.receive(channel), 10) == {"n": 2}

    async def wait() -> None:
        waiting = asyncio.ensure_future(layer.receive("later"))
        await asyncio.sleep(0)
        if not waiting.done():
            await layer.send("later", {"n": 3})
        assert await asyncio.wait_for(waiting, 10) == {"n": 3}

    return [await outcome(call) for call in (lambda: layer.send("jobs", {"n": 1}), specific, wait)]


async def sync_calls(layer: SqliteChannelLayer) -> list[str]:
    facade = SyncChannelLayer(layer)

    def specific() -> None:
        channel = facade.new_channel()
        facade.send(channel, {"n": 2})
        assert facade.receive(channel, timeout=10) == {"n": 2}

    def wait() -> None:
        with pytest.raises(TimeoutError):
            facade.receive("never", timeout=0.1)

    def in_thread(call: Callable[[], object]) -> Callable[[], Awaitable[object]]:
        return lambda: asyncio.get_running_loop().run_in_executor(None, call)

    return [await outcome(in_thread(call)) for call in (lambda: facade.send("jobs", {"n": 1}), specific, wait)]


async def outcome(call: Callable[[], Awaitable[object]]) -> str:
    try:
        await call()
    except ChannelDatabaseError as error:
        return "told" if all(part in str(error) for part in REMEDIES[errno.EMFILE]) else f"told wrongly: {error}"
    except BaseException as error:  # noqa: BLE001  # what it is, is what is tested
        return repr(error)
    return "ok"


@pytest.mark.processes
def test_without_descriptors_every_call_says_so_leaves_nothing_open_and_works_once_there_are_some(
    start_process: ProcessFactory, database: ChannelDatabase
) -> None:
    child = start_process(use_both_faces, database=database)
    outcomes = child.hear_all(120)
    assert len(outcomes) == 32
    assert [one for one in outcomes if set(one["said"]) - {"ok", "told"}] == []
    assert [one["said"] for one in outcomes[:2]] == [["told"] * 3] * 2
    assert [one["said"] for one in outcomes[-2:]] == [["ok"] * 3] * 2


async def test_what_was_opened_is_closed_when_something_else_cannot_be(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = make_layer()

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    with monkeypatch.context() as patch:
        patch.setattr(MeetingPlace, "make_sure", refuse)
        for text in await refusals(layer, "send", "receive"):
            assert "fs.file-max" in text
        process = engine_of(layer)
        assert process.database.connections is None
    await assert_works(layer)


async def test_without_sockets_messages_are_found_by_polling(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    layer, other = make_layer(), make_layer()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        channel = await layer.new_channel()
        await other.send(channel, {"n": 1})
        assert await receive(layer, channel) == {"n": 1}


# File systems

CLONE_NEWNS, MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 1, 32, 4096, 16384, 1 << 18


def mount(source: str, target: Path, kind: str, flags: int, data: str = "") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def have_own_mounts() -> bool:
    """Whether this process now sees mounts of its own, for its own time."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNS) != 0:
        return False
    try:
        mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    except OSError:
        return False
    return True


async def use_read_only(parent: Parent) -> None:
    folder = parent.database.path.parent
    if not have_own_mounts():
        parent.say(None)
        return
    mount(str(folder), folder, "", MS_BIND)
    mount(str(folder), folder, "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    layer = parent.make_layer()
    parent.say(await refusals(layer, "send", "receive", "group_channels"))
    mount(str(folder), folder, "", MS_BIND | MS_REMOUNT)
    await assert_works(layer)
    parent.say("works")


@pytest.mark.processes
def test_a_file_system_that_is_mounted_read_only_is_named(
    start_process: ProcessFactory, database: ChannelDatabase
) -> None:
    child = start_process(use_read_only, database=database)
    texts = child.hear()
    if texts is None:
        pytest.skip("this process may not mount anything")
    for text in texts:
        assert all(part in text for part in REMEDIES[errno.EROFS]), text
    assert child.hear() == "works"
    child.wait()
