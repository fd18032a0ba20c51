"""The storm's judge finds what is wrong: journals written by hand, each with one fault."""

import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.endurance.crew import Death
from tests.endurance.journal import RECORD, Journal, Kind, Stuck, journal_path
from tests.endurance.judging import Judge, Times
from tests.endurance.kernel import bytes_held, flock_holders
from tests.endurance.logs import read_logs
from tests.endurance.plan import (
    CHANNEL_OF,
    FIRST_SPECIFIC_ID,
    GROUP_ID,
    MAIN,
    MAIN_EXPIRY_S,
    NORMAL,
    SHORT_EXPIRY_S,
    plan,
)
from tests.endurance.station import SOURCES
from tests.endurance.watching import CHECKPOINT_BYTE

SENDER, STABLE, MORTAL, NEXT_MORTAL = 1, 2, 3, 4
SOURCE = SENDER * SOURCES + 1
SOLO_STABLE, SOLO_MORTAL, POOL, SHORT_CHANNEL = 1, 3, 10, 21
PLACE = FIRST_SPECIFIC_ID + 2001
ENDED = "ended"


class Story:
    """Journals of some processes. What it tells happens one second after the other, from 1000 on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds = itertools.count(1000)
        self._journals: dict[int, Journal] = {}
        self.deaths: list[Death] = []
        self.stops: dict[int, list[tuple[float, float]]] = {}
        self.living: set[int] = set()
        slots = {SENDER: "sender-1", STABLE: "stable-1", MORTAL: "mortal-1", NEXT_MORTAL: "mortal-1"}
        for incarnation, slot in slots.items():
            self._journals[incarnation] = Journal(journal_path(folder, incarnation, slot))

    def tell(self, incarnation: int, kind: Kind, *, later_s: float = 0.0, **values: int) -> float:
        at = next(self._seconds) + later_s
        self._journals[incarnation].write(kind, at=at, **values)
        return at

    def send(self, target: int, *numbers: int, outcome: Kind = Kind.SENT) -> None:
        for number in numbers:
            self.tell(SENDER, Kind.SENDING, source=SOURCE, target=target, number=number)
            self.tell(SENDER, outcome, source=SOURCE, target=target, number=number)

    def receive(self, incarnation: int, target: int, *numbers: int, place: int = 0, later_s: float = 0.0) -> None:
        for number in numbers:
            self.tell(
                incarnation,
                Kind.RECEIVED,
                source=SOURCE,
                target=target,
                number=number,
                place=place or target,
                later_s=later_s,
            )

    def kill(self, incarnation: int) -> None:
        at = float(next(self._seconds))
        self.deaths.append(Death("mortal-1", incarnation, at, at, "killed"))

    def faults(self) -> dict[str, int]:
        judge = Judge(self._folder, Times(self.deaths, self.stops, self.living))
        judge.judge()
        return {kind: found.count for kind, found in judge.faults.items()}

    def close(self) -> None:
        for journal in self._journals.values():
            journal.close()


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    told = Story(tmp_path)
    yield told
    told.close()


def test_a_record_never_lies_across_two_pages() -> None:
    assert 4096 % RECORD.size == 0


def test_everything_received_once_and_in_order_is_clean(story: Story) -> None:
    story.send(SOLO_STABLE, 0, 1, 2)
    story.receive(STABLE, SOLO_STABLE, 0, 1, 2)
    assert story.faults() == {}


def test_a_message_received_twice_is_doubled(story: Story) -> None:
    story.send(POOL, 0)
    story.receive(MORTAL, POOL, 0)
    story.receive(STABLE, POOL, 0)
    assert story.faults() == {"doubled": 1}


def test_a_message_before_its_predecessor_is_swapped(story: Story) -> None:
    story.send(SOLO_STABLE, 0, 1)
    story.receive(STABLE, SOLO_STABLE, 1, 0)
    assert story.faults() == {"swapped": 1}


def test_order_holds_from_one_reader_of_a_channel_to_the_next(story: Story) -> None:
    story.send(SOLO_MORTAL, 0, 1)
    story.receive(MORTAL, SOLO_MORTAL, 1)
    story.kill(MORTAL)
    story.receive(NEXT_MORTAL, SOLO_MORTAL, 0)
    assert story.faults() == {"swapped": 1}


def test_what_another_reader_gave_back_may_come_late(story: Story) -> None:
    story.send(POOL, 0, 1)
    story.receive(MORTAL, POOL, 1, 0)
    assert story.faults() == {}


def test_a_message_that_nobody_received_is_lost(story: Story) -> None:
    story.send(SOLO_STABLE, 0, 1)
    story.receive(STABLE, SOLO_STABLE, 1)
    assert story.faults() == {"lost": 1}


def test_a_message_whose_send_did_not_return_may_be_missing(story: Story) -> None:
    story.send(SOLO_STABLE, 0, outcome=Kind.CUT_OFF)
    story.tell(SENDER, Kind.SENDING, source=SOURCE, target=SOLO_STABLE, number=1)
    assert story.faults() == {}


def test_a_killed_reader_takes_one_message_for_each_receive_and_no_more(story: Story) -> None:
    held = CHANNEL_OF[SOLO_MORTAL].receivers["mortal-1"]
    story.send(SOLO_MORTAL, *range(held + 1))
    story.kill(MORTAL)
    assert story.faults() == {"lost": 1}


def test_a_killed_reader_does_not_take_what_its_successor_had_passed(story: Story) -> None:
    story.kill(MORTAL)
    story.send(SOLO_MORTAL, 0, 1)
    story.receive(NEXT_MORTAL, SOLO_MORTAL, 1)
    assert story.faults() == {"lost": 1}


def test_a_kill_long_after_the_next_message_came_explains_nothing(story: Story) -> None:
    story.send(SOLO_MORTAL, 0, 1)
    story.receive(MORTAL, SOLO_MORTAL, 1)
    for _ in range(10):
        story.tell(MORTAL, Kind.CANCELLED)
    story.kill(MORTAL)
    assert story.faults() == {"lost": 1}


def test_a_reader_that_ended_by_itself_takes_nothing(story: Story) -> None:
    story.send(SOLO_MORTAL, 0)
    story.deaths.append(Death("mortal-1", MORTAL, 1100.0, 1100.0, ENDED))
    assert story.faults() == {"lost": 1}


def test_messages_of_a_channel_that_went_are_not_lost_but_those_of_one_that_lives_are(story: Story) -> None:
    story.send(PLACE, 0)
    assert story.faults() == {}
    story.living.add(PLACE)
    assert story.faults() == {"lost": 1}


def test_a_broadcast_that_a_long_lived_member_missed_is_found(story: Story) -> None:
    story.send(GROUP_ID, 0)
    story.tell(STABLE, Kind.JOINING, target=GROUP_ID, place=PLACE)
    story.tell(STABLE, Kind.JOINED, target=GROUP_ID, place=PLACE)
    story.send(GROUP_ID, 1, 2)
    story.receive(STABLE, GROUP_ID, 2, place=PLACE)
    assert story.faults() == {"broadcasts missed": 1}


def test_a_broadcast_of_before_a_member_joined_is_found(story: Story) -> None:
    story.send(GROUP_ID, 0)
    story.tell(STABLE, Kind.JOINING, target=GROUP_ID, place=PLACE)
    story.tell(STABLE, Kind.JOINED, target=GROUP_ID, place=PLACE)
    story.receive(STABLE, GROUP_ID, 0, place=PLACE)
    assert story.faults() == {"delivered to later members": 1}


def test_a_broadcast_that_came_twice_or_early_is_found(story: Story) -> None:
    story.send(GROUP_ID, 0, 1)
    story.receive(STABLE, GROUP_ID, 1, 0, 1, place=PLACE)
    assert story.faults() == {"swapped": 1, "doubled": 1}


@pytest.mark.parametrize(
    ("target", "expiry_s"), [(SOLO_STABLE, MAIN_EXPIRY_S), (SHORT_CHANNEL, SHORT_EXPIRY_S)], ids=[MAIN, "short"]
)
def test_a_message_received_after_its_expiry_is_found(story: Story, target: int, expiry_s: float) -> None:
    story.send(target, 0)
    story.receive(STABLE, target, 0, later_s=expiry_s + 5)
    assert story.faults() == {"delivered after expiry": 1}
    story.stops[STABLE] = [(1000.0, 1000.0 + expiry_s + 5)]
    assert story.faults() == {}


def test_a_message_that_was_refused_must_not_come(story: Story) -> None:
    story.send(SOLO_STABLE, 0, outcome=Kind.REFUSED)
    story.receive(STABLE, SOLO_STABLE, 0)
    assert story.faults() == {"refused and delivered": 1}


def test_a_message_on_another_channel_is_found(story: Story) -> None:
    story.send(SOLO_STABLE, 0)
    story.receive(STABLE, SOLO_STABLE, 0, place=POOL)
    assert story.faults() == {"wrong channel": 1}


def test_what_a_process_found_stuck_or_failing_counts(story: Story) -> None:
    story.tell(STABLE, Kind.STUCK, number=Stuck.FORK)
    story.tell(STABLE, Kind.UNEXPECTED)
    assert story.faults() == {"hanging calls": 1, "calls that failed": 1}


# Logs, locks, the plan


def test_lines_at_error_and_tracebacks_are_found(tmp_path: Path) -> None:
    (tmp_path / "000001-observer.txt").write_text(
        "2026-01-02 03:04:05,678 ERROR channels_sqlite [1]: claiming failed (7 times)\n"
        "2026-01-02 03:04:06,678 ERROR asyncio [1]: Exception in callback\n"
        "Traceback (most recent call last):\n"
        '  File "x.py", line 1, in <module>\n'
        "ValueError: 17\n"
        "2026-01-02 03:04:07,678 WARNING channels_sqlite [1]: no wake-up socket\n"
    )
    found = read_logs(tmp_path, [])
    assert found.errors.total() == 2
    assert found.tracebacks == {"ValueError: N": 1}
    assert found.warnings.total() == 1


def test_what_sqlite_locks_is_read_from_the_kernel(tmp_path: Path) -> None:
    path = tmp_path / "file-shm"
    path.write_bytes(bytes(200))
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX, 1, CHECKPOINT_BYTE)
        assert bytes_held(path, {os.getpid()}) == {CHECKPOINT_BYTE}
        assert bytes_held(path, {1}) == set()
        assert flock_holders(path) == set()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert flock_holders(path) == {os.getpid()}


def test_the_seed_fixes_what_the_monkey_does() -> None:
    assert list(plan(5, 60)) == list(plan(5, 60))
    assert list(plan(5, 60)) != list(plan(6, 60))
    assert "folder" not in {action.kind for action in plan(5, 600, without=["folder"])}


def test_channels_have_numbers_of_their_own() -> None:
    assert len(CHANNEL_OF) == len(NORMAL)
    assert max(CHANNEL_OF) < GROUP_ID < FIRST_SPECIFIC_ID
