"""Mailboxes: who gets what, who is woken, and that empty ones go."""

import asyncio
from collections.abc import Iterator

import pytest

from channels_sqlite.counters import Counters
from channels_sqlite.mailboxes import Entry, Mailboxes
from channels_sqlite.waiters import LoopWaiter

# Nothing is opened here but one event loop, and looking for leaks takes longer than these tests.
pytestmark = pytest.mark.leaks_allowed(reason="values in, values out")

NOW = 1000.0
QUEUE = "specific.abc!"
CHANNEL = "specific.abc!one"
OTHER = "specific.abc!two"


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def boxes() -> Mailboxes:
    """Mailboxes with room for three messages each."""
    return Mailboxes(lambda channel: 3, Counters())


def entry(number: int, *, expires_at: float = NOW + 60) -> Entry:
    return Entry(number, expires_at, b"%d" % number)


def put(boxes: Mailboxes, number: int, channel: str = CHANNEL, *, expires_at: float = NOW + 60) -> bool:
    """Put a message whose waiter nobody notifies; whether there was room."""
    full, _ = boxes.put([channel], entry(number, expires_at=expires_at), NOW)
    return not full


def take_all(boxes: Mailboxes, channel: str, now: float = NOW) -> list[tuple[str, int]]:
    taken = []
    while (item := boxes.take(channel, now, woken=False)) is not None:
        taken.append((item[0], item[1].id))
    return taken


# Messages


def test_messages_come_out_in_the_order_they_came_in(boxes: Mailboxes) -> None:
    for number in (1, 2, 3):
        assert put(boxes, number)
    assert take_all(boxes, CHANNEL) == [(CHANNEL, 1), (CHANNEL, 2), (CHANNEL, 3)]


def test_channels_do_not_see_each_others_messages(boxes: Mailboxes) -> None:
    put(boxes, 1, CHANNEL)
    put(boxes, 2, OTHER)
    assert take_all(boxes, OTHER) == [(OTHER, 2)]
    assert take_all(boxes, CHANNEL) == [(CHANNEL, 1)]


def test_a_full_mailbox_takes_no_more_and_keeps_the_oldest(boxes: Mailboxes) -> None:
    assert [put(boxes, number) for number in (1, 2, 3, 4)] == [True, True, True, False]
    assert take_all(boxes, CHANNEL) == [(CHANNEL, 1), (CHANNEL, 2), (CHANNEL, 3)]


def test_a_full_mailbox_does_not_fill_its_neighbour(boxes: Mailboxes) -> None:
    for number in (1, 2, 3):
        put(boxes, number, CHANNEL)
    assert put(boxes, 4, OTHER)


def test_expired_messages_make_room(boxes: Mailboxes) -> None:
    for number in (1, 2, 3):
        put(boxes, number, expires_at=NOW)
    assert put(boxes, 4)
    assert take_all(boxes, CHANNEL) == [(CHANNEL, 4)]
    assert boxes.held == 0


def test_expired_messages_are_not_taken(boxes: Mailboxes) -> None:
    put(boxes, 1, expires_at=NOW + 1)
    put(boxes, 2, expires_at=NOW + 2)
    assert take_all(boxes, CHANNEL, NOW + 1) == [(CHANNEL, 2)]


def test_the_whole_queue_is_taken_oldest_first_and_names_the_channel(boxes: Mailboxes) -> None:
    put(boxes, 1, CHANNEL)
    put(boxes, 2, OTHER)
    put(boxes, 3, CHANNEL)
    assert take_all(boxes, QUEUE) == [(CHANNEL, 1), (OTHER, 2), (CHANNEL, 3)]


def test_what_is_held_is_counted(boxes: Mailboxes) -> None:
    put(boxes, 1, CHANNEL)
    put(boxes, 2, OTHER)
    assert boxes.held == 2
    boxes.take(CHANNEL, NOW, woken=False)
    assert boxes.held == 1
    put(boxes, 3, CHANNEL, expires_at=NOW + 1)
    assert boxes.drop_all_expired(NOW + 1) == 1
    assert boxes.held == 1
    boxes.clear()
    assert boxes.held == 0


# Forgetting


def test_a_mailbox_goes_with_its_last_message(boxes: Mailboxes) -> None:
    put(boxes, 1)
    assert len(boxes) == 1
    boxes.sweep(NOW, all_waiters=False)
    assert len(boxes) == 1
    take_all(boxes, CHANNEL)
    boxes.sweep(NOW, all_waiters=False)
    assert len(boxes) == 0


def test_a_mailbox_goes_with_its_last_expired_message(boxes: Mailboxes) -> None:
    put(boxes, 1, expires_at=NOW + 1)
    assert boxes.sweep(NOW + 1, all_waiters=False) == (1, [])
    assert len(boxes) == 0


def test_a_mailbox_goes_with_its_last_waiter(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(waiter)
    boxes.sweep(NOW, all_waiters=False)
    assert len(boxes) == 1
    assert boxes.remove_waiter(waiter)
    boxes.sweep(NOW, all_waiters=False)
    assert len(boxes) == 0
    assert boxes.waiting_channels == 0


def test_who_was_woken_and_does_not_come_leaves_the_line_at_the_second_sweep(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    stuck, next_one = LoopWaiter(CHANNEL, loop), LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(stuck)
    boxes.add_waiter(next_one)
    assert boxes.put([CHANNEL], entry(1), NOW) == (0, [stuck])
    assert boxes.sweep(NOW, all_waiters=False) == (0, [])
    assert boxes.sweep(NOW, all_waiters=False) == (0, [CHANNEL])
    assert boxes.wakeable(CHANNEL) == [next_one]


def test_waiters_of_closed_loops_are_found_when_there_are_any(boxes: Mailboxes) -> None:
    loop = asyncio.new_event_loop()
    boxes.add_waiter(LoopWaiter(CHANNEL, loop))
    boxes.sweep(NOW, all_waiters=True)
    assert boxes.waiting_channels == 1
    loop.close()
    boxes.sweep(NOW, all_waiters=True)
    assert (boxes.waiting_channels, len(boxes)) == (0, 0)


def test_clearing_keeps_the_waiters(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(waiter)
    put(boxes, 1, OTHER)
    boxes.clear()
    boxes.sweep(NOW, all_waiters=False)
    assert len(boxes) == 1
    assert boxes.put([CHANNEL], entry(2), NOW) == (0, [waiter])


# Waiters


def test_a_message_wakes_the_first_waiter_and_the_next_message_the_next(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    first, second = LoopWaiter(CHANNEL, loop), LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(first)
    boxes.add_waiter(second)
    assert boxes.put([CHANNEL], entry(1), NOW) == (0, [first])
    assert boxes.put([CHANNEL], entry(2), NOW) == (0, [second])
    assert boxes.put([CHANNEL], entry(3), NOW) == (0, [])


def test_a_newcomer_leaves_what_a_waiter_was_woken_for(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(waiter)
    boxes.put([CHANNEL], entry(1), NOW)
    assert boxes.take(CHANNEL, NOW, woken=False) is None
    assert boxes.remove_waiter(waiter)
    assert boxes.take(CHANNEL, NOW, woken=True) == (CHANNEL, entry(1))


def test_a_woken_waiter_that_leaves_makes_its_message_free(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter = LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(waiter)
    boxes.put([CHANNEL], entry(1), NOW)
    boxes.remove_waiter(waiter)
    assert boxes.take(CHANNEL, NOW, woken=False) == (CHANNEL, entry(1))


def test_removing_a_waiter_twice_changes_nothing(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiter, stays = LoopWaiter(CHANNEL, loop), LoopWaiter(CHANNEL, loop)
    boxes.add_waiter(waiter)
    boxes.add_waiter(stays)
    assert boxes.remove_waiter(waiter)
    assert not boxes.remove_waiter(waiter)
    assert boxes.waiting_channels == 1


def test_a_waiter_on_the_whole_queue_is_woken_for_any_channel(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    waiter = LoopWaiter(QUEUE, loop)
    boxes.add_waiter(waiter)
    assert boxes.put([OTHER], entry(1), NOW) == (0, [waiter])


def test_the_channels_own_waiter_comes_before_one_on_the_whole_queue(
    boxes: Mailboxes, loop: asyncio.AbstractEventLoop
) -> None:
    own, any_of_queue = LoopWaiter(CHANNEL, loop), LoopWaiter(QUEUE, loop)
    boxes.add_waiter(any_of_queue)
    boxes.add_waiter(own)
    assert boxes.put([CHANNEL], entry(1), NOW) == (0, [own])
    assert boxes.put([CHANNEL], entry(2), NOW) == (0, [any_of_queue])


def test_channels_with_receivers_are_counted_once_each(boxes: Mailboxes, loop: asyncio.AbstractEventLoop) -> None:
    waiters = [
        LoopWaiter(CHANNEL, loop),
        LoopWaiter(CHANNEL, loop),
        LoopWaiter(OTHER, loop),
        LoopWaiter("normal", loop),
    ]
    for waiter in waiters:
        boxes.add_waiter(waiter)
    assert boxes.waiting_channels == 2
    for waiter in waiters:
        boxes.remove_waiter(waiter)
    assert boxes.waiting_channels == 0


def test_notifying_a_waiter_of_a_closed_loop_says_so(loop: asyncio.AbstractEventLoop) -> None:
    waiter = LoopWaiter(CHANNEL, loop)
    loop.close()
    assert waiter.notify(None) is False
