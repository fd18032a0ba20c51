"""Capacity is exact, however many processes send at the same moment."""

import json
import time
from pathlib import Path

import pytest

from tests.processes.children import hold_beside_each_other, send_until_full, wait_on_channels
from tests.processes.evidence import (
    SETTLE_DEADLINE_S,
    by_sender,
    client_of,
    count_lines,
    query,
    read_journal,
    receive_within,
    suspend_without_the_lock,
)
from tests.processes.herd import start_herd
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

SENDERS = 6
MEETING_S = 0.05
"""Within this all senders have heard where to meet."""


def soon(channel: str) -> str:
    return f"{channel}|{time.monotonic() + MEETING_S}"


@pytest.mark.slow
async def test_six_processes_together_fill_a_normal_channel_exactly(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    capacity = 50
    herd = await start_herd(
        start_process, [(send_until_full, {})] * SENDERS, database=database, config={"capacity": capacity}
    )
    await herd.hear_each()
    layer = make_layer(capacity=capacity)
    for number in range(8):
        channel = f"work.{number}"
        herd.tell(soon(channel))
        accepted = await herd.hear_each()
        assert sum(accepted) == capacity, accepted
        # As many as are read find room again, and not one more.
        for _ in range(7):
            await receive_within(layer, channel)
        herd.tell(soon(channel))
        accepted = await herd.hear_each()
        assert sum(accepted) == 7, accepted
    herd.finish()


@pytest.mark.parametrize("waiting", [0, 1, 3])
async def test_six_processes_together_fill_a_suspended_process_exactly(
    waiting: int, database: ChannelDatabase, tmp_path: Path, start_process: ProcessFactory
) -> None:
    """The limit is the capacity times the channels on which a `receive()` waits, and never less than one capacity."""
    capacity = 20
    journal = tmp_path / "received"
    herd = await start_herd(
        start_process,
        [
            *[(send_until_full, {})] * SENDERS,
            (wait_on_channels, {"channels": 3, "waiting": waiting, "journal": str(journal)}),
        ],
        database=database,
        config={"capacity": capacity},
    )
    reader = SENDERS
    names = (await herd.hear_each())[reader]
    client = client_of(names[0])

    def known_waiting() -> bool:
        rows = query(database, "SELECT channels FROM channels_sqlite_process WHERE client = ?", client)
        return rows == [(waiting,)]

    await aeventually(known_waiting, SETTLE_DEADLINE_S, what="senders know how many wait")
    suspend_without_the_lock(herd.worker(reader), database)
    meeting = time.monotonic() + MEETING_S
    for number in range(SENDERS):
        herd.tell(f"{names[number % 3]}|{meeting}", number)
    accepted = await herd.hear_each(*range(SENDERS))
    assert sum(accepted) == capacity * max(1, waiting), accepted

    herd.worker(reader).resume()
    herd.tell("receive on all", reader)
    # Each channel keeps its own capacity, and drops the newest of what exceeds it.
    kept = [min(accepted[number] + accepted[number + 3], capacity) for number in range(3)]
    await aeventually(lambda: count_lines(journal) >= sum(kept), SETTLE_DEADLINE_S, what="what was kept has come")
    herd.finish()
    arrived = by_sender(read_journal(journal))
    assert all(numbers == list(range(len(numbers))) for numbers in arrived.values())
    for number in range(3):
        received = sum(len(arrived.get(herd.pids[sender], [])) for sender in (number, number + 3))
        assert kept[number] <= received <= accepted[number] + accepted[number + 3]


async def test_processes_do_not_take_a_full_queue_for_the_one_beside_it(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    herd = await start_herd(
        start_process,
        [(send_until_full, {}), (send_until_full, {}), (hold_beside_each_other, {})],
        database=database,
        config={"channel_capacity": {"http.response.*": 10, "specific.*": 3}},
    )
    senders, reader = (0, 1), 2
    full, empty = (await herd.hear_each())[reader]

    async def fill(channel: str) -> int:
        herd.tell(soon(channel), *senders)
        return sum(await herd.hear_each(*senders))

    async def known(*held: int) -> None:
        def published() -> bool:
            rows = query(database, "SELECT held FROM channels_sqlite_process WHERE client = ?", client_of(full))
            return sorted(json.loads(rows[0][0]).values()) == sorted(held)

        await aeventually(published, SETTLE_DEADLINE_S, what=f"senders know that it holds {held}")

    assert await fill(full) == 10
    await known(10)
    assert await fill(empty) == 3
    await known(10, 3)
    assert await fill(full) == await fill(empty) == 0
    herd.tell("receive two", reader)
    await herd.hear(reader)
    assert await fill(full) == 2
    assert await fill(empty) == 0
    herd.finish()
