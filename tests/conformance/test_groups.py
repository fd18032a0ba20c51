"""Groups: who is in them, and what reaches whom."""

import asyncio

from tests.conformance.backends import AT_ONCE, only
from tests.conformance.faces import Caller
from tests.conformance.steps import assert_nothing_comes, collect, soon


async def test_group_send_reaches_every_member(subject: Caller) -> None:
    members = [await subject.new_channel() for _ in range(3)] + ["normal-1", "normal-2"]
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 1})
    await subject.group_send("group", {"n": 2})
    for member in members:
        assert await collect(subject, member, 2) == [{"n": 1}, {"n": 2}]


@only(AT_ONCE)
async def test_group_send_reaches_waiting_receivers(subject: Caller) -> None:
    members = [await subject.new_channel() for _ in range(3)] + ["normal"]
    for member in members:
        await subject.group_add("group", member)
    waiting = [await subject.wait_on(member) for member in members]
    await subject.group_send("group", {"n": 1})
    assert await soon(asyncio.gather(*waiting)) == [{"n": 1}] * 4


async def test_group_send_to_nobody_is_nothing(subject: Caller) -> None:
    await subject.group_send("group", {"n": 1})
    await subject.group_add("group", "channel")
    await assert_nothing_comes(subject, "channel")


async def test_member_added_twice_gets_a_message_once(subject: Caller) -> None:
    members = [await subject.new_channel(), "normal"]
    for member in members * 2:
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 1})
    for member in members:
        assert await collect(subject, member, 1) == [{"n": 1}]
        await assert_nothing_comes(subject, member)
        await subject.group_discard("group", member)
    await subject.group_send("group", {"n": 2})
    for member in members:
        await assert_nothing_comes(subject, member)


async def test_adding_again_does_not_lose_what_was_sent_before(subject: Caller) -> None:
    members = [await subject.new_channel(), "normal"]
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 1})
    for member in members:
        await subject.group_add("group", member)
        assert await collect(subject, member, 1) == [{"n": 1}]


async def test_discarded_member_gets_nothing_more(subject: Caller) -> None:
    leaving, staying = await subject.new_channel(), await subject.new_channel()
    for member in (leaving, staying, "leaving", "staying"):
        await subject.group_add("group", member)
    for member in (leaving, "leaving"):
        await subject.group_discard("group", member)
    await subject.group_send("group", {"n": 1})
    for member in (staying, "staying"):
        assert await collect(subject, member, 1) == [{"n": 1}]
    for member in (leaving, "leaving"):
        await assert_nothing_comes(subject, member)


async def test_discarding_what_is_no_member_is_nothing(subject: Caller) -> None:
    specific = await subject.new_channel()
    for _ in range(2):
        await subject.group_discard("no-such-group", "channel")
        await subject.group_discard("no-such-group", specific)
    await subject.group_add("group", "channel")
    await subject.group_discard("group", specific)
    await subject.group_discard("group", "another")
    await subject.group_send("group", {"n": 1})
    assert await collect(subject, "channel", 1) == [{"n": 1}]


async def test_channel_that_joins_later_does_not_get_earlier_messages(subject: Caller) -> None:
    early, late = await subject.new_channel(), await subject.new_channel()
    for member in (early, "early"):
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 1})
    for member in (late, "late"):
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 2})
    for member in (early, "early"):
        assert await collect(subject, member, 2) == [{"n": 1}, {"n": 2}]
    for member in (late, "late"):
        assert await collect(subject, member, 1) == [{"n": 2}]
        await assert_nothing_comes(subject, member)


async def test_member_that_left_and_came_back_does_not_get_what_was_sent_between(subject: Caller) -> None:
    members = [await subject.new_channel(), "normal"]
    for member in members:
        await subject.group_add("group", member)
        await subject.group_discard("group", member)
    await subject.group_send("group", {"n": "between"})
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": "after"})
    for member in members:
        assert await collect(subject, member, 1) == [{"n": "after"}]


async def test_channel_may_be_in_several_groups(subject: Caller) -> None:
    members = [await subject.new_channel(), "normal"]
    for group in ("one", "two"):
        for member in members:
            await subject.group_add(group, member)
    await subject.group_send("one", {"to": "one"})
    await subject.group_send("two", {"to": "two"})
    for member in members:
        assert await collect(subject, member, 2) == [{"to": "one"}, {"to": "two"}]
        await subject.group_discard("one", member)
    await subject.group_send("one", {"to": "one"})
    await subject.group_send("two", {"to": "two"})
    for member in members:
        assert await collect(subject, member, 1) == [{"to": "two"}]
        await assert_nothing_comes(subject, member)


async def test_sends_and_broadcasts_arrive_in_the_order_of_their_calls(subject: Caller) -> None:
    members = [await subject.new_channel(), "normal"]
    for member in members:
        await subject.group_add("group", member)
    for number in range(0, 40, 2):
        for member in members:
            await subject.send(member, {"n": number})
        await subject.group_send("group", {"n": number + 1})
    for member in members:
        assert [message["n"] for message in await collect(subject, member, 40)] == list(range(40))


@only(AT_ONCE)
async def test_group_of_a_thousand(subject: Caller) -> None:
    members = [await subject.new_channel() for _ in range(1000)]
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 1})
    assert await asyncio.gather(*(subject.receive(member) for member in members)) == [{"n": 1}] * 1000
