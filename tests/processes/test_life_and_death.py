"""Dead processes leave nothing behind, suspended ones lose nothing, and the kernel says which is which."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes.children import die_while_keeping_house, hold_write_lock, live_in_a_group
from tests.processes.evidence import (
    BURIAL_DEADLINE_S,
    SETTLE_DEADLINE_S,
    client_of,
    count_rows,
    query,
    receive_within,
    registered_clients,
    stays_true,
    suspend_without_the_lock,
    traces_of,
    until_gone,
)
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.processes import ChildProcess, ProcessFactory
from tests.support.waiting import aeventually, eventually

pytestmark = pytest.mark.processes

LONGEST_CLOSE_S = 15.0
"""Closing does not wait for ever: a server that is told to stop has some ten seconds."""

FORGETFUL = {"message_retention": 1, "expiry": 1}


def kill_without_reaping(child: ChildProcess) -> None:
    """SIGKILL, and leave the zombie in the table of processes: its pid stays taken."""
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, SETTLE_DEADLINE_S, what="dead")


@pytest.fixture
def database(request: pytest.FixtureRequest, no_leaks: None) -> Iterator[ChannelDatabase]:
    """As elsewhere, in a folder whose path is short by default; the parameter is appended to it."""
    with tempfile.TemporaryDirectory(prefix="cs-") as name:
        folder = Path(name) / getattr(request, "param", "short")
        folder.mkdir()
        with channel_database(folder) as fresh:
            yield fresh


@pytest.mark.parametrize("database", ["short", "too_long_for_sockets" * 5], indirect=True, ids=["short", "long"])
async def test_a_killed_reader_leaves_nothing_behind(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    child = start_process(live_in_a_group, database=database, group="room", normal="work")
    theirs = await child.ahear()
    client = client_of(theirs)
    layer = make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    [(address,)] = query(database, "SELECT address FROM channels_sqlite_process WHERE client = ?", client)
    socket = Path(f"{database.path}.wake", address)
    assert socket.is_socket()

    suspend_without_the_lock(child, database)
    for number in range(5):
        await layer.send(theirs, {"type": "t", "text": f"unread {number}"})
    await layer.group_send("room", {"type": "t", "text": "unread by one"})
    kill_without_reaping(child)

    await until_gone(database, client)
    assert await layer.group_channels("room") == [own]
    assert registered_clients(database) == {client_of(own)}
    assert (await receive_within(layer, own))["text"] == "unread by one"


async def test_a_process_that_only_sends_cleans_up_after_the_dead_too(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    child = start_process(live_in_a_group, database=database, group="room", normal="work")
    client = client_of(await child.ahear())
    child.kill()
    layer = make_layer()
    await layer.send("elsewhere", {"type": "t"})
    await until_gone(database, client)


async def test_a_dead_process_cannot_be_made_a_member_again(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    """Whoever still knows a name of the dead may use it; that must not stay for ever either."""
    child = start_process(live_in_a_group, database=database, group="room", normal="work")
    theirs = await child.ahear()
    layer = make_layer(group_expiry=None)
    own = await layer.new_channel()
    child.kill()
    await until_gone(database, client_of(theirs))
    await layer.group_add("room", theirs)
    await layer.group_add("room", own)

    async def members() -> bool:
        return await layer.group_channels("room") == [own]

    await aeventually(members, SETTLE_DEADLINE_S, what="only the living are members")


async def test_a_closed_layer_leaves_nothing_behind_at_once(
    database: ChannelDatabase, make_layer: LayerFactory
) -> None:
    layer = make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    waiting = asyncio.ensure_future(layer.receive("work"))
    await asyncio.sleep(0)
    await layer.close()
    with pytest.raises(RuntimeError, match="closed"):
        await waiting
    assert traces_of(database, client_of(own)) == []


async def test_closing_waits_for_the_lock_and_leaves_nothing_behind(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    holder = start_process(hold_write_lock, database=database)
    await holder.ahear()
    layer = make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    holder.say("take")
    await holder.ahear()
    closing = asyncio.ensure_future(layer.close())
    await asyncio.sleep(0.2)  # so that it has met the lock
    assert not closing.done()
    holder.say("let go")
    await holder.ahear()
    await closing
    assert traces_of(database, client_of(own)) == []


@pytest.mark.slow
async def test_what_a_closed_layer_could_not_take_along_is_cleaned_up_while_its_process_lives(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    holder = start_process(hold_write_lock, database=database)
    await holder.ahear()
    layer = make_layer()
    own = await layer.new_channel()
    await layer.group_add("room", own)
    holder.say("take")
    await holder.ahear()
    started = asyncio.get_running_loop().time()
    await layer.close()
    assert asyncio.get_running_loop().time() - started < LONGEST_CLOSE_S
    holder.say("let go")
    await holder.ahear()
    assert client_of(own) in registered_clients(database)
    other = make_layer()
    await other.new_channel()
    await until_gone(database, client_of(own))
    assert await other.group_channels("room") == []


@pytest.mark.slow
async def test_a_suspended_process_stays_a_member_and_receives_everything_when_it_wakes_up(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    child = start_process(live_in_a_group, database=database, group="room", normal="work")
    theirs = await child.ahear()
    layer = make_layer()
    await layer.new_channel()  # so that this process looks for the dead
    suspend_without_the_lock(child, database)
    for number in range(10):
        await layer.send(theirs, {"type": "t", "text": f"early {number}"})
        await layer.group_send("room", {"type": "t", "text": f"early broadcast {number}"})
    # Several rounds of the search for the dead, which comes once a second.
    client = client_of(theirs)
    assert await stays_true(lambda: client in registered_clients(database), 4.0)
    assert await layer.group_channels("room") == [theirs]
    for number in range(10):
        await layer.send(theirs, {"type": "t", "text": f"late {number}"})
        await layer.group_send("room", {"type": "t", "text": f"late broadcast {number}"})
    child.resume()
    texts = [await child.ahear() for _ in range(40)]
    assert texts == [
        f"{when}{kind} {number}" for when in ("early", "late") for number in range(10) for kind in ("", " broadcast")
    ]
    await layer.send("work", {"type": "t", "text": "and goes on"})
    assert await child.ahear() == "and goes on"


# Killed while keeping house


@pytest.mark.parametrize("moment", ["forget before", "forget after"])
async def test_another_process_buries_the_dead_whose_burial_was_cut_short(
    moment: str, database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    first = start_process(live_in_a_group, database=database, group="room", normal="work")
    second = start_process(die_while_keeping_house, database=database, moment=moment)
    clients = [client_of(await child.ahear()) for child in (first, second)]
    # Their pids stay taken, as they may be by unrelated processes: only the locks show that they are dead.
    kill_without_reaping(first)
    eventually(lambda: psutil.Process(second.pid).status() == psutil.STATUS_ZOMBIE, BURIAL_DEADLINE_S, what="cut short")
    layer = make_layer()
    own = await layer.new_channel()
    for client in clients:
        await until_gone(database, client)
    assert await layer.group_channels("room") == []
    await layer.group_add("room", own)
    await layer.group_send("room", {"type": "life goes on"})
    assert await receive_within(layer, own) == {"type": "life goes on"}


@pytest.mark.parametrize("moment", ["delete_messages before", "delete_messages after", "retire after"])
async def test_another_process_trims_on_where_one_was_killed(
    moment: str, database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    layer = make_layer(**FORGETFUL, auto_trim=False)
    for number in range(30):
        await layer.send("work", {"type": "t", "number": number})
    await layer.close()
    # Rows that are retired must be kept; those that are trimmed must not.
    config = {**FORGETFUL, "message_retention": 60} if moment.startswith("retire") else FORGETFUL
    child = start_process(die_while_keeping_house, database=database, config=config, moment=moment)
    child.wait(SETTLE_DEADLINE_S, expected=-signal.SIGKILL)
    assert count_rows(database) == 30
    (client,) = registered_clients(database)
    heir = make_layer(**FORGETFUL)
    await heir.new_channel()
    await aeventually(lambda: count_rows(database) == 0, BURIAL_DEADLINE_S, what="trimmed")
    await until_gone(database, client)


@pytest.mark.slow
async def test_a_process_killed_in_a_checkpoint_leaves_a_sound_database(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    child = start_process(die_while_keeping_house, database=database, moment="touch_last before")
    await child.ahear()
    layer = make_layer()
    for number in range(100):
        await layer.send("work", {"type": "t", "number": number, "filling": "x" * 1000})
    await layer.close()
    # It checkpoints once the log has rested for some seconds.
    child.wait(SETTLE_DEADLINE_S, expected=-signal.SIGKILL)
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert [(await receive_within(layer, "work"))["number"] for _ in range(100)] == list(range(100))
