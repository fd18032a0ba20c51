"""Several users share a database: whoever may open it may open what lies beside it, whatever the umask of the first."""

import errno
import logging
import os
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import WARNING, CheckMessage
from pytest_django import DjangoDbBlocker

from channels_sqlite.checks import ids
from channels_sqlite.checks.database import check_databases
from channels_sqlite.processes import flocks, sharing
from channels_sqlite.processes.given_ids import GivenIds
from channels_sqlite.processes.liveness import is_dead, remove_orphans
from channels_sqlite.processes.lock_files import ElectionLock, LockFile
from channels_sqlite.processes.meeting_place import MeetingPlace, folder_beside
from channels_sqlite.processes.sharing import Rights, draft_of, is_draft, share_folder
from channels_sqlite.storage.readers import ProcessRow
from tests.faults.support import query
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.processes import ChildProcess, ProcessFactory
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.faults,
    pytest.mark.processes,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else"),
]

NOBODY = 65534
ANN, BEN = 1234, 1235  # users; each has a group of that number
SHARED = 1300  # a group that both are in
LARGE = 500_000


@pytest.fixture
def folder(no_leaks: None) -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="channels-sqlite-users-"))
    folder.chmod(0o755)
    temporary = folder / "tmp"
    temporary.mkdir()
    temporary.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def django_connections(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Django may connect to the database."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def database(folder: Path) -> Iterator[ChannelDatabase]:
    home = folder / "home"
    home.mkdir(mode=0o755)
    with channel_database(home) as database:
        yield database


def share(database: ChannelDatabase, mode: int, gid: int = 0, uid: int = 0) -> None:
    """Have the database and its folder belong to a group, with the modes that go with it."""
    home = database.path.parent
    for path, its_mode in ((database.path, mode), (home, mode | (mode & 0o444) >> 2)):
        os.chown(path, uid, gid)
        path.chmod(its_mode)


def become(uid: int, umask: int, groups: list[int]) -> None:
    os.umask(umask)
    if uid:
        os.setgroups(groups)
        os.setgid(uid)
        os.setuid(uid)


async def use(parent: Parent, *, uid: int, umask: int, groups: list[int]) -> None:
    """Use the layer as this user, as the test says."""
    logging.basicConfig(level=logging.WARNING)
    layer = parent.make_layer(message_retention=0, capacity=1000)
    become(uid, umask, groups)
    parent.say("ready")
    while (order := await parent.ahear()) != "end":
        if order == "join":
            channel = await layer.new_channel()
            await layer.group_add("room", channel)
            parent.say(channel)
        elif order == "send":
            await layer.send("jobs", {"data": b"x" * LARGE})
            parent.say((await layer.receive("jobs"))["data"].count(b"x"))
        elif order == "group":
            parent.say(await layer.group_channels("room"))


def start(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path, uid: int, umask: int, *groups: int
) -> ChildProcess:
    child = start_process(
        use,
        database=database,
        environment={"TMPDIR": str(folder / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"},
        uid=uid,
        umask=umask,
        groups=list(groups),
    )
    assert child.hear() == "ready"
    return child


def ask(child: ChildProcess, order: str) -> object:
    child.say(order)
    return child.hear(30)


def end(child: ChildProcess) -> None:
    child.say("end")
    child.wait()


def wal_bytes(database: ChannelDatabase) -> int:
    try:
        return os.stat(f"{database.path}-wal").st_size
    except FileNotFoundError:
        return 0


def assert_housekeeping(child: ChildProcess, database: ChannelDatabase) -> None:
    """The process, the only one, keeps the WAL small by itself: 22 MB pass through it."""
    for _ in range(45):
        assert ask(child, "send") == LARGE
    eventually(lambda: wal_bytes(database) < 1_000_000, 30, what="a checkpoint")


def assert_death_is_noticed(dying: ChildProcess, living: ChildProcess) -> None:
    channel = ask(dying, "join")

    def is_member() -> bool:
        members: Any = ask(living, "group")
        return channel in members

    assert is_member()
    dying.kill()
    eventually(lambda: not is_member(), 20, what="the dead one is gone from the group")


def files_beside(database: ChannelDatabase) -> list[Path]:
    """The files of all kinds that lie in the folder, as soon as they have their names."""
    folder = folder_beside(str(database.path))
    eventually((folder / "housekeeping.lock").exists)
    files = [file for file in folder.iterdir() if not is_draft(file.name)]
    assert {file.suffix for file in files} == {".lock", ".sock"}
    return files


umasks = pytest.mark.parametrize("umask", [0o022, 0o077], ids=["umask 022", "umask 077"])


@umasks
def test_after_root_a_user_whom_all_may_be_does_the_housekeeping_and_notices_deaths(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path, umask: int
) -> None:
    share(database, 0o666)
    root = start(start_process, database, folder, 0, umask)
    ask(root, "join")
    eventually((folder_beside(str(database.path)) / "housekeeping.lock").exists)
    end(root)
    service = start(start_process, database, folder, NOBODY, umask)
    assert_housekeeping(service, database)
    root = start(start_process, database, folder, 0, umask)
    assert_death_is_noticed(root, service)
    other = start(start_process, database, folder, ANN, umask)
    assert_death_is_noticed(other, service)
    assert service.stderr == ""
    end(service)


@umasks
def test_users_who_share_a_group_share_all_files(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path, umask: int
) -> None:
    share(database, 0o660, gid=SHARED)
    ann = start(start_process, database, folder, ANN, umask, SHARED)
    ask(ann, "join")
    for suffix in ("-wal", "-shm", ".wake"):
        assert os.stat(f"{database.path}{suffix}").st_gid == SHARED, suffix

    for file in files_beside(database):
        status = file.stat()
        assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (SHARED, 0o660), file
    ben = start(start_process, database, folder, BEN, umask, SHARED)
    assert_death_is_noticed(ann, ben)
    assert_housekeeping(ben, database)
    ann = start(start_process, database, folder, ANN, umask, SHARED)
    assert_death_is_noticed(ben, ann)
    assert ann.stderr == ben.stderr == ""
    end(ann)


@umasks
def test_what_root_makes_belongs_to_the_owner_of_the_database(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path, umask: int
) -> None:
    share(database, 0o600, gid=ANN, uid=ANN)
    root = start(start_process, database, folder, 0, umask)
    ask(root, "join")
    for file in (folder_beside(str(database.path)), *files_beside(database)):
        status = file.stat()
        assert (status.st_uid, status.st_gid) == (ANN, ANN), file
    ann = start(start_process, database, folder, ANN, umask)
    assert_death_is_noticed(root, ann)
    assert_housekeeping(ann, database)
    assert ann.stderr == ""
    end(ann)


@pytest.mark.usefixtures("django_connections")
def test_a_lock_file_that_nobody_else_may_open_is_told_once_and_named_by_a_check(
    start_process: ProcessFactory, database: ChannelDatabase, folder: Path
) -> None:
    """As an earlier version left it."""
    share(database, 0o666)
    wake = Path(f"{database.path}.wake")
    wake.mkdir()
    wake.chmod(0o777)
    lock = wake / "housekeeping.lock"
    lock.touch(mode=0o600)
    service = start(start_process, database, folder, NOBODY, 0o022)
    ask(service, "join")
    eventually(lambda: "housekeeping.lock" in service.stderr)
    for _ in range(20):
        ask(service, "send")
    eventually(lambda: messages_in(database) == 0, 20, what="trimming goes on")
    [line] = service.stderr.splitlines()
    for part in ("WARNING", str(lock), "'root'", "0600", "'nobody'", "checkpoints", "chmod --reference"):
        assert part in line

    message = the_warning()
    for part in (str(lock), "'root'", "0600", "'nobody'", "checkpoints"):
        assert part in message.msg
    assert "chmod --reference" in str(message.hint)

    # Reading it is enough.
    lock.chmod(0o644)
    assert warnings() == []
    assert_housekeeping(service, database)
    end(service)


def messages_in(database: ChannelDatabase) -> int:
    count: int = query(database.path, "SELECT count(*) FROM channels_sqlite_message")[0][0]
    return count


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def warnings() -> list[CheckMessage]:
    """What the checks of the database warn of, as nobody."""
    with as_nobody():
        return [message for message in check_databases(databases=["channels"]) if message.level >= WARNING]


def the_warning() -> CheckMessage:
    """The only one."""
    [message] = warnings()
    assert message.id == ids.SIDE_FILE_UNUSABLE
    assert message.obj == "DATABASES['channels']"
    return message


@pytest.mark.usefixtures("django_connections")
def test_a_process_whose_death_cannot_be_seen_is_told(
    database: ChannelDatabase, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_told", set())
    share(database, 0o666)
    place = MeetingPlace(str(database.path))
    lock = Path(place.path("client.lock"))
    lock.touch(mode=0o600)
    with as_nobody():
        for _ in range(3):
            assert not is_dead(ProcessRow("client", 2**22 + 1, "", "client.sock", 0, "{}", 0), place)
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    for text in (record.getMessage(), the_warning().msg):
        for part in (str(lock), "'root'", "0600", "death"):
            assert part in text
    lock.rename(lock.with_suffix(".sock"))
    assert "wake" in the_warning().msg


# What is found while it is being made


def note_ids(place: MeetingPlace, database: ChannelDatabase) -> Path:
    given = GivenIds()
    given.open(str(database.path), make=True)
    given.note(7)
    given.close()
    return Path(place.path("history"))


def elect(place: MeetingPlace, database: ChannelDatabase) -> Path:
    with ElectionLock(place, "housekeeping") as elected:
        assert elected
    return Path(place.path("housekeeping.lock"))


def be_alive(place: MeetingPlace, database: ChannelDatabase) -> Path:
    LockFile(place.path("client.lock"), place.rights).unlock()
    return Path(place.path("client.lock"))


def make_it(parent: Parent, *, make: str) -> None:
    """Make what the function of that name makes, and say where."""
    made = {function.__name__: function for function in (note_ids, elect, be_alive)}
    parent.say(str(made[make](MeetingPlace(str(parent.database.path)), parent.database)))


def die_while_making(parent: Parent, *, make: str, named: bool) -> None:
    """Make what the function of that name makes, and be killed before it is shared, or as soon as it is `named`."""
    link = os.link

    def be_killed(*arguments: Any, **options: Any) -> None:
        if named:
            link(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, "link" if named else "fchown", be_killed)
    make_it(parent, make=make)


@pytest.fixture
def anns(database: ChannelDatabase) -> MeetingPlace:
    """Where those meet who use a database of Ann's; root makes what is there."""
    share(database, 0o600, gid=ANN, uid=ANN)
    return MeetingPlace(str(database.path))


Make = Callable[[MeetingPlace, ChannelDatabase], Path]
made_files = pytest.mark.parametrize("make", [note_ids, elect, be_alive])


def assert_shared(file: Path) -> None:
    status = file.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (ANN, ANN, 0o600)
    assert status.st_nlink == 1


@made_files
def test_a_file_is_shared_before_anybody_can_find_it(
    anns: MeetingPlace, database: ChannelDatabase, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fchown = os.fchown
    found: list[list[str]] = []

    def look(fd: int, uid: int, gid: int) -> None:
        found.append(sorted(file.name for file in anns.folder.iterdir()))
        fchown(fd, uid, gid)

    monkeypatch.setattr(os, "fchown", look)
    file = make(anns, database)
    assert_shared(file)
    assert [[is_draft(name) for name in names] for names in found] == [[True]]
    assert list(anns.folder.iterdir()) == [file]


@made_files
def test_a_file_whose_maker_is_killed_before_it_has_its_rights_is_made_by_the_next(
    anns: MeetingPlace, database: ChannelDatabase, make: Make, start_process: ProcessFactory, folder: Path
) -> None:
    start_process(die_while_making, database=database, make=make.__name__, named=False).wait(expected=-signal.SIGKILL)
    [left] = anns.folder.iterdir()
    assert left.stat().st_uid == 0
    ann = start(start_process, database, folder, ANN, 0o077)
    assert_housekeeping(ann, database)
    end(ann)
    assert_shared(make(anns, database))
    remove_orphans(anns, lambda client: False)
    assert not left.exists()


@pytest.mark.parametrize("make", [note_ids, elect])
def test_the_draft_of_a_maker_that_is_killed_before_it_removes_it_goes(
    anns: MeetingPlace, database: ChannelDatabase, make: Make, start_process: ProcessFactory
) -> None:
    """Also while somebody holds the lock of that very file, as who is elected does when it sweeps."""
    start_process(die_while_making, database=database, make=make.__name__, named=True).wait(expected=-signal.SIGKILL)
    assert sorted(is_draft(file.name) for file in anns.folder.iterdir()) == [False, True]
    with ElectionLock(anns, "housekeeping") as elected:
        assert elected
        remove_orphans(anns, lambda client: False)
    assert [file for file in anns.folder.iterdir() if is_draft(file.name)] == []
    assert_shared(make(anns, database))


def test_what_is_being_made_is_neither_told_nor_warned_of(
    database: ChannelDatabase, caplog: pytest.LogCaptureFixture, django_connections: None
) -> None:
    share(database, 0o666)
    place = MeetingPlace(str(database.path))
    draft = Path(draft_of(place.path("housekeeping.lock"), "-1"))
    draft.touch(mode=0o600)
    with as_nobody():
        remove_orphans(place, lambda client: False)
    assert draft.exists()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert warnings() == []


@pytest.mark.parametrize("make", [note_ids, elect])
def test_a_draft_that_a_sweep_removes_is_made_anew(
    anns: MeetingPlace, database: ChannelDatabase, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link
    drafts: list[str] = []

    def swept(draft: str, path: str, *, follow_symlinks: bool) -> None:
        drafts.append(draft)
        if len(drafts) < 3:
            remove_orphans(anns, lambda client: False)
        link(draft, path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", swept)
    assert_shared(make(anns, database))
    assert len(set(drafts)) == 3


@pytest.mark.parametrize("make", [note_ids, elect])
def test_a_file_system_without_hard_links_will_do(
    anns: MeetingPlace, database: ChannelDatabase, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(draft: str, path: str, *, follow_symlinks: bool) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), draft, None, path)

    monkeypatch.setattr(os, "link", refuse)
    file = make(anns, database)
    assert_shared(file)
    assert list(anns.folder.iterdir()) == [file]


@pytest.mark.parametrize("make", [note_ids, elect])
def test_who_is_quicker_at_making_a_file_is_joined(
    anns: MeetingPlace,
    database: ChannelDatabase,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    start_process: ProcessFactory,
) -> None:
    link = os.link
    quicker: list[int] = []

    def be_slow(draft: str, path: str, *, follow_symlinks: bool) -> None:
        other = start_process(make_it, database=database, make=make.__name__)
        quicker.append(os.stat(other.hear()).st_ino)
        other.wait()
        link(draft, path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", be_slow)
    file = make(anns, database)
    assert [file.stat().st_ino] == quicker
    assert list(anns.folder.iterdir()) == [file]


@pytest.mark.usefixtures("django_connections")
def test_a_note_of_ids_that_cannot_be_used_is_told_and_used_as_soon_as_it_can_be(
    database: ChannelDatabase, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_told", set())
    share(database, 0o666)
    note = Path(MeetingPlace(str(database.path)).path("history"))
    note.touch(mode=0o600)
    given = GivenIds()
    with as_nobody():
        for _ in range(3):
            assert given.open(str(database.path), make=True)
            given.keep()
            given.note(5)
        assert not given.is_open
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    for text in (record.getMessage(), the_warning().msg):
        for part in (str(note), "'root'", "0600", "history"):
            assert part in text
    note.chmod(0o666)
    with as_nobody():
        given.keep()
        given.note(6)
        assert given.largest() == 6
    given.close()
    assert warnings() == []


# What others put into the folder


def test_links_lead_nobody_elsewhere(folder: Path) -> None:
    """Whoever may write to the folder could otherwise have root open, share or lock any file."""
    secret = folder / "secret"
    secret.touch(mode=0o600)
    rights = Rights(0o666, NOBODY, NOBODY)
    (folder / "soft.lock").symlink_to(secret)
    with pytest.raises(OSError, match="symbolic links"):
        flocks.take(str(folder / "soft.lock"), create=True, rights=rights)
    LockFile(str(folder / "soft.lock"), rights).unlock()
    assert not (folder / "soft.lock").is_symlink()  # a file of its own has taken its place
    (folder / "new.new.lock").symlink_to(secret)
    LockFile(str(folder / "new.lock"), rights).unlock()
    (folder / "hard.lock").hardlink_to(secret)
    LockFile(str(folder / "hard.lock"), rights).unlock()
    private = folder / "private"
    private.mkdir(mode=0o700)
    (folder / "link").symlink_to(private)
    share_folder(folder / "link", rights)
    for path, mode in ((secret, 0o600), (private, 0o700)):
        status = path.stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, mode)
