"""Who is here: present by one channel or several, and told of those who come and go."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
from channels.exceptions import ChannelFull, MessageTooLarge

from channels_sqlite import Present
from tests.conformance.backends import OURS_ALONE, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import Caller, CallerMaker
from tests.conformance.steps import Clock, assert_nothing_comes, collect

ours = only(OURS_ALONE)

KINDS = pytest.mark.parametrize("kind", ["specific", "normal"])


async def channels(layer: Caller, kind: str, count: int) -> list[str]:
    """Some channels, process-specific ones or normal ones."""
    return [f"normal.{n}" if kind == "normal" else await layer.new_channel() for n in range(count)]


def diff(group: str = "room", **parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "presence.diff", "group": group, "joins": {}, "leaves": {}, "updates": {}} | parts


def shown(listed: Sequence[Present[Any]]) -> list[tuple[str, Any, int]]:
    return [(one.key, one.info, one.channels) for one in listed]


ANN, BOB = {"name": "Ann"}, {"name": "Bob"}


# Being present


@differs(Difference.THERE_IS_PRESENCE)
@KINDS
async def test_who_joins_is_listed_and_the_others_are_told(make: CallerMaker, kind: str) -> None:
    layer = make()
    ann, bob = await channels(layer, kind, 2)
    assert shown(await layer.presence_join("room", ann, "ann", ANN)) == [("ann", ANN, 1)]
    assert shown(await layer.presence_join("room", bob, "bob", BOB)) == [("ann", ANN, 1), ("bob", BOB, 1)]
    assert shown(await layer.presence_list("room")) == [("ann", ANN, 1), ("bob", BOB, 1)]
    assert await layer.receive(ann) == diff(joins={"bob": BOB})
    await assert_nothing_comes(layer, bob)  # of its own arrival, too


@ours
@KINDS
async def test_who_is_present_is_a_member(make: CallerMaker, kind: str) -> None:
    layer = make()
    (ann,) = await channels(layer, kind, 1)
    await layer.presence_join("room", ann, "ann")
    assert await layer.group_count("room") == 1
    await layer.group_send("room", {"n": 1})
    assert await layer.receive(ann) == {"n": 1}


@ours
@KINDS
@pytest.mark.parametrize("way", ["presence_leave", "group_discard"])
async def test_who_leaves_is_no_member_and_the_others_are_told(make: CallerMaker, kind: str, way: str) -> None:
    layer = make()
    ann, bob = await channels(layer, kind, 2)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_join("room", bob, "bob", BOB)
    await layer.receive(ann)
    await getattr(layer, way)("room", bob)
    assert shown(await layer.presence_list("room")) == [("ann", ANN, 1)]
    assert await layer.group_count("room") == 1
    assert await layer.receive(ann) == diff(leaves={"bob": BOB})
    await layer.group_send("room", {"n": 1})
    await assert_nothing_comes(layer, bob)


@ours
async def test_a_person_is_there_once_with_any_number_of_channels(make: CallerMaker, clock: Clock) -> None:
    layer = make()
    watcher, first, second, third = await channels(layer, "specific", 4)
    await layer.presence_watch("room", watcher)
    (came,) = await layer.presence_join("room", first, "ann", {"tab": 1})
    clock.advance(100)
    await layer.presence_join("room", second, "ann", {"tab": 2})
    (now,) = await layer.presence_join("room", third, "ann", {"tab": 3})
    assert (now.key, now.info, now.channels, now.since) == ("ann", {"tab": 3}, 3, came.since)
    assert await layer.presence_count("room") == 1
    await layer.presence_leave("room", second)  # another one is shown
    await layer.presence_leave("room", third)
    assert shown(await layer.presence_list("room")) == [("ann", {"tab": 1}, 1)]
    await layer.presence_leave("room", first)
    assert await layer.presence_list("room") == []
    assert await collect(layer, watcher, 5) == [
        diff(joins={"ann": {"tab": 1}}),
        diff(updates={"ann": {"tab": 2}}),
        diff(updates={"ann": {"tab": 3}}),
        diff(updates={"ann": {"tab": 1}}),
        diff(leaves={"ann": {"tab": 1}}),
    ]
    await assert_nothing_comes(layer, watcher)


@ours
async def test_no_visible_change_is_not_told(make: CallerMaker) -> None:
    layer = make()
    watcher, first, second, third = await channels(layer, "specific", 4)
    await layer.presence_watch("room", watcher)
    for channel in (first, second):
        await layer.presence_join("room", channel, "ann", {"a": 1, "b": 2})
    await layer.presence_join("room", third, "ann", {"b": 2, "a": 1})
    await layer.presence_join("room", first, "ann", {"a": 1, "b": 2})
    await layer.presence_update("room", first, {"b": 2, "a": 1})
    await layer.presence_update("room", second, {"hidden": True})  # another one joined later
    await layer.presence_leave("room", third)
    await layer.group_add("room", first)
    assert await layer.receive(watcher) == diff(joins={"ann": {"a": 1, "b": 2}})
    await assert_nothing_comes(layer, watcher)


@ours
async def test_values_that_are_equal_and_look_different_are_told(make: CallerMaker) -> None:
    layer = make()
    watcher, ann = await channels(layer, "specific", 2)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", ann, "ann", {"n": 1})
    for value in (True, 1.0, math.nan, math.nan):  # the second one looks the same
        await layer.presence_update("room", ann, {"n": value})
    told = await collect(layer, watcher, 4)
    assert [type(one["updates"]["ann"]["n"]) for one in told[1:]] == [bool, float, float]
    await assert_nothing_comes(layer, watcher)


@ours
async def test_a_rejoin_counts_as_joining_and_an_update_does_not(make: CallerMaker) -> None:
    layer = make()
    first, second = await channels(layer, "specific", 2)
    await layer.presence_join("room", first, "ann", {"tab": 1})
    await layer.presence_join("room", second, "ann", {"tab": 2})
    await layer.presence_update("room", first, {"tab": "1, later"})
    assert shown(await layer.presence_list("room")) == [("ann", {"tab": 2}, 2)]
    assert shown(await layer.presence_join("room", first, "ann", {"tab": 3})) == [("ann", {"tab": 3}, 2)]
    await layer.presence_leave("room", first)
    assert shown(await layer.presence_list("room")) == [("ann", {"tab": 2}, 1)]


@ours
@KINDS
async def test_a_join_with_another_key_moves_the_channel(make: CallerMaker, kind: str) -> None:
    layer = make()
    watcher, tab, other = await channels(layer, kind, 3)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", tab, "guest", {"name": "?"})
    assert shown(await layer.presence_join("room", tab, "ann", ANN)) == [("ann", ANN, 1)]
    await layer.presence_join("room", other, "bob", BOB)
    await layer.presence_join("room", tab, "bob", BOB)  # with nothing of Ann's left
    assert await collect(layer, watcher, 4) == [
        diff(joins={"guest": {"name": "?"}}),
        diff(joins={"ann": ANN}, leaves={"guest": {"name": "?"}}),
        diff(joins={"bob": BOB}),
        diff(leaves={"ann": ANN}),
    ]


@ours
async def test_a_key_has_been_there_since_its_first_channel_came(make: CallerMaker, clock: Clock) -> None:
    layer = make()
    first, second = await channels(layer, "specific", 2)
    (came,) = await layer.presence_join("room", first, "ann")
    clock.advance(50)
    (again,) = await layer.presence_join("room", first, "ann")
    await layer.presence_join("room", second, "ann")
    await layer.presence_leave("room", first)
    (later,) = await layer.presence_list("room")
    assert came.since == again.since == later.since
    await layer.presence_leave("room", second)
    clock.advance(50)
    (back,) = await layer.presence_join("room", first, "ann")
    assert back.since >= came.since + 100


@ours
@KINDS
async def test_an_update_is_heard_by_all_and_by_who_makes_it(make: CallerMaker, kind: str) -> None:
    layer = make()
    watcher, ann = await channels(layer, kind, 2)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_watch("room", watcher)
    await layer.presence_update("room", ann, {"name": "Ann B."})
    for channel in (watcher, ann):
        assert await layer.receive(channel) == diff(updates={"ann": {"name": "Ann B."}})
    assert shown(await layer.presence_list("room")) == [("ann", {"name": "Ann B."}, 1)]


@ours
@KINDS
async def test_who_is_not_present_cannot_update(make: CallerMaker, kind: str) -> None:
    layer = make()
    stranger, member, watcher, present = await channels(layer, kind, 4)
    await layer.group_add("room", member)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", present, "ann", ANN)
    await layer.presence_leave("room", present)
    for channel in (stranger, member, watcher, present):
        with pytest.raises(ValueError, match=r"is not present in group 'room'.*join"):
            await layer.presence_update("room", channel, BOB)
    assert await layer.presence_list("room") == []


# Watching


@ours
@KINDS
async def test_a_watcher_hears_of_changes_and_is_no_member(make: CallerMaker, kind: str) -> None:
    layer = make()
    watcher, ann = await channels(layer, kind, 2)
    assert await layer.presence_watch("room", watcher) == []
    await layer.presence_join("room", ann, "ann", ANN)
    assert shown(await layer.presence_watch("other", watcher)) == []
    assert await layer.group_count("room") == 1
    assert await layer.presence_count("room") == 1
    await layer.group_send("room", {"n": 1})
    await layer.presence_update("room", ann, BOB)
    assert await collect(layer, watcher, 2) == [diff(joins={"ann": ANN}), diff(updates={"ann": BOB})]
    await assert_nothing_comes(layer, watcher)


@ours
@KINDS
@pytest.mark.parametrize("way", ["presence_leave", "group_discard"])
async def test_a_watcher_that_leaves_hears_no_more(make: CallerMaker, kind: str, way: str) -> None:
    layer = make()
    watcher, ann = await channels(layer, kind, 2)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", ann, "ann", ANN)
    await getattr(layer, way)("room", watcher)
    await layer.presence_update("room", ann, BOB)
    await assert_nothing_comes(layer, watcher)


@ours
async def test_who_is_present_and_watches_goes_on_to_be_present(make: CallerMaker) -> None:
    layer = make()
    ann, bob = await channels(layer, "specific", 2)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_join("room", bob, "bob", BOB)
    assert shown(await layer.presence_watch("room", ann)) == [("ann", ANN, 1), ("bob", BOB, 1)]
    await assert_nothing_comes(layer, ann)
    assert await layer.group_count("room") == 2


@ours
async def test_a_watcher_that_joins_is_present(make: CallerMaker) -> None:
    layer = make()
    ann, bob = await channels(layer, "specific", 2)
    await layer.presence_watch("room", ann)
    await layer.presence_join("room", bob, "bob", BOB)
    await layer.presence_join("room", ann, "ann", ANN)
    assert await layer.group_count("room") == 2
    await assert_nothing_comes(layer, ann)
    await layer.presence_leave("room", ann)
    assert await layer.group_count("room") == 1
    await layer.presence_update("room", bob, ANN)
    await assert_nothing_comes(layer, ann)


@ours
@KINDS
async def test_a_plain_member_hears_nothing_and_stays(make: CallerMaker, kind: str) -> None:
    layer = make()
    member, ann = await channels(layer, kind, 2)
    await layer.group_add("room", member)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_update("room", ann, BOB)
    await layer.presence_leave("room", ann)
    await assert_nothing_comes(layer, member)
    await layer.presence_leave("room", member)
    await layer.group_send("room", {"n": 1})
    assert await layer.receive(member) == {"n": 1}
    assert await layer.presence_list("room") == []


@ours
@KINDS
async def test_a_member_that_watches_stays_one_when_it_stops(make: CallerMaker, kind: str) -> None:
    layer = make()
    (member,) = await channels(layer, kind, 1)
    await layer.group_add("room", member)
    await layer.presence_watch("room", member)
    await layer.presence_leave("room", member)
    await layer.group_send("room", {"n": 1})
    assert await layer.receive(member) == {"n": 1}


# Exactness


@ours
@KINDS
@pytest.mark.parametrize("way", ["join", "watch"])
async def test_what_the_list_has_taken_in_does_not_come_any_more(make: CallerMaker, kind: str, way: str) -> None:
    layer = make()
    own, ann, bob = await channels(layer, kind, 3)
    await layer.presence_watch("room", own)
    await layer.presence_watch("other", own)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.send(own, {"n": 1})
    await layer.presence_join("other", ann, "ann", ANN)
    if way == "join":
        listed = await layer.presence_join("room", own, "own")
        assert [one.key for one in listed] == ["ann", "own"]
    else:
        listed = await layer.presence_watch("room", own)
        assert [one.key for one in listed] == ["ann"]
    await layer.presence_join("room", bob, "bob", BOB)
    assert await collect(layer, own, 3) == [
        {"n": 1},
        diff("other", joins={"ann": ANN}),
        diff(joins={"bob": BOB}),
    ]


@ours
@KINDS
async def test_diffs_take_no_capacity(make: CallerMaker, kind: str) -> None:
    layer = make(capacity=3)
    watcher, ann = await channels(layer, kind, 2)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.send(watcher, {"n": 1})
    await layer.presence_update("room", ann, BOB)
    for n in (2, 3):
        await layer.send(watcher, {"n": n})
    with pytest.raises(ChannelFull):
        await layer.send(watcher, {"n": 4})
    await layer.presence_leave("room", ann)
    assert await collect(layer, watcher, 6) == [
        diff(joins={"ann": ANN}),
        {"n": 1},
        diff(updates={"ann": BOB}),
        {"n": 2},
        {"n": 3},
        diff(leaves={"ann": BOB}),
    ]


@ours
@KINDS
async def test_more_diffs_than_the_capacity_become_one_with_the_same_effect(make: CallerMaker, kind: str) -> None:
    layer = make(capacity=3)
    watcher, ann, bob, cid = await channels(layer, kind, 4)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_watch("room", watcher)
    await layer.presence_watch("other", watcher)
    await layer.presence_join("other", bob, "bob", BOB)  # a single one of its group
    await layer.presence_join("room", bob, "bob", BOB)
    await layer.presence_leave("room", ann)
    await layer.send(watcher, {"n": 1})
    await layer.presence_update("room", bob, {"name": "Bob B."})
    assert await layer.receive(watcher) == diff("other", joins={"bob": BOB})
    assert await layer.receive(watcher) == {"n": 1}
    assert await layer.receive(watcher) == diff(joins={"bob": {"name": "Bob B."}}, leaves={"ann": ANN})
    # One who comes and goes leaves no trace.
    for _ in range(4):
        await layer.presence_join("room", cid, "cid")
        await layer.presence_leave("room", cid)
    await layer.presence_join("room", ann, "ann", ANN)
    seen: dict[str, Any] = {}
    while (message := await layer.find(watcher)) is not None:
        seen |= message["joins"]
        for key in message["leaves"]:
            del seen[key]
    assert seen == {"ann": ANN}


@ours
@KINDS
async def test_diffs_do_not_expire(make: CallerMaker, clock: Clock, kind: str) -> None:
    layer = make(expiry=10, group_expiry=None)
    watcher, ann = await channels(layer, kind, 2)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.send(watcher, {"n": 1})
    clock.advance(3600)
    assert await layer.receive(watcher) == diff(joins={"ann": ANN})
    await assert_nothing_comes(layer, watcher)


@ours
async def test_a_message_expires_behind_a_diff_that_does_not(make: CallerMaker, clock: Clock) -> None:
    layer = make(expiry=10, group_expiry=None, capacity=1)
    watcher, ann = await channels(layer, "specific", 2)
    await layer.presence_watch("room", watcher)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.send(watcher, {"n": 1})
    clock.advance(20)
    await layer.send(watcher, {"n": 2})
    assert await collect(layer, watcher, 2) == [diff(joins={"ann": ANN}), {"n": 2}]


@ours
@KINDS
async def test_a_diff_that_is_too_large_is_split(make: CallerMaker, kind: str) -> None:
    layer = make(max_message_size=5000)
    watcher, *people = await channels(layer, kind, 5)
    infos = {f"key{n}": {"text": f"{n}" * 3000} for n in range(4)}
    for channel, (key, info) in zip(people, infos.items(), strict=True):
        await layer.presence_join("room", channel, key, info)
    await layer.presence_watch("room", watcher)
    await layer.flush()
    told = await collect(layer, watcher, 4)
    assert {key: info for one in told for key, info in one["leaves"].items()} == infos


# Ends


@ours
async def test_a_flush_ends_it_and_tells_those_who_were_there(make: CallerMaker) -> None:
    layer = make()
    watcher, ann = await channels(layer, "specific", 2)
    for channel in (watcher, "normal"):
        await layer.presence_watch("room", channel)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.flush()
    assert await layer.presence_list("room") == []
    assert await layer.presence_groups("ann") == []
    assert await layer.group_count("room") == 0
    for channel in (watcher, "normal"):  # what waits for them does still
        assert await layer.receive(channel) == diff(joins={"ann": ANN})
    for channel in (watcher, ann, "normal"):
        assert await layer.receive(channel) == diff(leaves={"ann": ANN})
    await layer.presence_join("room", "another", "bob", BOB)
    for channel in (watcher, ann, "normal"):
        await assert_nothing_comes(layer, channel)


@ours
@KINDS
async def test_a_presence_ends_with_its_membership_by_expiry(make: CallerMaker, clock: Clock, kind: str) -> None:
    layer = make(group_expiry=100, polling_interval=0.01)
    watcher, ann, bob, late = await channels(layer, kind, 4)
    await layer.presence_join("room", ann, "ann", ANN)
    await layer.presence_join("room", bob, "bob", BOB)
    await layer.presence_watch("room", late)
    clock.advance(60)
    await layer.group_add("room", bob)
    await layer.presence_watch("room", watcher)
    clock.advance(60)
    assert await layer.receive(watcher) == diff(leaves={"ann": ANN})
    assert shown(await layer.presence_list("room")) == [("bob", BOB, 1)]
    assert await layer.group_count("room") == 1
    await layer.presence_update("room", bob, ANN)
    assert await layer.receive(watcher) == diff(updates={"bob": ANN})
    for channel in (ann, late):  # to watch ends likewise
        await assert_nothing_comes(layer, channel)


@ours
@pytest.mark.parametrize("way", ["join", "update", "add"])
async def test_it_is_renewed(make: CallerMaker, clock: Clock, way: str) -> None:
    layer = make(group_expiry=100, polling_interval=0.01)
    (ann,) = await channels(layer, "specific", 1)
    await layer.presence_join("room", ann, "ann", ANN)
    clock.advance(60)
    if way == "join":
        await layer.presence_join("room", ann, "ann", ANN)
    elif way == "update":
        await layer.presence_update("room", ann, ANN)
    else:
        await layer.group_add("room", ann)
    clock.advance(60)
    await layer.presence_join("room", "normal", "marker")
    await layer.group_send("room", {"n": 1})
    assert await layer.receive(ann) == diff(joins={"marker": {}})
    assert await layer.receive(ann) == {"n": 1}
    assert [one.key for one in await layer.presence_list("room")] == ["ann", "marker"]


# Where somebody is, and how many


@ours
async def test_where_a_key_is_present(make: CallerMaker) -> None:
    layer = make()
    first, second = await channels(layer, "specific", 2)
    await layer.presence_join("b", first, "ann")
    await layer.presence_join("a", first, "ann")
    await layer.presence_join("a", second, "ann")
    await layer.presence_join("c", second, "bob")
    await layer.presence_watch("d", first)
    assert await layer.presence_groups("ann") == ["a", "b"]
    assert await layer.presence_groups("bob") == ["c"]
    assert await layer.presence_groups("nobody") == []
    assert [await layer.presence_count(group) for group in "abcd"] == [1, 1, 1, 0]


@ours
async def test_the_list_is_by_key(make: CallerMaker) -> None:
    layer = make()
    keys = ["b", "a", "Ä", "z", "A", "\U0001f600", "\N{FULLWIDTH LATIN SMALL LETTER A}"]
    for n, key in enumerate(keys):
        await layer.presence_join("room", f"channel{n}", key)
    assert [one.key for one in await layer.presence_list("room")] == sorted(keys)


# What is refused


@ours
@pytest.mark.parametrize("key", [None, 1, b"ann", ["ann"]], ids=repr)
async def test_a_key_is_a_str(subject: Caller, key: object) -> None:
    with pytest.raises(TypeError, match="key must be a str"):
        await subject.presence_join("room", "channel", key)
    with pytest.raises(TypeError, match="key must be a str"):
        await subject.presence_groups(key)
    assert await subject.presence_list("room") == []


@ours
@pytest.mark.parametrize("key", ["", "x" * 201, "lone \ud800"], ids=["empty", "long", "surrogate"])
async def test_a_key_has_1_to_200_characters(subject: Caller, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await subject.presence_join("room", "channel", key)
    with pytest.raises(ValueError, match="key"):
        await subject.presence_groups(key)
    longest = "\U0001f600" * 200
    assert [one.key for one in await subject.presence_join("room", "channel", longest)] == [longest]
    assert await subject.presence_groups(longest) == ["room"]


@ours
@pytest.mark.parametrize(
    ("info", "error", "text"),
    [
        ([], TypeError, "info: must be a dict"),
        ({"when": object()}, TypeError, r"info\['when'\]: object is not serializable"),
        ({"__asgi_channel__": "x"}, ValueError, "info has the key"),
        ({"text": "x" * 4096}, MessageTooLarge, "info: encoded it has 4105 bytes, 4096 are allowed"),
    ],
    ids=["list", "object", "key", "size"],
)
async def test_an_info_is_a_small_message(subject: Caller, info: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        await subject.presence_join("room", "channel", "ann", info)
    await subject.presence_join("room", "channel", "ann", {"text": "x" * (4096 - 9)})
    with pytest.raises(error, match=text):
        await subject.presence_update("room", "channel", info)
    assert shown(await subject.presence_list("room")) == [("ann", {"text": "x" * (4096 - 9)}, 1)]


@ours
async def test_no_info_is_an_empty_one(subject: Caller) -> None:
    assert shown(await subject.presence_join("room", "channel", "ann")) == [("ann", {}, 1)]
    await subject.presence_update("room", "channel", ANN)
    await subject.presence_update("room", "channel", None)
    assert shown(await subject.presence_list("room")) == [("ann", {}, 1)]


@ours
@pytest.mark.parametrize("name", ["", "with space", "x" * 100, None])
async def test_bad_names_are_refused(subject: Caller, name: Any) -> None:
    for call in (
        subject.presence_join(name, "channel", "ann"),
        subject.presence_join("room", name, "ann"),
        subject.presence_update(name, "channel", {}),
        subject.presence_update("room", name, {}),
        subject.presence_leave(name, "channel"),
        subject.presence_leave("room", name),
        subject.presence_watch(name, "channel"),
        subject.presence_watch("room", name),
        subject.presence_list(name),
        subject.presence_count(name),
    ):
        with pytest.raises(TypeError, match="name must be a string"):
            await call
