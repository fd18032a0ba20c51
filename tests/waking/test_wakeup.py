"""Wake-ups are hints: losing, forging or doubling them does no harm, and nobody ever waits for one to be taken."""

import asyncio
import socket
import stat
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from channels_sqlite.processes.meeting_place import MeetingPlace
from channels_sqlite.waking import sender as sending
from channels_sqlite.waking.loop_watch import LoopWatch
from channels_sqlite.waking.sender import Sender
from channels_sqlite.waking.wake_socket import WakeSocket
from channels_sqlite.waking.write_alarm import WriteAlarm
from tests.processes.evidence import client_of, query
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually

INTERVAL_S = 0.02


@pytest.fixture
def place(no_leaks: None) -> Iterator[MeetingPlace]:
    """A meeting place whose path leaves room for the name of a socket."""
    with tempfile.TemporaryDirectory(prefix="cs-") as folder:
        database = Path(folder, "c.sqlite3")
        database.touch()
        yield MeetingPlace(str(database))


# Sockets


def test_a_socket_is_woken_under_its_address(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "reader")) as reader, closing(Sender()) as sender:
        assert reader.address == "reader.sock"
        assert stat.S_ISSOCK(Path(place.path(reader.address)).stat().st_mode)
        assert sender.send(place.path(reader.address))
        assert reader.socket.recv(16) == b"\0"


def test_a_path_too_long_for_a_socket_is_replaced_by_one_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    (folder / "c.sqlite3").touch()
    place = MeetingPlace(str(folder / "c.sqlite3"))
    with closing(WakeSocket(place, "reader")) as reader, closing(Sender()) as sender:
        assert not Path(place.path(reader.address)).is_relative_to(tmp_path)
        assert sender.send(place.path(reader.address))
        assert reader.socket.recv(16) == b"\0"
        path = Path(reader.address)
        assert path.exists()
    assert not path.exists()


def test_a_closed_socket_leaves_no_file_and_its_sender_learns_that_nobody_is_there(place: MeetingPlace) -> None:
    reader = WakeSocket(place, "reader")
    with closing(Sender()) as sender:
        assert sender.send(place.path(reader.address))
        reader.close()
        assert not Path(place.path(reader.address)).exists()
        assert not sender.send(place.path(reader.address))


def test_a_socket_whose_process_died_is_known_to_be_dead(place: MeetingPlace) -> None:
    reader = WakeSocket(place, "reader")
    reader.abandon()  # the file stays, as after a SIGKILL
    with closing(Sender()) as sender:
        assert Path(place.path(reader.address)).exists()
        assert not sender.send(place.path(reader.address))


def test_a_reader_is_woken_at_its_new_socket_of_the_same_name(place: MeetingPlace) -> None:
    with closing(Sender()) as sender:
        with closing(WakeSocket(place, "reader")) as first:
            assert sender.send(place.path(first.address))
            assert first.drain()
        with closing(WakeSocket(place, "reader")) as second:
            assert sender.send(place.path(second.address))
            assert second.drain()


def test_readers_that_went_leave_no_open_sockets_with_the_sender(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "other")) as other, closing(Sender()) as sender:
        assert sender.send(place.path(other.address))
        descriptors = Path("/proc/self/fd")
        before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
        for number in range(3):
            with closing(WakeSocket(place, f"reader{number}")) as reader:
                path = place.path(reader.address)
                assert sender.send(path)
                assert reader.drain()
            assert not sender.send(path)
        if before:
            assert len(list(descriptors.iterdir())) == before


def test_threads_that_wake_while_readers_come_and_go_leak_nothing_and_raise_nothing(place: MeetingPlace) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    stop = threading.Event()
    errors: list[BaseException] = []

    def wake(sender: Sender) -> None:
        try:
            while not stop.is_set():
                for number in range(6):
                    sender.send(place.path(f"reader{number}.sock"))
        except BaseException as error:  # noqa: BLE001  # shown by the test
            errors.append(error)

    def come_and_go(number: int) -> None:
        while not stop.is_set():
            with closing(WakeSocket(place, f"reader{number}")) as reader:
                reader.drain()

    def forget(sender: Sender) -> None:
        while not stop.is_set():
            sender.forget_gone()
            sender.forget()

    with closing(Sender()) as sender:
        threads = [threading.Thread(target=wake, args=(sender,)) for _ in range(4)]
        threads += [threading.Thread(target=come_and_go, args=(number,)) for number in range(3)]
        threads.append(threading.Thread(target=forget, args=(sender,)))
        for thread in threads:
            thread.start()
        stop.wait(2.0)
        stop.set()
        for thread in threads:
            thread.join()
        sender.forget_gone()
        assert errors == []
        if before:
            assert len(list(descriptors.iterdir())) == before


def test_more_readers_than_sockets_to_keep_connected_are_all_woken(
    place: MeetingPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "CONNECTED", 2)
    with ExitStack() as stack:
        readers = [stack.enter_context(closing(WakeSocket(place, f"reader{number}"))) for number in range(5)]
        sender = stack.enter_context(closing(Sender()))
        for _ in range(2):
            assert all(sender.send(place.path(reader.address)) for reader in readers)
            assert all(reader.drain() for reader in readers)


def test_a_full_socket_buffer_neither_blocks_nor_fails_the_sender(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "reader")) as reader, closing(Sender()) as sender:
        # Linux keeps some ten datagrams for a reader that does not read.
        assert all(sender.send(place.path(reader.address)) for _ in range(1000))
        reader.drain()
        with pytest.raises(BlockingIOError):
            reader.socket.recv(16)
        assert sender.send(place.path(reader.address))
        assert reader.socket.recv(16) == b"\0"


def test_draining_takes_everything_and_never_blocks(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "reader")) as reader, closing(Sender()) as sender:
        reader.drain()
        for _ in range(3):
            sender.send(place.path(reader.address))
        reader.drain()
        with pytest.raises(BlockingIOError):
            reader.socket.recv(16)
    reader.drain()  # closed meanwhile, by another thread say


def test_a_removed_socket_file_is_noticed(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "reader")) as reader:
        assert not reader.missing()
        Path(place.path(reader.address)).unlink()
        assert reader.missing()


# Event loops


class Calls:
    """A reader without a database: counts what the watch asks of it."""

    def __init__(self, wake_socket: WakeSocket | None) -> None:
        self.wake_socket = wake_socket
        self.wakes = 0
        self.ticks = 0
        self.finds = True
        self.failures: list[tuple[str, Exception]] = []

    def watch(self, *, interval_s: float = INTERVAL_S) -> LoopWatch:
        self.interval_s = interval_s
        return LoopWatch(asyncio.get_running_loop(), self)

    def look(self) -> bool:
        self.wakes += 1
        return self.finds

    def poll(self) -> bool:
        self.ticks += 1
        return False

    def rest(self, alarm: WriteAlarm) -> bool:
        return False

    def failed(self, what: str, error: Exception) -> None:
        self.failures.append((what, error))


async def test_a_watch_wakes_and_ticks_while_receivers_wait_and_ends_by_itself_without(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "reader")) as reader, closing(Sender()) as sender:
        calls = Calls(reader)
        watch = calls.watch()
        assert not watch.active
        watch.waiting = 1
        watch.start()
        sender.send(place.path(reader.address))
        await aeventually(lambda: calls.wakes == 1 and calls.ticks > 2)
        watch.waiting = 0
        await aeventually(lambda: not watch.active)
        seen = calls.wakes, calls.ticks
        sender.send(place.path(reader.address))
        await asyncio.sleep(5 * INTERVAL_S)  # time for what must not happen
        assert (calls.wakes, calls.ticks) == seen


async def test_wake_ups_that_piled_up_are_taken_together_once_one_of_them_found_nothing(place: MeetingPlace) -> None:
    with closing(WakeSocket(place, "reader")) as reader, closing(Sender()) as sender:
        calls = Calls(reader)
        calls.finds = False
        watch = calls.watch()
        watch.waiting = 1
        for _ in range(5):
            assert sender.send(place.path(reader.address))
        watch.start()
        await aeventually(lambda: calls.ticks > 2)
        watch.stop()
        assert calls.wakes == 2
        assert not reader.take()


async def test_a_watch_without_a_socket_polls(place: MeetingPlace) -> None:
    calls = Calls(None)
    watch = calls.watch()
    watch.waiting = 1
    watch.start()
    await aeventually(lambda: calls.ticks > 2)
    watch.stop()
    assert calls.wakes == 0


async def test_a_watch_moves_on_to_a_new_socket(place: MeetingPlace) -> None:
    with (
        closing(WakeSocket(place, "first")) as first,
        closing(WakeSocket(place, "second")) as second,
        closing(Sender()) as sender,
    ):
        calls = Calls(first)
        watch = calls.watch()
        watch.waiting = 1
        watch.start()
        calls.wake_socket = second
        await aeventually(lambda: calls.ticks > 1)
        sender.send(place.path(second.address))
        await aeventually(lambda: calls.wakes > 0)
        watch.stop()


async def test_a_loop_that_cannot_watch_sockets_polls(place: MeetingPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the proactor loop of Windows."""

    def refuse(*args: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", refuse)
    with closing(WakeSocket(place, "reader")) as reader:
        calls = Calls(reader)
        watch = calls.watch()
        watch.waiting = 1
        watch.start()
        await aeventually(lambda: calls.ticks > 2)
        watch.stop()


# A whole layer


def socket_of(database: ChannelDatabase, channel: str) -> Path:
    [(address,)] = query(database, "SELECT address FROM channels_sqlite_process WHERE client = ?", client_of(channel))
    return Path(f"{database.path}.wake", address)


async def receives(layer: SqliteChannelLayer, channel: str, deadline_s: float = 5.0) -> object:
    return (await asyncio.wait_for(layer.receive(channel), deadline_s))["number"]


async def test_forged_and_doubled_wake_ups_do_no_harm(database: ChannelDatabase, make_layer: LayerFactory) -> None:
    layer, sender = make_layer(), make_layer()
    own = await layer.new_channel()
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as forger:
        forger.setblocking(False)
        for content in (b"", b"\0", b"garbage" * 100):
            waiting = asyncio.ensure_future(receives(layer, own))
            await asyncio.sleep(0)
            for _ in range(5):
                forger.sendto(content, str(socket_of(database, own)))
            await asyncio.sleep(0.02)  # time for what must not happen
            assert not waiting.done()
            await sender.send(own, {"type": "t", "number": 1})
            assert await waiting == 1


@pytest.mark.parametrize("channel", ["work", "own", "group"])
async def test_lost_wake_ups_are_made_up_for_by_polling(
    channel: str, make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, sender = make_layer(polling_interval=0.1), make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    monkeypatch.setattr(socket.socket, "sendto", lambda sender, content, address: len(content))
    for number in range(3):
        waiting = asyncio.ensure_future(receives(layer, "work" if channel == "work" else own))
        await asyncio.sleep(0)
        message = {"type": "t", "number": number}
        if channel == "group":
            await sender.group_send("room", message)
        else:
            await sender.send("work" if channel == "work" else own, message)
        assert await waiting == number


async def test_a_socket_file_that_was_removed_is_made_again(
    database: ChannelDatabase, make_layer: LayerFactory
) -> None:
    """Cleaners of temporary folders remove what looks old."""
    layer, sender = make_layer(polling_interval=1), make_layer()
    own = await layer.new_channel()
    await sender.send(own, {"type": "t", "number": 0})
    assert await receives(layer, own) == 0
    waiting = asyncio.ensure_future(receives(layer, own, 20))
    path = socket_of(database, own)
    for file in (path, Path(f"{database.path}.wake", f"{path.stem}.lock")):
        file.unlink()
    await aeventually(path.exists, what="the socket is back")
    await aeventually(Path(f"{database.path}.wake", f"{path.stem}.lock").exists, what="the lock is back")
    await sender.send(own, {"type": "t", "number": 1})
    assert await waiting == 1
