"""What was claimed from normal channels: how much to ask for, what goes back, and that empty boxes go."""

import asyncio
import math
import time
from collections.abc import Iterator

import pytest

from channels_sqlite.counters import Counters
from channels_sqlite.delivery.claimed_boxes import ClaimedBoxes
from channels_sqlite.delivery.entries import Entry, diff_entry
from channels_sqlite.delivery.waiters import LoopWaiter
from channels_sqlite.exceptions import LayerClosedError

pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

NOW = 1000.0
JOBS = "jobs"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def boxes(counters: Counters) -> ClaimedBoxes:
    return ClaimedBoxes(counters)


def entries(*numbers: int, expires_at: float = NOW + 60) -> list[Entry]:
    return [Entry(number, expires_at, b"%d" % number) for number in numbers]


def wait(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> LoopWaiter:
    found = boxes.take_or_wait(JOBS, LoopWaiter, loop)
    assert isinstance(found, LoopWaiter)
    return found


def claim(boxes: ClaimedBoxes, *numbers: int, expires_at: float = NOW + 60) -> list[int]:
    """The ids of what goes back of the messages claimed."""
    asked = boxes.ask_for(JOBS)
    boxes.arrived(JOBS, asked, entries(*numbers, expires_at=expires_at))
    return [entry.id for entry in boxes.pass_on(JOBS)]


def test_as_many_are_asked_for_as_wait_once(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    assert (boxes.wanting([JOBS, "other"]), boxes.ask_for(JOBS)) == ([], 0)
    wait(boxes, loop)
    wait(boxes, loop)
    assert boxes.wanting([JOBS, "other"]) == [JOBS]
    assert (boxes.ask_for(JOBS), boxes.ask_for(JOBS)) == (2, 0)
    wait(boxes, loop)
    assert boxes.ask_for(JOBS) == 1


def test_what_was_claimed_goes_to_those_who_wait_in_their_order(
    boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop
) -> None:
    first, second = wait(boxes, loop), wait(boxes, loop)
    assert claim(boxes, 1, 2) == []
    assert (first.woken, second.woken) == (True, True)
    assert boxes.take_woken(first) == (JOBS, entries(1)[0])
    assert boxes.take_woken(second) == (JOBS, entries(2)[0])


def test_a_newcomer_leaves_what_others_were_woken_for(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    first = wait(boxes, loop)
    claim(boxes, 1)
    wait(boxes, loop)
    assert boxes.take_woken(first) == (JOBS, entries(1)[0])


def test_what_nobody_waits_for_goes_back_newest_first(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    stays, *leave = [wait(boxes, loop) for _ in range(3)]
    asked = boxes.ask_for(JOBS)
    for waiter in leave:
        boxes.give_up(waiter)
    boxes.arrived(JOBS, asked, entries(1, 2, 3))
    assert [entry.id for entry in boxes.pass_on(JOBS)] == [3, 2]
    assert boxes.take_woken(stays) == (JOBS, entries(1)[0])


def test_nothing_goes_back_while_more_is_on_its_way(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    waiters = [wait(boxes, loop), wait(boxes, loop)]
    boxes.ask_for(JOBS)
    boxes.arrived(JOBS, 1, entries(1))
    for waiter in waiters:
        boxes.give_up(waiter)
    assert boxes.pass_on(JOBS) == []
    boxes.arrived(JOBS, 1, entries(2))
    assert [entry.id for entry in boxes.pass_on(JOBS)] == [2, 1]


def test_nothing_is_claimed_while_something_goes_back(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    """What comes of it would overtake what goes back."""
    boxes.release(JOBS)
    waiter = wait(boxes, loop)
    assert (boxes.wanting([JOBS]), boxes.ask_for(JOBS)) == ([], 0)
    boxes.released(JOBS)
    assert boxes.ask_for(JOBS) == 1
    assert not waiter.woken


def test_what_could_not_be_put_back_is_for_the_next(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    leaves, waiter = wait(boxes, loop), wait(boxes, loop)
    asked = boxes.ask_for(JOBS)
    boxes.give_up(leaves)
    boxes.give_up(waiter)
    boxes.arrived(JOBS, asked, entries(1, 2))
    surplus = boxes.pass_on(JOBS)
    boxes.released(JOBS, surplus)
    assert boxes.take_left_over(["other", JOBS]) == (JOBS, entries(1)[0])
    assert boxes.hold_any()
    assert boxes.take_all() == {JOBS: entries(2)}
    assert (boxes.hold_any(), boxes.take_left_over([JOBS])) == (False, None)


def test_a_message_that_has_expired_is_not_taken(
    boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop, counters: Counters
) -> None:
    waiter = wait(boxes, loop)
    claim(boxes, 1, expires_at=NOW)
    assert (boxes.take_woken(waiter), counters.dropped_expired) == (None, 1)


def test_a_sweep_drops_what_expires_before_others_in_front_of_it(
    boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop, counters: Counters
) -> None:
    for _ in range(3):
        wait(boxes, loop)
    asked = boxes.ask_for(JOBS)
    boxes.arrived(JOBS, asked, [*entries(1), *entries(2, expires_at=NOW), *entries(3)])
    boxes.sweep()
    assert counters.dropped_expired == 1
    assert boxes.take_all() == {JOBS: entries(1, 3)}


def test_who_was_woken_and_does_not_come_loses_the_turn(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    stuck, next_one = wait(boxes, loop), wait(boxes, loop)
    claim(boxes, 1)
    assert (stuck.woken, boxes.sweep()) == (True, [])
    assert boxes.sweep() == [JOBS]
    boxes.pass_on(JOBS)
    assert next_one.woken


def test_a_box_goes_with_the_last_that_is_in_it_or_on_its_way(
    boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop
) -> None:
    def is_kept() -> bool:
        boxes.sweep()
        return boxes.find(JOBS) is not None

    waiter = wait(boxes, loop)
    assert (is_kept(), boxes.in_use([JOBS, "other"])) == (True, {JOBS})
    asked = boxes.ask_for(JOBS)
    boxes.give_up(waiter)
    assert is_kept()
    boxes.arrived(JOBS, asked, entries(1))
    assert is_kept()
    boxes.pass_on(JOBS)
    assert is_kept()
    boxes.released(JOBS)
    assert (is_kept(), boxes.in_use([JOBS])) == (False, set())


def test_clearing_keeps_receivers_and_what_tells_of_presences(
    boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop
) -> None:
    for _ in range(2):
        wait(boxes, loop)
    diff = diff_entry(2, "room", b"")
    boxes.arrived(JOBS, boxes.ask_for(JOBS), [*entries(1), diff])
    boxes.clear()
    box = boxes.find(JOBS)
    assert box is not None
    assert (list(box.entries), len(box.waiters), diff.expires_at) == ([diff], 2, math.inf)


def test_nobody_receives_once_it_is_shut(boxes: ClaimedBoxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = wait(boxes, loop)
    asked = boxes.ask_for(JOBS)
    assert boxes.shut() == [waiter]
    boxes.arrived(JOBS, asked, entries(1))
    assert (boxes.pass_on(JOBS), boxes.ask_for(JOBS), waiter.woken, boxes.stands(waiter)) == ([], 0, False, False)
    with pytest.raises(LayerClosedError):
        boxes.take_or_wait(JOBS, LoopWaiter, loop)
    assert boxes.take_all() == {JOBS: entries(1)}, "whoever closes puts it back"
