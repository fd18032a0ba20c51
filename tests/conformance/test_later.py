"""Messages that are sent later, and cancelled."""

import logging
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge

from tests.conformance.backends import OURS_ALONE, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import Caller, CallerMaker
from tests.conformance.steps import Clock, assert_nothing_comes, collect
from tests.conformance.test_sending import WRONG_SECONDS
from tests.support.waiting import aeventually

ours = only(OURS_ALONE)

HOUR_S = 3600


async def opened(make: CallerMaker, **config: Any) -> Caller:
    """A layer that receives."""
    layer = make(polling_interval=0.01, **config)
    await layer.new_channel()
    return layer


def after(clock_s: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=clock_s)


@differs(Difference.MESSAGES_CAN_BE_SENT_LATER)
@pytest.mark.parametrize("specific", [True, False], ids=["specific", "normal"])
async def test_a_message_is_sent_at_its_time_and_not_before(make: CallerMaker, clock: Clock, specific: bool) -> None:
    layer = make(polling_interval=0.01)
    own = await layer.new_channel()
    channel = own if specific else "normal"
    assert isinstance(await layer.send_later(channel, {"n": 1}, delay=HOUR_S), str)
    clock.advance(HOUR_S - 60)
    await assert_nothing_comes(layer, channel)
    clock.advance(61)
    assert await layer.receive(channel) == {"n": 1}
    await assert_nothing_comes(layer, channel)


@ours
async def test_they_are_sent_in_the_order_of_their_times_and_then_of_the_calls(make: CallerMaker, clock: Clock) -> None:
    layer = await opened(make)
    moment = after(2 * HOUR_S)
    await layer.send_later("normal", {"n": 3}, at=moment)
    await layer.send_later("normal", {"n": 4}, at=moment.astimezone(timezone(timedelta(hours=9))))
    await layer.send_later("normal", {"n": 1}, delay=HOUR_S)
    await layer.send_later("normal", {"n": 5}, at=moment)
    await layer.send_later("normal", {"n": 2}, delay=HOUR_S + 1)
    clock.advance(3 * HOUR_S)
    assert await collect(layer, "normal", 5) == [{"n": n} for n in (1, 2, 3, 4, 5)]


@ours
async def test_a_time_in_the_past_is_now(make: CallerMaker) -> None:
    layer = await opened(make)
    await layer.send_later("normal", {"n": 1}, at=datetime(1970, 1, 1, tzinfo=timezone.utc))
    await layer.send_later("normal", {"n": 2}, delay=0)
    assert await collect(layer, "normal", 2) == [{"n": 1}, {"n": 2}]


@ours
async def test_a_group_has_the_members_of_that_moment(make: CallerMaker, clock: Clock) -> None:
    layer = make(polling_interval=0.01)
    early, late, left_out = [await layer.new_channel() for _ in range(3)]
    await layer.group_add("room", early)
    await layer.group_send_later("room", {"n": 1}, delay=HOUR_S, exclude={left_out})
    await layer.group_discard("room", early)
    for member in (late, left_out, "normal"):
        await layer.group_add("room", member)
    clock.advance(HOUR_S + 1)
    assert await layer.receive(late) == {"n": 1}
    assert await layer.receive("normal") == {"n": 1}
    await assert_nothing_comes(layer, early)
    await assert_nothing_comes(layer, left_out)


@ours
async def test_the_expiry_counts_from_the_moment_when_it_is_sent(make: CallerMaker, clock: Clock) -> None:
    layer = make(polling_interval=0.01, expiry=100)
    own = await layer.new_channel()
    for channel in (own, "normal"):
        await layer.send_later(channel, {"n": "usual"}, delay=HOUR_S)
        await layer.send_later(channel, {"n": "short"}, delay=HOUR_S, expiry=2)
    await layer.send_later("marker", {"n": "all were sent"}, delay=HOUR_S)
    clock.advance(HOUR_S)
    await layer.receive("marker")
    clock.advance(90)
    for channel in (own, "normal"):
        assert await layer.receive(channel) == {"n": "usual"}
        await assert_nothing_comes(layer, channel)


@ours
async def test_what_is_scheduled_takes_no_capacity(make: CallerMaker) -> None:
    layer = make(capacity=1)
    for _ in range(3):
        await layer.send_later("normal", {"n": "later"}, delay=HOUR_S)
    await layer.send("normal", {"n": 1})
    with pytest.raises(ChannelFull):
        await layer.send("normal", {"n": 2})
    assert await layer.receive("normal") == {"n": 1}


@ours
async def test_flush_drops_what_is_scheduled(make: CallerMaker, clock: Clock) -> None:
    layer = await opened(make)
    ticket = await layer.send_later("normal", {"n": 1}, delay=HOUR_S)
    await layer.flush()
    assert await layer.cancel(ticket) is False
    await layer.send_later("normal", {"n": 2}, delay=HOUR_S)
    clock.advance(HOUR_S + 1)
    assert await layer.receive("normal") == {"n": 2}


# Full channels


@ours
async def test_a_full_channel_is_tried_again_and_keeps_no_other_waiting(make: CallerMaker) -> None:
    layer = await opened(make, capacity=2)
    await layer.send_many("full", [{"n": 1}, {"n": 2}])
    for number in (3, 4, 5):
        await layer.send_later("full", {"n": number}, delay=0)
    await layer.send_later("other", {"n": "other"}, delay=0)
    assert await layer.receive("other") == {"n": "other"}
    assert await collect(layer, "full", 5) == [{"n": n} for n in (1, 2, 3, 4, 5)]


@ours
async def test_later_ones_wait_behind_one_that_is_tried_again(make: CallerMaker, clock: Clock) -> None:
    layer = await opened(make, capacity=2)
    await layer.send_many("full", [{"n": 1}, {"n": 2}], expiry=2 * HOUR_S)
    await layer.send_later("full", {"n": 3}, delay=0, expiry=2 * HOUR_S)
    await layer.send_later("marker", {"n": "3 was tried"}, delay=0)
    await layer.receive("marker")
    assert await layer.receive("full") == {"n": 1}  # there is room now; 3 was told to wait for a second
    await layer.send_later("full", {"n": 4}, delay=0)
    assert await collect(layer, "full", 3) == [{"n": n} for n in (2, 3, 4)]


@ours
async def test_a_channel_that_stays_full_loses_what_is_over(
    make: CallerMaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    layer = await opened(make, capacity=1)
    await layer.send("full", {"n": 1}, expiry=3 * HOUR_S)
    short = await layer.send_later("full", {"n": 2}, delay=0, expiry=10)
    long = await layer.send_later("full", {"n": 3}, delay=0, expiry=2 * HOUR_S)
    await layer.send_later("marker", {"n": "2 was tried"}, delay=0)
    await layer.receive("marker")
    clock.advance(11)
    with caplog.at_level(logging.WARNING, "channels_sqlite"):
        await aeventually(lambda: "stayed full" in caplog.text, what="the message was dropped, with a line")
    assert "'full'" in caplog.text
    assert await layer.cancel(short) is False
    assert await layer.cancel(long) is True


@ours
async def test_what_is_tried_again_can_be_cancelled(make: CallerMaker) -> None:
    layer = await opened(make, capacity=1)
    await layer.send("full", {"n": 1})
    ticket = await layer.send_later("full", {"n": 2}, delay=0)
    await layer.send_later("full", {"n": 3}, delay=0)
    await layer.send_later("marker", {"n": "2 was tried"}, delay=0)
    await layer.receive("marker")
    assert await layer.cancel(ticket) is True
    assert await collect(layer, "full", 2) == [{"n": 1}, {"n": 3}]


# Cancelling


@differs(Difference.MESSAGES_CAN_BE_SENT_LATER)
async def test_what_was_cancelled_is_not_sent(make: CallerMaker, clock: Clock) -> None:
    layer = make(polling_interval=0.01)
    await layer.new_channel()
    ticket = await layer.send_later("normal", {"n": 1}, delay=HOUR_S)
    of_group = await layer.group_send_later("room", {"n": 1}, delay=HOUR_S)
    assert await layer.cancel(ticket) is True
    assert await layer.cancel(ticket) is False
    assert await layer.cancel(of_group) is True
    await layer.send_later("normal", {"n": 2}, delay=HOUR_S)
    clock.advance(HOUR_S + 1)
    assert await layer.receive("normal") == {"n": 2}


@ours
async def test_what_was_sent_cannot_be_cancelled(make: CallerMaker) -> None:
    layer = await opened(make)
    ticket = await layer.send_later("normal", {"n": 1}, delay=0)
    await layer.receive("normal")
    assert await layer.cancel(ticket) is False


@ours
async def test_a_ticket_is_good_in_any_process_and_for_its_prefix_alone(make: CallerMaker) -> None:
    layer, same, other = make(), make(), make(prefix="other")
    ticket = await layer.send_later("normal", {"n": 1}, delay=HOUR_S)
    assert await other.cancel(ticket) is False
    assert await same.cancel(ticket) is True


@ours
@pytest.mark.parametrize(
    "change", ["", "1", "1.2", "x" * 100, None, 7, b"1", "９.0123456789abcdef", "1.0123456789abcdef"]
)
async def test_what_is_no_ticket_cancels_nothing(make: CallerMaker, change: Any) -> None:
    layer = make()
    ticket = await layer.send_later("normal", {"n": 1}, delay=HOUR_S)
    assert await layer.cancel(change) is False
    assert await layer.cancel(f"{ticket}0") is False
    assert await layer.cancel(f"9{ticket}") is False
    assert await layer.cancel("9" * 40 + ticket) is False
    assert await layer.cancel(ticket) is True


# What is refused


@ours
@pytest.mark.parametrize(("delay", "error"), WRONG_SECONDS, ids=str)
async def test_wrong_delays_are_refused(make: CallerMaker, delay: Any, error: type[Exception]) -> None:
    layer = make()
    for call in (layer.send_later("normal", {}, delay=delay), layer.group_send_later("room", {}, delay=delay)):
        with pytest.raises(error, match="delay"):
            await call


@ours
@pytest.mark.parametrize(
    ("times", "error"),
    [
        ({}, TypeError),
        ({"delay": None, "at": None}, TypeError),
        ({"delay": 0, "at": datetime(2050, 1, 1, tzinfo=timezone.utc)}, TypeError),
        ({"at": datetime(2050, 1, 1)}, ValueError),  # noqa: DTZ001  # naive
        ({"at": datetime(2050, 1, 1, tzinfo=timezone.utc).date()}, TypeError),
        ({"at": 2524608000.0}, TypeError),
        ({"at": "2050-01-01T00:00:00Z"}, TypeError),
    ],
    ids=str,
)
async def test_wrong_times_are_refused(make: CallerMaker, times: dict[str, Any], error: type[Exception]) -> None:
    layer = make()
    for call in (layer.send_later("normal", {}, **times), layer.group_send_later("room", {}, **times)):
        with pytest.raises(error):
            await call


@ours
async def test_messages_and_names_are_checked_when_they_are_scheduled(make: CallerMaker) -> None:
    layer = make(max_message_size=1000)
    with pytest.raises(TypeError, match=r"message\['a'\]"):
        await layer.send_later("normal", {"a": math}, delay=0)
    with pytest.raises(MessageTooLarge):
        await layer.group_send_later("room", {"a": "x" * 1000}, delay=0)
    with pytest.raises(TypeError, match="Channel name"):
        await layer.send_later("no name", {}, delay=0)
    with pytest.raises(TypeError, match="Group name"):
        await layer.group_send_later("no name", {}, delay=0)
