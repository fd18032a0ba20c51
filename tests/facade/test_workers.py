"""Workers made of `listen()`, in processes of their own: signals, sharing, waking, death, and a database that fails."""

from __future__ import annotations

import logging
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.exceptions import ChannelDatabaseError
from channels_sqlite.sync import SyncChannelLayer
from tests.facade.setup import DEADLINE_S, NEVER_S, facade_over, in_thread, is_empty, until_heard_of
from tests.facade.workers import run_worker, run_worker_often, share_work, time_waking
from tests.faults.support import replace, write_lock
from tests.processes.evidence import read_journal, wake_folder
from tests.processes.herd import start_herd
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.processes import ChildProcess, ProcessFactory
from tests.support.waiting import aeventually, eventually

SLEEP_S = 3.0
SLEEP_CPU_S = 0.05
WAKE_S = 0.5
SIGNALLED_S = 5.0


@pytest.fixture
def layer(database: ChannelDatabase) -> Iterator[SyncChannelLayer]:
    """The facade that gives the workers something to do."""
    with facade_over(database) as layer:
        yield layer


def job(number: int, *remarks: str) -> dict[str, object]:
    return {"type": "job", "number": number, **dict.fromkeys(remarks, True)}


def signal_to(worker: ChildProcess, number: signal.Signals) -> None:
    worker.signal(number)


# Signals


@pytest.mark.processes
def test_a_signal_ends_a_worker_after_the_message_in_hand_and_the_next_one_gets_what_waits(
    database: ChannelDatabase, layer: SyncChannelLayer, start_process: ProcessFactory
) -> None:
    layer.send("jobs", job(0, "until signalled", "wait"))
    for number, which in enumerate((signal.SIGTERM, signal.SIGINT)):
        worker = start_process(run_worker, database=database, channels=["jobs"])
        assert worker.hear(DEADLINE_S) == ["began", number]
        layer.send("jobs", job(number + 1, "until signalled", "wait"))
        signal_to(worker, which)
        assert worker.hear(DEADLINE_S) == "signalled"
        worker.say("go on")
        assert worker.hear(DEADLINE_S) == ["done", number]
        assert worker.hear(DEADLINE_S) == ["ended", True]
        worker.wait(expected=0)
        assert "KeyboardInterrupt" not in worker.stderr
    assert layer.receive("jobs", timeout=0)["number"] == 2


@pytest.mark.processes
def test_what_interrupts_a_job_has_its_usual_effect_and_the_handlers_are_put_back(
    database: ChannelDatabase, layer: SyncChannelLayer, start_process: ProcessFactory
) -> None:
    worker = start_process(run_worker_often, database=database, channels=["jobs"])
    # A job that fails, as jobs do.
    layer.send("jobs", job(1, "fail"))
    worker.say("begin")
    assert [worker.hear(DEADLINE_S), worker.hear()] == [["began", 1], ["ValueError", True]]
    # SIGINT twice raises KeyboardInterrupt, as it does anywhere.
    layer.send("jobs", job(2, "until signalled", "wait"))
    worker.say("begin")
    assert worker.hear(DEADLINE_S) == ["began", 2]
    signal_to(worker, signal.SIGINT)
    assert worker.hear(DEADLINE_S) == "signalled"
    signal_to(worker, signal.SIGINT)
    assert worker.hear(DEADLINE_S) == ["KeyboardInterrupt", True]
    # It can be used again, and a child that a job forks is not its parent's loop.
    layer.send("jobs", job(3, "fork"))
    worker.say("begin")
    assert worker.hear(DEADLINE_S) == ["began", 3]
    assert worker.hear(2 * DEADLINE_S) == ["child ended with", -signal.SIGTERM]
    assert worker.hear(DEADLINE_S) == ["done", 3]
    signal_to(worker, signal.SIGINT)
    assert worker.hear(DEADLINE_S) == ["ended", True]
    # SIGTERM twice kills the process, as it does any other.
    layer.send("jobs", job(4, "until signalled", "wait"))
    worker.say("begin")
    assert worker.hear(DEADLINE_S) == ["began", 4]
    worker.terminate()
    assert worker.hear(DEADLINE_S) == "signalled"
    worker.terminate()
    worker.wait(expected=-signal.SIGTERM)


@pytest.mark.processes
def test_an_ignored_sigint_stays_ignored(
    database: ChannelDatabase, layer: SyncChannelLayer, start_process: ProcessFactory
) -> None:
    worker = start_process(run_worker_often, database=database, channels=["jobs"], ignore_sigint=True)
    worker.say("begin")
    for number in (1, 2):
        layer.send("jobs", job(number))
        assert [worker.hear(DEADLINE_S), worker.hear()] == [["began", number], ["done", number]]
        signal_to(worker, signal.SIGINT)
    worker.terminate()
    assert worker.hear(DEADLINE_S) == ["ended", True]
    worker.finish_input()
    worker.wait()


# Several channels


def test_channels_with_a_backlog_are_served_in_turn(layer: SyncChannelLayer) -> None:
    own = layer.new_channel()
    channels = ["first", "second", own, "third"]
    for channel in channels:
        for number in range(20):
            layer.send(channel, {"type": "job", "channel": channel, "number": number})
    served = []
    for message in layer.listen(*channels):
        served.append((message["channel"], message["number"]))
        if len(served) == 80:
            break
    for number in range(20):
        turn = served[4 * number : 4 * number + 4]
        assert Counter(turn) == Counter((channel, number) for channel in channels)


def test_a_backlog_on_one_channel_does_not_keep_another_waiting(layer: SyncChannelLayer) -> None:
    for number in range(50):
        layer.send("busy", job(number))
    worker = layer.listen("busy", "quiet")
    for number in range(10):
        assert next(worker) == job(number)
    layer.send("quiet", job(100))
    assert next(worker) == job(100)
    assert next(worker) == job(10)


# Several workers


@pytest.mark.processes
async def test_workers_share_a_channel_and_each_message_goes_to_one(
    database: ChannelDatabase, make_layer: LayerFactory, tmp_path: Path, start_process: ProcessFactory
) -> None:
    workers, count = 4, 400
    journals = [tmp_path / f"worker-{number}" for number in range(workers)]
    herd = await start_herd(
        start_process,
        [(share_work, {"channel": "jobs", "journal": str(path)}) for path in journals],
        database=database,
        config={"capacity": 1000, "polling_interval": NEVER_S},
    )
    await herd.hear_each(deadline_s=DEADLINE_S)
    layer = make_layer(capacity=1000)
    for number in range(count):
        await layer.send("jobs", job(number))
    # Each holds its first message until all have one.
    assert await herd.hear_each(deadline_s=DEADLINE_S) == ["first"] * workers
    herd.tell("go on")
    await aeventually(
        lambda: sum(len(read_journal(path)) for path in journals) >= count, DEADLINE_S, what="all is done"
    )
    for number in range(workers):
        herd.signal(number, signal.SIGTERM)
    assert await herd.hear_each(deadline_s=DEADLINE_S) == ["ended"] * workers
    herd.finish()
    done = [[message["number"] for message in read_journal(path)] for path in journals]
    assert sorted(number for numbers in done for number in numbers) == list(range(count))
    for numbers in done:
        assert numbers == sorted(numbers)


@pytest.mark.processes
def test_a_worker_killed_in_the_middle_of_a_job_loses_that_message_and_no_other(
    database: ChannelDatabase, layer: SyncChannelLayer, start_process: ProcessFactory
) -> None:
    for number in range(10):
        layer.send("jobs", job(number, *["wait"] * (number == 3)))
    first = start_process(run_worker, database=database, channels=["jobs"])
    heard = [first.hear(DEADLINE_S) for _ in range(7)]
    assert heard == [[word, number] for number in range(3) for word in ("began", "done")] + [["began", 3]]
    first.kill()
    layer.send("jobs", job(10))
    second = layer.listen("jobs")
    assert [next(second)["number"] for _ in range(7)] == list(range(4, 11))
    assert is_empty(layer, "jobs")


# Sleeping and waking


@pytest.mark.processes
def test_a_sleeping_worker_uses_no_measurable_cpu(
    database: ChannelDatabase, layer: SyncChannelLayer, start_process: ProcessFactory
) -> None:
    worker = start_process(time_waking, database=database, channel="jobs")
    assert worker.hear(DEADLINE_S) == "ready"
    layer.send("jobs", {"type": "job", "sent_at": time.monotonic()})
    worker.hear(DEADLINE_S)
    time.sleep(SLEEP_S)  # what is measured is that nothing happens
    layer.send("jobs", {"type": "job", "sent_at": time.monotonic()})
    _, used_s = worker.hear(DEADLINE_S)
    assert used_s < SLEEP_CPU_S
    worker.terminate()
    worker.wait()


@pytest.mark.processes
def test_a_worker_wakes_at_once_for_what_another_process_sends(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    with facade_over(database, polling_interval=5) as layer:
        worker = start_process(time_waking, database=database, config={"polling_interval": 5}, channel="jobs")
        assert worker.hear(DEADLINE_S) == "ready"
        until_heard_of(database, "jobs")
        latencies_s = []
        for _ in range(15):
            layer.send("jobs", {"type": "job", "sent_at": time.monotonic()})
            latency_s, _ = worker.hear(DEADLINE_S)
            latencies_s.append(latency_s)
        assert statistics.median(latencies_s) < WAKE_S, latencies_s
        worker.terminate()
        worker.wait()


# A database that fails


def test_a_worker_waits_while_the_database_is_locked_for_longer_than_the_time_out(
    no_leaks: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with channel_database(tmp_path, options={"timeout": 0.1}) as database, facade_over(database) as layer:
        layer.send("jobs", job(1))
        layer.send("jobs", job(2))
        worker = layer.listen("jobs")
        assert next(worker) == job(1)
        with write_lock(database.path):
            following = in_thread(lambda: next(worker))
            eventually(lambda: "receiving" in caplog.text, DEADLINE_S, what="the worker has seen the lock")
        assert following() == job(2)
    assert [record.levelno for record in caplog.records if "receiving" in record.getMessage()] != []
    assert not [record for record in caplog.records if record.levelno > logging.ERROR]


@pytest.mark.processes
@pytest.mark.parametrize("begun", [True, False], ids=["claiming", "beginning"])
def test_a_signal_ends_a_worker_soon_while_the_database_is_locked(
    begun: bool, database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    """The time-out of the database is 20 s here."""
    with facade_over(database) as layer:
        layer.send("jobs", job(0))
        layer.send("jobs", job(1, "wait"))
        # This process's own files are there, so that the next one is the worker's.
        eventually(lambda: any("housekeeping" in str(name) for name in wake_folder(database)), DEADLINE_S)
        with write_lock(database.path) if not begun else nullcontext():
            before = len(wake_folder(database))
            worker = start_process(run_worker, database=database, channels=["jobs"])
            if begun:
                assert worker.hear(DEADLINE_S) == ["began", 0]
                assert worker.hear(DEADLINE_S) == ["done", 0]
                assert worker.hear(DEADLINE_S) == ["began", 1]
            else:
                eventually(lambda: len(wake_folder(database)) > before, DEADLINE_S)
            with write_lock(database.path) if begun else nullcontext():
                if begun:
                    worker.say("go on")
                    assert worker.hear(DEADLINE_S) == ["done", 1]
                signal_to(worker, signal.SIGTERM)
                started = time.monotonic()
                assert worker.hear(DEADLINE_S) == ["ended", True]
                worker.wait()
                assert time.monotonic() - started < SIGNALLED_S


def test_a_receive_ends_with_its_own_time_out_while_the_database_is_locked(database: ChannelDatabase) -> None:
    with facade_over(database) as layer:
        layer.send("jobs", job(0))
        with pytest.raises(TimeoutError):
            layer.receive("other", timeout=0)
        with write_lock(database.path):
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                layer.receive("jobs", timeout=0.3)
            assert time.monotonic() - started < SIGNALLED_S
        assert layer.receive("jobs", timeout=DEADLINE_S) == job(0)


def test_a_worker_that_cannot_use_the_database_from_the_start_is_told(no_leaks: None, tmp_path: Path) -> None:
    with channel_database(tmp_path, options={"timeout": 0.1}) as database, facade_over(database) as layer:
        layer.send("jobs", job(1))
        with write_lock(database.path), pytest.raises(ChannelDatabaseError, match="locked"):
            next(layer.listen("jobs"))
        assert next(layer.listen("jobs")) == job(1)


@pytest.mark.processes
def test_a_worker_goes_on_with_the_file_that_replaces_its_own(
    database: ChannelDatabase, start_process: ProcessFactory
) -> None:
    worker = start_process(run_worker, database=database, channels=["jobs"])
    with facade_over(database):
        get_sync_channel_layer().send("jobs", job(1))
    assert [worker.hear(DEADLINE_S), worker.hear()] == [["began", 1], ["done", 1]]
    replace(database.path)
    with facade_over(database):
        get_sync_channel_layer().send("jobs", job(2))
        assert [worker.hear(DEADLINE_S), worker.hear()] == [["began", 2], ["done", 2]]
        until_heard_of(database, "jobs")
        get_sync_channel_layer().send("jobs", job(3))
        assert [worker.hear(DEADLINE_S), worker.hear()] == [["began", 3], ["done", 3]]
    worker.terminate()
    assert worker.hear(DEADLINE_S) == ["ended", True]
    worker.wait()
