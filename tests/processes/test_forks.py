"""Forks after use: a child has a name of its own and works, and its parent goes on as if nothing had been."""

import asyncio
import errno
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from channels_sqlite.concurrency.forks import LOOK_S, LOOKS
from tests.processes.children import hold_write_lock
from tests.processes.evidence import (
    BURIAL_DEADLINE_S,
    SETTLE_DEADLINE_S,
    client_of,
    count_waiting,
    newest_message,
    query,
    receive_within,
    registered_clients,
    stays_true,
    until_gone,
)
from tests.processes.forking import (
    exit_while_listening,
    exit_while_receiving,
    fork_four_times_as_many,
    fork_in_a_fork,
    fork_in_a_running_loop,
    fork_under_load,
    fork_when_told,
    fork_while_a_job_opens_files,
    fork_while_all_is_in_use,
    fork_while_layers_wait,
    fork_while_suspended,
    fork_with_writes_under_way,
    serve_preloaded,
    use_on_both_sides,
)
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

LONGEST_FORK_S = 5.0
"""A fork waits for threads to come out of SQLite, which they do even while the database is locked."""

pytestmark = [pytest.mark.processes, pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")]


@pytest.mark.parametrize("how", ["os.fork", "multiprocessing"])
async def test_a_forked_child_has_a_name_of_its_own_and_the_parent_goes_on(
    how: str, database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    layer = make_layer()
    await layer.new_channel()  # so that this process looks for the dead
    process = start_process(use_on_both_sides, database=database, how=how)
    parents = (await process.ahear())["parent"]
    in_child = await process.ahear()
    assert client_of(in_child["child"]) != client_of(parents)
    assert in_child["received"] == "to all"
    assert await process.ahear() == "not the parent's channels"
    assert await process.ahear() == "ended with 0"
    assert await process.ahear() == ["from before the fork", "from the child", "to all"]
    assert await process.ahear() == "after the child"

    # The child is dead and the parent is not; rounds of the search for the dead come once a second.
    await until_gone(database, client_of(in_child["child"]))
    assert await stays_true(lambda: client_of(parents) in registered_clients(database), 2.5)
    assert await layer.group_channels("room") == [parents]
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    process.say("end")
    process.wait()
    assert client_of(parents) not in registered_clients(database)


@pytest.mark.parametrize(
    "resting", [False, pytest.param(True, marks=pytest.mark.skipif(sys.platform != "linux", reason="no inotify"))]
)
async def test_a_fork_inside_a_running_loop_leaves_its_receivers_waiting(
    resting: bool, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    process = start_process(fork_in_a_running_loop, database=database, resting=resting)
    assert await process.ahear(30) == "from the child"
    assert await process.ahear(30) == "ended with 0"
    assert await process.ahear() == "after"
    process.wait()


async def test_workers_forked_from_a_process_that_used_the_layer_all_serve(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    layer = make_layer()
    own = await layer.new_channel()
    process = start_process(serve_preloaded, database=database, workers=3)
    heard = [await process.ahear() for _ in range(4)]
    parents = next(channel for pid, channel in heard if pid == process.pid)
    workers = {channel: pid for pid, channel in heard if pid != process.pid}
    assert len({client_of(channel) for channel in (*workers, parents, own)}) == 5

    async def answers(count: int) -> list[dict[str, object]]:
        return [await receive_within(layer, own) for _ in range(count)]

    for channel, pid in workers.items():
        await layer.send(channel, {"type": "ask", "reply_to": own})
        assert await answers(1) == [{"type": "answer", "pid": pid, "on": channel}]
    await layer.group_send("workers", {"type": "ask", "reply_to": own})
    assert {answer["pid"] for answer in await answers(3)} == set(workers.values())
    for _ in range(30):
        await layer.send("jobs", {"type": "ask", "reply_to": own})
    assert [answer["on"] for answer in await answers(30)] == ["jobs"] * 30

    # One is killed: what was its goes, what is the parent's and the others' stays.
    killed, *others = workers
    read_up_to = newest_message(database)
    os.kill(workers[killed], signal.SIGKILL)
    await until_gone(database, client_of(killed), read_up_to=read_up_to)
    assert {client_of(channel) for channel in (*others, parents, own)} == registered_clients(database)
    await layer.group_send("workers", {"type": "ask", "reply_to": own})
    assert {answer["pid"] for answer in await answers(2)} == {workers[channel] for channel in others}
    process.finish_input()
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("forkers", [1, 2])
async def test_children_forked_while_threads_use_the_layer_never_hang(
    forkers: int, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    forks = 40
    process = start_process(fork_under_load, database=database, forks=forks, forkers=forkers)
    assert await process.ahear(90) == ["ended with 0"] * forks
    assert await process.ahear() == []
    process.wait()
    assert query(database, "PRAGMA integrity_check") == [("ok",)]


async def test_writes_that_wait_for_the_lock_at_a_fork_are_made_once_by_the_parent(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    writes = 5
    process = start_process(fork_with_writes_under_way, database=database, writes=writes)
    holder = start_process(hold_write_lock, database=database)
    assert [await child.ahear() for child in (process, holder)] == ["ready", "ready"]
    holder.say("take")
    await holder.ahear()
    process.say("go")
    took_s = await process.ahear()
    holder.say("let go")
    assert await process.ahear() == "ended with 0"
    process.wait()
    assert took_s < LONGEST_FORK_S
    assert count_waiting(database) == writes + 1
    layer = make_layer()
    messages = [await receive_within(layer, "work") for _ in range(writes + 1)]
    assert [message["number"] for message in messages if message["type"] == "parent"] == list(range(writes))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_children_forked_while_all_is_in_use_never_hang(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    process = start_process(fork_while_all_is_in_use, database=database, forks=200)
    assert await process.ahear(280) == [], process.stderr
    assert await process.ahear() == []
    process.wait()


async def test_a_fork_lets_a_job_come_to_its_end_that_locks_files(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """Else it loses its patience, and a child inherits what threads are doing inside SQLite."""
    process = start_process(fork_while_a_job_opens_files, database=database)
    assert await process.ahear(30) is True
    assert await process.ahear() == "ended with 0"
    process.wait()


async def test_a_fork_waits_for_no_lock_of_the_database(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """Not even where many layers wait: one of them used to hold it up for half a second."""
    process = start_process(fork_while_layers_wait, database=database, layers=8)
    holder = start_process(hold_write_lock, database=database)
    assert [await child.ahear() for child in (process, holder)] == ["ready", "ready"]
    holder.say("take")
    await holder.ahear()
    process.say("go")
    took_s = await process.ahear()
    holder.say("let go")
    assert await process.ahear() == "ended with 0"
    process.wait()
    assert took_s < 2.0


# From 3.14 on a forked child has no running loop: SystemExit does not come out of the loop that it finds itself in.
EXITS = [exit_while_listening, *([exit_while_receiving] if sys.version_info < (3, 14) else [])]


@pytest.mark.parametrize("function", EXITS)
async def test_a_child_that_exits_by_unwinding_waits_for_no_lock_of_its_parents_threads(
    function: Callable[..., object], database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """It passes by what its parent would have done next: leaving lines of receivers, closing generators."""
    process = start_process(function, database=database)
    assert await process.ahear(60) == "ended with 3", process.stderr
    process.wait()


async def test_a_signal_handler_may_fork_in_the_middle_of_a_fork(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    process = start_process(fork_in_a_fork, database=database)
    assert await process.ahear(30) == ["ended with 0", "ended with 0"]
    process.wait()


async def test_all_go_on_that_come_of_a_fork_in_the_middle_of_a_fork(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    process = start_process(fork_four_times_as_many, database=database)
    assert await process.ahear(60) == ["ended with 0"] * 3, process.stderr
    process.wait()
    assert "forks.py" not in process.stderr


async def test_a_process_that_is_suspended_while_it_waits_to_fork_waits_on_afterwards(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """The child of one that had lost its patience meanwhile could inherit a mutex of SQLite, and hang."""
    process = start_process(fork_while_suspended, database=database)
    assert await process.ahear() == "forking"
    process.suspend()
    await asyncio.sleep(LOOKS * LOOK_S + 0.5)  # longer than the fork waits
    process.resume()
    process.say("come out")
    assert await process.ahear() is False
    assert await process.ahear() == "ended with 0"
    process.wait()


def someone_keeps_house(database: ChannelDatabase) -> bool:
    """Whether a process is elected for housekeeping at this moment."""
    handle = os.open(f"{database.path}.wake/housekeeping.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def killed_at_the_end(pid: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
async def test_a_child_that_never_uses_the_layer_keeps_nothing_of_its_parent_alive(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    """Forked in the middle of housekeeping that waits for a lock, the child inherits every handle there is."""
    process = start_process(fork_when_told, database=database)
    parents = await process.ahear()
    holder = start_process(hold_write_lock, database=database)
    await holder.ahear()
    layer = make_layer(expiry=1)
    await layer.send("nobody", {"type": "expires soon, which is work for housekeeping"})
    await layer.close()
    holder.say("take")
    await holder.ahear()
    await aeventually(lambda: someone_keeps_house(database), SETTLE_DEADLINE_S, what="housekeeping waits for the lock")
    process.say("fork")
    with killed_at_the_end(await process.ahear()):
        process.kill()
        holder.say("let go")
        assert await holder.ahear() == "free"
        own = await layer.new_channel()
        await until_gone(database, client_of(parents), BURIAL_DEADLINE_S)
        await layer.group_add("room", own)
        assert await layer.group_channels("room") == [own]
