"""Histories between processes: the seam with many senders, the death of everybody, and power cuts.

A power cut is played by killing a process and cutting off the end of the WAL: that is what it leaves.
"""

import os
import sqlite3
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from tests.history import children
from tests.history.conftest import KeepingFactory
from tests.history.test_reading import texts
from tests.processes.evidence import read_journal
from tests.support.databases import ChannelDatabase
from tests.support.processes import ChildProcess, ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

HISTORY = {"room": {"size": 100_000, "ttl": 3600}}
CONFIG = {"history": HISTORY, "capacity": 100_000}
DEADLINE_S = 60.0
SENDERS, MESSAGES = 8, 100
READERS, VISITORS = 2, 3


async def test_everybody_sees_each_message_once_and_in_order(
    make_keeping: KeepingFactory, database: ChannelDatabase, start_process: ProcessFactory, tmp_path: Path
) -> None:
    layer = make_keeping(**CONFIG)
    start = await layer.group_history("room")
    sent = [tmp_path / f"sent-{sender}" for sender in range(SENDERS)]
    seen = [[tmp_path / f"seen-{reader}-{number}" for number in range(VISITORS)] for reader in range(READERS)]
    senders = [
        start_process(
            children.send_numbers, database=database, config=CONFIG, sender=sender, count=MESSAGES, journal=str(path)
        )
        for sender, path in enumerate(sent)
    ]
    readers = [
        start_process(
            children.come_and_go,
            database=database,
            config=CONFIG,
            position=start.position,
            journals=[str(path) for path in paths],
        )
        for paths in seen
    ]
    for child in (*senders, *readers):
        assert await child.ahear(DEADLINE_S) == "ready"
    for sender in senders:
        sender.say("go")
    for sender in senders:
        assert await sender.ahear(DEADLINE_S) == "done"
    for reader in readers:
        reader.say("stop")
    for reader in readers:
        assert await reader.ahear(DEADLINE_S) == "done"
    for child in (*senders, *readers):
        child.wait()
    everything = sorted([sender, number] for sender in range(SENDERS) for number in range(MESSAGES))
    assert sorted(chain.from_iterable(map(read_journal, sent))) == everything
    for path in chain.from_iterable(seen):
        lines = read_journal(path)
        assert "not recovered" not in lines
        assert sorted([sender, number] for sender, number, _ in lines) == everything, path.name
        ids = [int(position.partition("-")[2]) for _, _, position in lines]
        assert ids == sorted(set(ids)), f"{path.name}: in the order of the commits"


async def test_what_was_sent_survives_the_death_of_everybody(
    make_keeping: KeepingFactory, database: ChannelDatabase, start_process: ProcessFactory, tmp_path: Path
) -> None:
    layer = make_keeping(**CONFIG)
    start = await layer.group_history("room")
    await layer.close()
    sent, seen = [tmp_path / f"sent-{sender}" for sender in range(3)], tmp_path / "seen"
    reader = start_process(children.read_until_killed, database=database, config=CONFIG, journal=str(seen))
    assert await reader.ahear(DEADLINE_S) == "ready"
    senders = [
        start_process(
            children.send_numbers, database=database, config=CONFIG, sender=sender, count=10**6, journal=str(path)
        )
        for sender, path in enumerate(sent)
    ]
    for sender in senders:
        assert await sender.ahear(DEADLINE_S) == "ready"
        sender.say("go")
    await aeventually(lambda: len(read_journal(seen)) >= 50, DEADLINE_S)
    for child in (*senders, reader):
        child.kill()
    history = await layer.group_history("room", since=start.position)
    kept = [[entry.message["sender"], entry.message["n"]] for entry in history.entries]
    assert history.recovered
    for place, path in enumerate(sent):
        returned = [number for _, number in read_journal(path)]
        # The last one may have been sent and not written down.
        assert [number for one, number in kept if one == place][: len(returned)] == returned
    *_, (_, _, position) = read_journal(seen)
    after = await layer.group_history("room", since=position)
    assert after.recovered
    assert [entry.position for entry in after.entries] == [
        entry.position for entry in history.entries if int(entry.position[17:]) > int(position[17:])
    ]


# Power cuts


def checkpoint(path: Path) -> None:
    """All that was written is in the file, as it would be some time later."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def cut(path: Path, share: float) -> None:
    """Cut off the WAL behind so much of it; 1.0: behind all but the last byte."""
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size
    assert size > 4096, "nothing to lose"
    os.truncate(wal, min(int(size * share), size - 1))
    path.with_name(path.name + "-shm").unlink()  # shared memory does not outlast a power cut


def count_kept(path: Path) -> int:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        count: int = connection.execute("SELECT count(*) FROM channels_sqlite_message WHERE kind = 6").fetchone()[0]
        return count


async def tell_to_send(sender: ChildProcess, count: int) -> None:
    sender.say(count)
    await sender.ahear(DEADLINE_S)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0], ids=["all of it", "half of it", "the last commit"])
async def test_a_power_cut_that_takes_the_last_commits_is_noticed(
    make_keeping: KeepingFactory, database: ChannelDatabase, start_process: ProcessFactory, share: float
) -> None:
    layer = make_keeping(**CONFIG)
    sender = start_process(children.send_and_wait, database=database, config=CONFIG)
    assert await sender.ahear(DEADLINE_S) == "ready"
    await tell_to_send(sender, 5)
    checkpoint(database.path)
    positions = [(await layer.group_history("room")).position]
    await layer.close()
    await tell_to_send(sender, 40)
    positions.append((await layer.group_history("room")).position)
    await layer.close()
    sender.kill()
    cut(database.path, share)
    left = count_kept(database.path)
    assert 5 <= left < 45
    for round_number in (1, 2):  # also once the ids were given again
        for position in positions:
            history = await layer.group_history("room", since=position)
            assert not history.recovered, f"round {round_number}"
            assert texts(history)[:left] == list(range(left))
        for number in range(50):
            await layer.group_send("room", {"type": "chat", "n": 1000 + number})
    again = await layer.group_history("room")
    await layer.group_send("room", {"type": "chat", "n": 2000})
    fresh = await layer.group_history("room", since=again.position)
    assert (texts(fresh), fresh.recovered) == ([2000], True)


async def test_what_a_reader_was_told_of_is_noted_though_its_sender_was_killed_before_it_could(
    make_keeping: KeepingFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    layer = make_keeping(**CONFIG)
    reader = start_process(children.listen_and_tell, database=database, config=CONFIG)
    assert await reader.ahear(DEADLINE_S) == "ready"
    sender = start_process(children.send_and_wait, database=database, config=CONFIG, noting=False)
    assert await sender.ahear(DEADLINE_S) == "ready"
    checkpoint(database.path)
    await tell_to_send(sender, 3)
    told = [await reader.ahear(DEADLINE_S) for _ in range(3)]
    for child in (sender, reader):
        child.kill()
    cut(database.path, 0.0)
    assert count_kept(database.path) == 0
    for number in range(10):
        await layer.group_send("room", {"type": "chat", "n": number})
    for position in told:
        assert not (await layer.group_history("room", since=position)).recovered


async def test_a_loss_is_noticed_though_somebody_without_histories_writes_first(
    make_keeping: KeepingFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """The ids that were lost are given again before anybody looks."""
    layer, other = make_keeping(**CONFIG), make_keeping(history=None, prefix="other")
    sender = start_process(children.send_and_wait, database=database, config=CONFIG)
    assert await sender.ahear(DEADLINE_S) == "ready"
    await tell_to_send(sender, 5)
    checkpoint(database.path)
    await tell_to_send(sender, 5)
    position = (await layer.group_history("room")).position
    await layer.close()
    sender.kill()
    cut(database.path, 0.0)
    for number in range(20):
        await other.send("jobs", {"n": number})
    history = await layer.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([0, 1, 2, 3, 4], False)


async def test_a_power_cut_that_takes_nothing_of_this_boot_leaves_positions_good(
    make_keeping: KeepingFactory, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    layer = make_keeping(**CONFIG)
    sender = start_process(children.send_and_wait, database=database, config=CONFIG)
    assert await sender.ahear(DEADLINE_S) == "ready"
    await tell_to_send(sender, 5)
    position = (await layer.group_history("room")).position
    await layer.close()
    await tell_to_send(sender, 5)
    checkpoint(database.path)
    sender.kill()
    history = await layer.group_history("room", since=position)
    assert (texts(history), history.recovered) == ([5, 6, 7, 8, 9], True)
