"""Normal channels with readers in many processes: each message goes to exactly one, whoever is killed."""

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes.children import hold_write_lock, read_channel, send_numbers
from tests.processes.evidence import (
    SETTLE_DEADLINE_S,
    by_sender,
    count_lines,
    count_waiting,
    is_whole,
    query,
    read_journal,
    receive_within,
    suspend_without_the_lock,
)
from tests.processes.herd import Herd, Work, start_herd
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.processes

ROOMY = {"capacity": 100_000}


async def start_queue(
    start_process: ProcessFactory,
    database: ChannelDatabase,
    journals: list[Path],
    senders: list[str],
    *,
    count: int,
    receivers: int = 1,
    config: dict[str, object] | None = None,
    others: Sequence[Work] = (),
) -> Herd:
    """Workers that read the channel `work` into the journals, then those that send to it, then the others."""
    herd = await start_herd(
        start_process,
        [
            *((read_channel, {"channel": "work", "journal": str(path), "receivers": receivers}) for path in journals),
            *((send_numbers, {"channel": "work", "sender": sender, "count": count}) for sender in senders),
            *others,
        ],
        database=database,
        config={**ROOMY, **(config or {})},
    )
    await herd.hear_each()
    return herd


def messages_in(journals: list[Path]) -> list[dict[str, Any]]:
    return [message for path in journals for message in read_journal(path)]


def counts(messages: list[dict[str, Any]]) -> "Counter[tuple[str, int]]":
    return Counter((message["sender"], message["number"]) for message in messages)


@pytest.mark.slow
@pytest.mark.parametrize("message_retention", [86400, 0])
async def test_eight_readers_share_what_two_writers_send_exactly(
    message_retention: int, database: ChannelDatabase, tmp_path: Path, start_process: ProcessFactory
) -> None:
    count = 400
    journals = [tmp_path / f"reader-{number}" for number in range(8)]
    config: dict[str, object] = {"message_retention": message_retention}
    herd = await start_queue(start_process, database, journals, ["a", "b"], count=count, config=config)
    herd.tell("go", 8, 9)
    assert await herd.hear_each(8, 9, deadline_s=30) == ["done", "done"]
    await aeventually(lambda: sum(map(count_lines, journals)) >= 2 * count, SETTLE_DEADLINE_S, what="all came")
    assert count_waiting(database) == 0
    herd.finish()
    messages = messages_in(journals)
    assert counts(messages) == {(sender, number): 1 for sender in ("a", "b") for number in range(count)}
    assert all(is_whole(message) for message in messages)
    for path in journals:
        for numbers in by_sender(read_journal(path)).values():
            assert numbers == sorted(numbers)
    assert sum(count_lines(path) > 0 for path in journals) > 1


async def test_a_killed_reader_takes_no_more_than_one_message_for_each_waiting_receive(
    database: ChannelDatabase, tmp_path: Path, start_process: ProcessFactory
) -> None:
    count, receivers = 2000, 2
    journals = [tmp_path / f"reader-{number}" for number in range(3)]
    herd = await start_queue(start_process, database, journals, ["a"], count=count, receivers=receivers)
    herd.tell("go", 3)
    await aeventually(lambda: count_lines(journals[0]) > 50, SETTLE_DEADLINE_S, what="the first reader is at work")
    herd.signal(0, signal.SIGKILL)
    assert await herd.hear(3, 30) == "done"
    await aeventually(
        lambda: sum(map(count_lines, journals)) >= count - receivers and count_waiting(database) == 0,
        SETTLE_DEADLINE_S,
        what="the others have the rest",
    )
    herd.finish()
    messages = messages_in(journals)
    assert set(counts(messages).values()) == {1}
    assert count - receivers <= len(messages) <= count
    # It was in the middle of its work: more came after it.
    assert count_lines(journals[0]) < count - receivers


async def test_a_message_for_a_suspended_reader_goes_to_another(
    database: ChannelDatabase, make_layer: LayerFactory, tmp_path: Path, start_process: ProcessFactory
) -> None:
    """A suspended reader has claimed nothing, so nothing waits for it."""
    journal = tmp_path / "suspended"
    herd = await start_queue(start_process, database, [journal], [], count=0)
    layer = make_layer()
    # The reader waits now: it has this one.
    await layer.send("work", {"type": "first"})
    await aeventually(lambda: count_lines(journal) == 1, SETTLE_DEADLINE_S, what="the reader works")
    suspend_without_the_lock(herd.worker(0), database)
    for number in range(10):
        await layer.send("work", {"type": "t", "number": number})
    assert [(await receive_within(layer, "work"))["number"] for _ in range(10)] == list(range(10))
    await layer.send("work", {"type": "last"})
    herd.worker(0).resume()
    await aeventually(lambda: count_lines(journal) == 2, SETTLE_DEADLINE_S, what="the reader works again")
    herd.finish()
    assert [message["type"] for message in read_journal(journal)] == ["first", "last"]


async def test_a_killed_writer_leaves_whole_messages_and_no_gap(
    database: ChannelDatabase, tmp_path: Path, start_process: ProcessFactory
) -> None:
    count = 1500
    journal = tmp_path / "reader"
    # The one to be killed would not come to an end, however late the signal is.
    killed_writer = (send_numbers, {"channel": "work", "sender": "killed", "count": ROOMY["capacity"]})
    herd = await start_queue(start_process, database, [journal], ["alive"], count=count, others=[killed_writer])
    herd.tell("go", 1, 2)
    await aeventually(lambda: count_lines(journal) > 100, SETTLE_DEADLINE_S, what="both writers are at work")
    herd.signal(2, signal.SIGKILL)
    assert await herd.hear(1, 30) == "done"

    def all_read() -> bool:
        sent = query(database, "SELECT count(*) FROM channels_sqlite_message WHERE kind = 0")[0][0]
        return count_lines(journal) == int(sent)

    await aeventually(all_read, SETTLE_DEADLINE_S, what="all came")
    herd.finish()
    messages = read_journal(journal)
    assert all(is_whole(message) for message in messages)
    numbers = by_sender(messages)
    assert numbers["alive"] == list(range(count))
    killed = numbers.get("killed", [])
    assert killed == list(range(len(killed)))
    assert len(killed) < ROOMY["capacity"]


async def test_a_writer_killed_inside_a_transaction_holds_nobody_up(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    child = start_process(hold_write_lock, database=database)
    await child.ahear()
    layer = make_layer()
    await layer.send("work", {"type": "before"})
    child.say("take")
    assert await child.ahear() == "held"
    sending = asyncio.ensure_future(layer.send("work", {"type": "meanwhile"}))
    await asyncio.sleep(0.05)  # so that it has met the lock; without that the test is easier to pass, no more
    assert not sending.done()
    child.kill()
    await asyncio.wait_for(sending, 5)
    assert [(await receive_within(layer, "work"))["type"] for _ in range(2)] == ["before", "meanwhile"]
