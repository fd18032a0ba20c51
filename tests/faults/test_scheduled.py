"""What is to be sent later is sent exactly once, in order, whoever is killed, suspended, late or full."""

import asyncio
import logging
import signal
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

from channels_sqlite.concurrency import background
from channels_sqlite.engine import due_messages, engine, trimming
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.faults.looking import look_all_the_time, look_until_killed
from tests.faults.support import Clock, count_messages, next_is_marker, query, receive, receive_numbers, write_lock
from tests.faults.test_full import LARGE, fill
from tests.processes.evidence import suspend_without_the_lock
from tests.support import inside
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.processes import ProcessFactory
from tests.support.waiting import aeventually

pytestmark = pytest.mark.faults

HOUR_S = 3600.0
FAST = {"polling_interval": 0.01}
DEADLINE_S = 20.0
ATTEMPTS = 5


def scheduled(database: ChannelDatabase) -> int:
    """How many messages are to be sent later."""
    count: int = query(database.path, "SELECT count(*) FROM channels_sqlite_scheduled")[0][0]
    return count


async def schedule_numbers(layer: SqliteChannelLayer, channel: str, count: int, at: datetime) -> list[str]:
    return [await layer.send_later(channel, {"n": number}, at=at) for number in range(count)]


def in_s(seconds: float) -> datetime:
    return datetime.fromtimestamp(time.time() + seconds, tz=timezone.utc)


# Killed, suspended, two at once


@pytest.mark.parametrize("step", ["before", "inside", "after"])
async def test_the_elected_process_is_killed_at_a_step_of_sending(
    step: str, database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    elected = start_process(look_until_killed, database=database, config=FAST, step=step)
    await elected.ahear()
    sender = make_layer()
    await sender.group_count("nobody")
    inside.look_no_more(engine_of(sender))
    await schedule_numbers(sender, "jobs", 150, in_s(0.3))  # in two transactions
    await asyncio.to_thread(elected.wait, expected=-signal.SIGKILL)
    assert count_messages(database.path) == (100 if step == "after" else 0)
    layer = make_layer(**FAST)
    assert await receive_numbers(layer, "jobs", 150) == list(range(150))
    assert scheduled(database) == 0
    assert count_messages(database.path) == 150
    assert await next_is_marker(layer, "jobs")


async def test_another_stands_in_for_an_elected_process_that_is_suspended(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    elected = start_process(look_all_the_time, database=database, config=FAST)
    await elected.ahear()
    suspend_without_the_lock(elected, database)
    layer = make_layer(**FAST)
    await layer.new_channel()
    await layer.send_later("jobs", {"n": 1}, delay=0.1)
    assert await receive(layer, "jobs") == {"n": 1}
    elected.resume()
    assert await next_is_marker(layer, "jobs")


async def test_several_that_look_at_once_send_each_message_once_and_in_order(
    database: ChannelDatabase, make_layer: LayerFactory, start_process: ProcessFactory
) -> None:
    children = [start_process(look_all_the_time, database=database, config=FAST) for _ in range(3)]
    for child in children:
        await child.ahear()
    layer = make_layer(capacity=1000)
    await schedule_numbers(layer, "jobs", 500, in_s(0.6))
    inside.look_no_more(engine_of(layer))
    for child in children:
        child.say("go")
    assert await receive_numbers(layer, "jobs", 500) == list(range(500))
    assert sum([await child.ahear() for child in children]) == 500
    assert count_messages(database.path) == 500
    for child in children:
        child.say("end")


# Timer and wake-up


@pytest.mark.parametrize("receives", [True, False], ids=["the sender receives", "another receives"])
async def test_a_message_is_at_most_a_second_late(receives: bool, make_layer: LayerFactory) -> None:
    """Tried several times: the machine may be busy with something else."""
    sender, other = make_layer(), make_layer()
    await (sender if receives else other).new_channel()
    late_s: list[float] = []
    while not late_s or late_s[-1] > 1:
        assert len(late_s) < ATTEMPTS, late_s
        moment = in_s(0.3)
        await sender.send_later("jobs", {"n": len(late_s)}, at=moment)
        await receive(sender if receives else other, "jobs")
        late_s.append(time.time() - moment.timestamp())
        assert late_s[-1] >= 0


async def test_who_schedules_something_earlier_wakes_the_one_that_looks(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing ticks and nothing is polled: there is the timer, and the wake-up."""
    for module, name in ((engine, "TICK_S"), (background, "MOST_IDLE_S"), (due_messages, "STAND_IN_S")):
        monkeypatch.setattr(module, name, 600.0)
    elected, other = make_layer(polling_interval=600.0), make_layer()
    await elected.new_channel()
    await elected.send_later("jobs", {"n": 2}, delay=HOUR_S)
    await aeventually(lambda: (inside.alarm_in_s(engine_of(elected)) or 0) > HOUR_S - 60, what="its timer is set")
    waiting = asyncio.ensure_future(elected.receive("jobs"))
    await aeventually(lambda: "jobs" in engine_of(elected).inbox.claims.listening())
    await other.group_count("nobody")
    inside.look_no_more(engine_of(other))
    await other.send_later("jobs", {"n": 1}, delay=0.1)
    assert await asyncio.wait_for(waiting, DEADLINE_S) == {"n": 1}
    assert elected.counters.sent == 1
    await aeventually(lambda: (inside.alarm_in_s(engine_of(elected)) or 0) > HOUR_S - 60, what="and set again")


async def test_the_eldest_reader_is_elected_and_the_others_set_their_timers_later(make_layer: LayerFactory) -> None:
    layers = [make_layer() for _ in range(2)]
    for layer in layers:
        await layer.new_channel()
    moment = in_s(HOUR_S)
    await layers[1].send_later("jobs", {"n": 1}, at=moment)

    def alarms() -> list[float]:
        left_s = moment.timestamp() - time.time()
        found = [inside.alarm_in_s(engine_of(layer)) for layer in layers]
        return [0.0 if alarm_s is None else alarm_s - left_s for alarm_s in found]

    await aeventually(lambda: -0.1 < alarms()[0] < 0.1 and 0.3 < alarms()[1] < 0.5, what="both timers are set")


# Clocks, and nobody there


async def test_what_was_due_while_nobody_was_there_is_sent_to_the_next(
    database: ChannelDatabase, make_layer: LayerFactory, clock: Clock
) -> None:
    layer = make_layer(expiry=10)
    await schedule_numbers(layer, "jobs", 3, in_s(HOUR_S))
    await layer.close()
    clock.shift_s += 3 * HOUR_S  # longer than they would have been deliverable
    layer = make_layer(expiry=10, **FAST)
    assert await receive_numbers(layer, "jobs", 3) == [0, 1, 2]
    assert scheduled(database) == 0


async def test_what_is_over_already_is_tried_again_at_least_once(
    make_layer: LayerFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("channels_sqlite.delivery.schedule.COUNTS_AFTER_S", 60.0)  # however slow the machine is
    layer = make_layer(capacity=1)
    await layer.send("full", {"n": 1}, expiry=9 * HOUR_S)
    await layer.send_later("full", {"n": 2}, delay=60, expiry=1)
    await layer.close()
    clock.shift_s += HOUR_S
    layer = make_layer(capacity=1, **FAST)
    await layer.new_channel()
    await layer.send_later("marker", {"n": "2 was tried"}, delay=0)
    await receive(layer, "marker")
    assert await receive_numbers(layer, "full", 2) == [1, 2]


async def test_what_stays_without_room_is_dropped_and_counted(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer(capacity=1, **FAST)
    await layer.new_channel()
    await layer.send("full", {"n": 1}, expiry=9 * HOUR_S)
    for number in (2, 3):
        await layer.send_later("full", {"n": number}, delay=0, expiry=10)
    await layer.send_later("marker", {"n": "they were tried"}, delay=0)
    await receive(layer, "marker")
    assert layer.counters.refused == 0
    clock.shift_s += 11
    await aeventually(lambda: scheduled(database) == 0, DEADLINE_S)
    await aeventually(lambda: layer.counters.dropped_full == 2, DEADLINE_S)
    assert await receive_numbers(layer, "full", 1) == [1]
    assert await next_is_marker(layer, "full")


async def test_what_is_scheduled_is_encrypted(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    layer = make_layer(symmetric_encryption_keys=["a key"], **FAST)
    await layer.new_channel()
    ticket = await layer.send_later("jobs", {"text": "a secret"}, delay=HOUR_S)
    [(payload,)] = query(database.path, "SELECT payload FROM channels_sqlite_scheduled")
    assert b"secret" not in payload
    assert await layer.cancel(ticket) is True
    await layer.send_later("jobs", {"text": "a secret"}, delay=0)
    assert await receive(layer, "jobs") == {"text": "a secret"}


async def test_a_delay_counts_from_the_call_whoever_holds_the_lock(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer = make_layer()
    await layer.group_count("nobody")
    before = clock.time()
    with write_lock(database.path):
        sending = asyncio.ensure_future(layer.send_later("jobs", {"n": 1}, delay=HOUR_S))
        await aeventually(lambda: layer.counters.retried > 0)
        clock.shift_s += 100
    await sending
    [(due_at,)] = query(database.path, "SELECT due_at FROM channels_sqlite_scheduled")
    assert before + HOUR_S <= due_at < before + HOUR_S + 100


async def test_a_clock_that_is_set_back_delays_and_never_repeats(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(**FAST)
    await layer.new_channel()
    await layer.send_later("jobs", {"n": 3}, delay=60)
    clock.shift_s -= HOUR_S
    await layer.send_later("jobs", {"n": 1}, delay=0)
    assert await receive(layer, "jobs") == {"n": 1}
    assert await next_is_marker(layer, "jobs")
    clock.shift_s += HOUR_S
    await layer.send_later("jobs", {"n": 2}, delay=0)
    assert await receive(layer, "jobs") == {"n": 2}
    clock.shift_s += 61
    assert await receive(layer, "jobs") == {"n": 3}
    clock.shift_s -= HOUR_S
    assert await next_is_marker(layer, "jobs")


async def test_a_clock_that_is_set_forward_is_noticed(make_layer: LayerFactory, clock: Clock) -> None:
    layer = make_layer(**FAST)
    await layer.new_channel()
    await layer.send_later("jobs", {"n": 1}, delay=HOUR_S)
    await aeventually(lambda: inside.alarm_in_s(engine_of(layer)) is not None)
    clock.shift_s += HOUR_S
    assert await receive(layer, "jobs") == {"n": 1}


# Cancelling at the last moment


async def test_a_message_is_either_cancelled_or_sent(make_layer: LayerFactory) -> None:
    layer, other = make_layer(capacity=1000, **FAST), make_layer(**FAST)
    await layer.new_channel()
    tickets = [await layer.send_later("jobs", {"n": n}, delay=0.3 + n / 1000) for n in range(200)]
    cancelled = set()
    for number in (*range(150, 200), *range(150)):  # some in time, and then each at about its time
        if await other.cancel(tickets[number]):
            cancelled.add(number)
    sent = [number for number in range(200) if number not in cancelled]
    assert cancelled >= set(range(150, 200))
    assert await receive_numbers(layer, "jobs", len(sent)) == sent
    assert await next_is_marker(layer, "jobs")


# Flush, full disk, and rows that are gone


async def test_a_flush_by_another_leaves_the_timer_with_nothing(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock
) -> None:
    layer, other = make_layer(**FAST), make_layer(**FAST)
    await layer.new_channel()
    await layer.send_later("jobs", {"n": 1}, delay=HOUR_S)
    await aeventually(lambda: inside.alarm_in_s(engine_of(layer)) is not None)
    await other.flush()
    assert scheduled(database) == 0
    clock.shift_s += HOUR_S + 1
    await layer.send_later("jobs", {"n": 2}, delay=0)
    assert await receive(layer, "jobs") == {"n": 2}


async def test_a_ticket_of_before_all_tables_were_emptied_cancels_nothing(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer()
    ticket = await layer.send_later("jobs", {"n": 1}, delay=HOUR_S)
    query(database.path, "DELETE FROM channels_sqlite_scheduled")
    query(database.path, "DELETE FROM sqlite_sequence WHERE name = 'channels_sqlite_scheduled'")  # as manage.py flush
    await layer.send_later("jobs", {"n": 2}, delay=HOUR_S)
    assert await layer.cancel(ticket) is False
    assert scheduled(database) == 1


@pytest.fixture
def limited(no_leaks: None, tmp_path: Path) -> Iterator[ChannelDatabase]:
    """A database of at most two megabytes."""
    options = {"timeout": 2, "init_command": "PRAGMA max_page_count=500"}
    with channel_database(tmp_path, alias="limited", options=options) as database:
        yield database


async def test_what_finds_no_room_on_the_disk_is_sent_when_there_is_some(
    limited: ChannelDatabase, make_layer: LayerFactory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make_layer("limited", capacity=1000, message_retention=100, **FAST)
    members = ["a", "b", "c"]
    await layer.new_channel()
    for member in members:
        await layer.group_add("room", member)
    await layer.group_send_later("room", {"n": 1, "data": LARGE}, delay=30)
    await fill(layer, "others")
    with caplog.at_level(logging.ERROR, "channels_sqlite"):
        clock.shift_s += 31
        await aeventually(lambda: "sending what is due failed" in caplog.text, DEADLINE_S)
    assert "full" in caplog.text
    assert query(limited.path, "SELECT count(*) FROM channels_sqlite_message WHERE queue IN ('a', 'b', 'c')") == [(0,)]
    assert scheduled(limited) == 1
    clock.shift_s += 100  # what filled it is trimmed
    for member in members:
        assert await receive_numbers(layer, member, 1) == [1]
    assert scheduled(limited) == 0


# Retention


async def test_a_message_is_kept_for_as_long_as_it_is_deliverable(
    make_layer: LayerFactory, database: ChannelDatabase, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimming, "FROM_START_EVERY_S", 0.0)
    layer = make_layer(expiry=10, message_retention=10)
    own = await layer.new_channel()
    await layer.send("kept", {"n": 1}, expiry=HOUR_S)
    await layer.group_add("room", own)
    await layer.group_send("room", {"n": 2}, expiry=HOUR_S)
    await layer.send("read", {"n": 3}, expiry=HOUR_S)
    await receive(layer, "read")
    await layer.send("goes", {"n": 4})
    clock.shift_s += 20

    process = engine_of(layer)
    housekeeping = inside.housekeeping(process)

    async def left() -> list[str]:
        await inside.background(process).acall(lambda: housekeeping.trimming.trim(time.monotonic() + 10))
        return [name for (name,) in query(database.path, "SELECT queue FROM channels_sqlite_message ORDER BY id")]

    assert await left() == ["kept", "room"]
    assert (await inside.background(process).acall(housekeeping.due_in_s) or 0) > 0
    assert await receive_numbers(layer, "kept", 1) == [1]
    assert await receive_numbers(layer, own, 1) == [2]
    assert await left() == ["room"]
    clock.shift_s += HOUR_S
    assert await left() == []
