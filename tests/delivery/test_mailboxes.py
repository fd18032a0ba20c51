"""Mailboxes: who gets what, who is woken, and that empty ones go."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from channels_sqlite.counters import Counters
from channels_sqlite.delivery.entries import Entry
from channels_sqlite.delivery.mailboxes import Mailboxes
from channels_sqlite.delivery.waiters import LoopWaiter
from channels_sqlite.options import Options

# Nothing is opened here but one event loop, and looking for leaks takes longer than these tests.
pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

NOW = 1000.0
QUEUE = "specific.abc!"
CHANNEL = "specific.abc!one"
OTHER = "specific.abc!two"


class Clock:
    """What `time.time()` says."""

    def __init__(self) -> None:
        self.now = NOW


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", lambda: clock.now)
    return clock


@pytest.fixture(autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def boxes() -> Mailboxes:
    """Mailboxes with room for three messages each."""
    return Mailboxes(Options.from_config({"capacity": 3}), Counters())


def entry(number: int, *, expires_at: float = NOW + 60) -> Entry:
    return Entry(number, expires_at, b"%d" % number)


def put(boxes: Mailboxes, number: int, channel: str = CHANNEL, *, expires_at: float = NOW + 60) -> bool:
    """Whether there was room."""
    full, _ = boxes.put([channel], entry(number))
    box = boxes.find(channel)
    if box is not None and box.entries:
        box.entries[-1].expires_at = expires_at  # what is past its expiry when it comes, is not put
    return not full


def wait(boxes: Mailboxes, channel: str, loop: asyncio.AbstractEventLoop) -> LoopWaiter:
    """A receiver that finds nothing."""
    found = boxes.take_or_wait(channel, LoopWaiter, loop)
    assert isinstance(found, LoopWaiter)
    return found


def take(boxes: Mailboxes, channel: str, loop: asyncio.AbstractEventLoop) -> tuple[str, int] | None:
    """The channel and number of what a newcomer gets; None: nothing, and he leaves."""
    found = boxes.take_or_wait(channel, LoopWaiter, loop)
    if isinstance(found, LoopWaiter):
        boxes.give_up(found)
        return None
    return found[0], found[1].id


def take_all(boxes: Mailboxes, channel: str, loop: asyncio.AbstractEventLoop) -> list[tuple[str, int]]:
    taken = []
    while (item := take(boxes, channel, loop)) is not None:
        taken.append(item)
    return taken


def sweep(boxes: Mailboxes, *, all_waiters: bool = False, members: tuple[str, ...] = ()) -> list[str]:
    return boxes.sweep(all_waiters=all_waiters, is_member=lambda channel: channel in members)


def held(boxes: Mailboxes) -> dict[str, int]:
    return dict(boxes.unread().held)


# Messages


def test_messages_come_out_in_the_order_they_came_in(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    for number in (1, 2, 3):
        assert put(boxes, number)
    assert take_all(boxes, CHANNEL, loop) == [(CHANNEL, 1), (CHANNEL, 2), (CHANNEL, 3)]


def test_channels_do_not_see_each_others_messages(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    put(boxes, 1, CHANNEL)
    put(boxes, 2, OTHER)
    assert take_all(boxes, OTHER, loop) == [(OTHER, 2)]
    assert take_all(boxes, CHANNEL, loop) == [(CHANNEL, 1)]


def test_a_full_mailbox_takes_no_more_and_keeps_the_oldest(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    assert [put(boxes, number) for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert take_all(boxes, CHANNEL, loop) == [(CHANNEL, 1), (CHANNEL, 2), (CHANNEL, 3)]


def test_a_full_mailbox_does_not_fill_its_neighbour(boxes: Mailboxes) -> None:
    for number in (1, 2, 3):
        put(boxes, number, CHANNEL)
    assert put(boxes, 4, OTHER)


def test_expired_messages_make_room(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    for number in (1, 2, 3):
        put(boxes, number, expires_at=NOW)
    assert put(boxes, 4)
    assert take_all(boxes, CHANNEL, loop) == [(CHANNEL, 4)]
    assert held(boxes) == {}


def test_expired_messages_are_not_taken(boxes: Mailboxes, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
    put(boxes, 1, expires_at=NOW + 1)
    put(boxes, 2, expires_at=NOW + 2)
    clock.now += 1
    assert take_all(boxes, CHANNEL, loop) == [(CHANNEL, 2)]


def test_what_is_past_its_expiry_when_it_comes_is_dropped(boxes: Mailboxes) -> None:
    assert boxes.put([CHANNEL, OTHER], entry(1, expires_at=NOW)) == (0, 0)
    assert (boxes.find(CHANNEL), held(boxes)) == (None, {})


def test_the_whole_queue_is_taken_oldest_first_and_names_the_channel(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    put(boxes, 1, CHANNEL)
    put(boxes, 2, OTHER)
    put(boxes, 3, CHANNEL)
    assert take_all(boxes, QUEUE, loop) == [(CHANNEL, 1), (OTHER, 2), (CHANNEL, 3)]


def test_what_is_held_is_counted_by_queue(boxes: Mailboxes, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
    foreign = "other.abc!one"
    put(boxes, 1, foreign, expires_at=NOW + 1)
    boxes.put([CHANNEL, foreign, OTHER], entry(2))
    put(boxes, 3, CHANNEL)
    assert held(boxes) == {QUEUE: 3, "other.abc!": 2}
    take(boxes, CHANNEL, loop)
    assert [boxes.unread_of(name)[1] for name in (QUEUE, "other.abc!", "none.abc!")] == [2, 2, 0]
    clock.now += 1
    boxes.unread_of(QUEUE, anew=True)
    assert held(boxes) == {QUEUE: 2, "other.abc!": 2}
    boxes.unread_of("other.abc!", anew=True)
    assert held(boxes) == {QUEUE: 2, "other.abc!": 1}
    boxes.clear()
    assert held(boxes) == {}


def test_what_a_full_mailbox_refuses_is_not_held(boxes: Mailboxes) -> None:
    foreign = "other.abc!one"
    for number in (1, 2, 3):
        put(boxes, number, foreign)
    assert boxes.put([foreign, CHANNEL, foreign, OTHER], entry(4)) == (2, 0)
    assert held(boxes) == {QUEUE: 2, "other.abc!": 3}


def test_consumption_is_due_to_be_told_after_a_tenth_of_the_queue_it_was_of(loop: asyncio.AbstractEventLoop) -> None:
    options = Options.from_config({"capacity": 100, "channel_capacity": {"small*": 10}})
    boxes = Mailboxes(options, Counters())
    due: list[str] = []
    boxes.on_due = lambda: due.append("due")
    for channel in (CHANNEL, "small.abc!one"):
        put(boxes, 1, channel)
        put(boxes, 2, channel)
    take(boxes, CHANNEL, loop)
    assert due == []
    take(boxes, "small.abc!one", loop)
    assert due == ["due"]
    boxes.forget_count()
    waiters = [wait(boxes, f"{QUEUE}{number}", loop) for number in range(2)]
    assert due == ["due", "due"], "many more wait than senders know of"
    boxes.begin_count()
    take(boxes, "small.abc!one", loop)
    assert due == ["due", "due"], "a tenth of the limit of two receivers is two messages"
    for waiter in waiters:
        boxes.give_up(waiter)


def test_a_queue_goes_with_its_last_mailbox(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    for channel in (CHANNEL, OTHER):
        put(boxes, 1, channel)
    queue = boxes.find(CHANNEL)
    assert queue is not None
    take_all(boxes, CHANNEL, loop)
    sweep(boxes)
    assert queue.queue.boxes == 1
    take_all(boxes, OTHER, loop)
    sweep(boxes)
    assert queue.queue.boxes == 0
    put(boxes, 2)
    anew = boxes.find(CHANNEL)
    assert anew is not None
    assert anew.queue is not queue.queue


# Forgetting


def test_a_mailbox_goes_with_its_last_message(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    put(boxes, 1)
    sweep(boxes)
    assert boxes.find(CHANNEL) is not None
    take_all(boxes, CHANNEL, loop)
    sweep(boxes)
    assert boxes.find(CHANNEL) is None


def test_a_mailbox_goes_with_its_last_expired_message(boxes: Mailboxes, clock: Clock) -> None:
    put(boxes, 1, expires_at=NOW + 1)
    clock.now += 1
    assert sweep(boxes) == []
    assert boxes.find(CHANNEL) is None


def test_a_mailbox_goes_with_its_last_waiter(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = wait(boxes, CHANNEL, loop)
    sweep(boxes)
    assert boxes.find(CHANNEL) is not None
    boxes.give_up(waiter)
    sweep(boxes)
    assert boxes.find(CHANNEL) is None
    assert boxes.waiting_channels == 0


def test_who_was_woken_and_does_not_come_leaves_the_line_at_the_second_sweep(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    stuck, next_one = wait(boxes, CHANNEL, loop), wait(boxes, CHANNEL, loop)
    assert put(boxes, 1)
    assert (stuck.woken, next_one.woken) == (True, False)
    assert sweep(boxes) == []
    assert sweep(boxes) == [CHANNEL]
    boxes.wake(CHANNEL)
    assert next_one.woken


def test_waiters_of_closed_loops_are_found_when_there_are_any(boxes: Mailboxes) -> None:
    loop = asyncio.new_event_loop()
    wait(boxes, CHANNEL, loop)
    sweep(boxes, all_waiters=True)
    assert boxes.waiting_channels == 1
    loop.close()
    sweep(boxes, all_waiters=True)
    assert (boxes.waiting_channels, boxes.find(CHANNEL)) == (0, None)


def test_clearing_keeps_the_waiters(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = wait(boxes, CHANNEL, loop)
    put(boxes, 1, OTHER)
    boxes.clear()
    sweep(boxes)
    assert boxes.find(OTHER) is None
    put(boxes, 2)
    assert waiter.woken


# Waiters


def test_a_message_wakes_the_first_waiter_and_the_next_message_the_next(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    first, second = wait(boxes, CHANNEL, loop), wait(boxes, CHANNEL, loop)
    put(boxes, 1)
    assert (first.woken, second.woken) == (True, False)
    put(boxes, 2)
    assert second.woken
    put(boxes, 3)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert (first.future.done(), second.future.done()) == (True, True)


def test_a_newcomer_leaves_what_a_waiter_was_woken_for(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = wait(boxes, CHANNEL, loop)
    put(boxes, 1)
    assert take(boxes, CHANNEL, loop) is None
    assert boxes.take_woken(waiter) == (CHANNEL, entry(1))


def test_a_woken_waiter_that_leaves_makes_its_message_free(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = wait(boxes, CHANNEL, loop)
    put(boxes, 1)
    boxes.give_up(waiter)
    assert take(boxes, CHANNEL, loop) == (CHANNEL, 1)


def test_a_woken_waiter_that_leaves_wakes_the_next(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter, stays = wait(boxes, CHANNEL, loop), wait(boxes, CHANNEL, loop)
    put(boxes, 1)
    boxes.give_up(waiter)
    assert stays.woken


def test_leaving_twice_changes_nothing(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter, stays = wait(boxes, CHANNEL, loop), wait(boxes, CHANNEL, loop)
    for _ in range(2):
        boxes.give_up(waiter)
    assert boxes.waiting_channels == 1
    boxes.give_up(stays)
    assert boxes.waiting_channels == 0


def test_a_waiter_on_the_whole_queue_is_woken_for_any_channel(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    waiter = wait(boxes, QUEUE, loop)
    put(boxes, 1, OTHER)
    assert waiter.woken


@pytest.mark.parametrize("left", [0, 1])
def test_a_waiter_on_the_whole_queue_is_woken_though_others_were_for_what_is_gone(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop, clock: Clock, left: int
) -> None:
    own = [wait(boxes, CHANNEL, loop) for _ in range(1 + left)]
    put(boxes, 1, expires_at=NOW + 1)
    if left:
        put(boxes, 2)
    clock.now = NOW + 1
    sweep(boxes)
    assert all(waiter.woken for waiter in own)
    waiter = wait(boxes, QUEUE, loop)
    put(boxes, 3, OTHER)
    assert waiter.woken
    assert boxes.take_woken(waiter) == (OTHER, entry(3))


def test_the_channels_own_waiter_comes_before_one_on_the_whole_queue(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    any_of_queue, own = wait(boxes, QUEUE, loop), wait(boxes, CHANNEL, loop)
    put(boxes, 1)
    assert (own.woken, any_of_queue.woken) == (True, False)
    put(boxes, 2)
    assert any_of_queue.woken


def test_channels_with_receivers_are_counted_once_each(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiters = [wait(boxes, channel, loop) for channel in (CHANNEL, CHANNEL, OTHER)]
    assert boxes.waiting_channels == 2
    for waiter in waiters:
        boxes.give_up(waiter)
    assert boxes.waiting_channels == 0


def test_who_is_gone_is_passed_over(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    closed = asyncio.new_event_loop()
    gone, stays = wait(boxes, CHANNEL, closed), wait(boxes, CHANNEL, loop)
    closed.close()
    assert gone.notify(None) is False
    put(boxes, 1)
    assert stays.woken
