"""send and receive: what arrives, where, in which order."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import pytest
from channels.exceptions import MessageTooLarge

from tests.conformance.backends import AS_LAYER, AT_ONCE, only
from tests.conformance.differences import Difference, differs
from tests.conformance.faces import Caller, CallerMaker
from tests.conformance.steps import assert_nothing_comes, collect, soon

EVERY_TYPE: dict[str, Any] = {
    "type": "every.type",
    "none": None,
    "true": True,
    "false": False,
    "small": -7,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "float": 0.1,
    "tiny": 5e-324,
    "infinite": float("-inf"),
    "text": "größe ☃ \0 \N{GRINNING FACE}",
    "empty text": "",
    "bytes": bytes(range(256)),
    "list": [1, "two", [3.0, [b"four", []]]],
    "dict": {"a": {"b": {"": {}}}},
    "": "an empty key",
}


class Level(IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


async def test_message_arrives_as_it_was_sent(subject: Caller) -> None:
    await subject.send("channel", EVERY_TYPE)
    message = await subject.receive("channel")
    assert message == EVERY_TYPE
    assert {key: type(value) for key, value in message.items()} == {
        key: type(value) for key, value in EVERY_TYPE.items()
    }


async def test_empty_message_arrives(subject: Caller) -> None:
    await subject.send("channel", {})
    assert await subject.receive("channel") == {}


async def test_change_after_send_does_not_change_what_arrives(subject: Caller) -> None:
    message = {"n": 1, "list": [1], "dict": {"a": 1}}
    await subject.send("channel", message)
    message.clear()
    await subject.send("other", {})
    assert await subject.receive("channel") == {"n": 1, "list": [1], "dict": {"a": 1}}


async def test_change_to_nested_values_after_send_does_not_change_what_arrives(subject: Caller) -> None:
    inner: list[Any] = [1, {"deep": [2]}]
    for _ in range(2):
        await subject.send("channel", {"inner": inner})
    inner[1]["deep"].append(3)
    inner.clear()
    received = await subject.receive("channel")
    assert received == {"inner": [1, {"deep": [2]}]}
    received["inner"].clear()
    assert await subject.receive("channel") == {"inner": [1, {"deep": [2]}]}


@differs(Difference.BROADCASTS_ARE_COPIED)
async def test_each_member_of_a_group_gets_its_own_copy(subject: Caller) -> None:
    members = [await subject.new_channel() for _ in range(3)] + ["normal"]
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", {"list": [1]})
    for member in members:
        message = await subject.receive(member)
        assert message == {"list": [1]}
        message["list"].append(2)
        message["more"] = True


@differs(Difference.BROADCASTS_ARE_COPIED)
async def test_each_member_gets_its_own_copy_of_a_flat_message(subject: Caller) -> None:
    sent = {"type": "chat.message", "text": "hi", "n": 2**40, "ratio": 0.5, "raw": b"a", "on": True, "off": None}
    members = [await subject.new_channel() for _ in range(3)]
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", sent)
    for member in members:
        message = await subject.receive(member)
        assert message == sent
        assert {key: type(value) for key, value in message.items()} == {key: type(value) for key, value in sent.items()}
        message["text"] = "changed"
        del message["n"]


@differs(Difference.VALUES_BECOME_PLAIN)
async def test_values_arrive_as_plain_types(subject: Caller) -> None:
    sent = {
        "tuple": (1, (2, 3)),
        "bytearray": bytearray(b"a"),
        "level": Level.HIGH,
        "name": Name("b"),
        "map": MappingProxyType({"a": 1}),
        "ordered": OrderedDict(c=1),
    }
    await subject.send("channel", sent)
    message = await subject.receive("channel")
    assert message == {
        "tuple": [1, [2, 3]],
        "bytearray": b"a",
        "level": 3,
        "name": "b",
        "map": {"a": 1},
        "ordered": {"c": 1},
    }
    assert {key: type(value) for key, value in message.items()} == {
        "tuple": list,
        "bytearray": bytes,
        "level": int,
        "name": str,
        "map": dict,
        "ordered": dict,
    }


@differs(Difference.ACCEPTS_MAPPINGS)
async def test_any_mapping_is_a_message(subject: Caller) -> None:
    await subject.send("channel", MappingProxyType({"n": 1}))
    message = await subject.receive("channel")
    assert message == {"n": 1}
    assert type(message) is dict


@differs(Difference.ERRORS_ARE_NO_ASSERTIONS)
@pytest.mark.parametrize("call", ["send", "group_send"])
async def test_message_that_is_no_mapping_raises_type_error(subject: Caller, call: str) -> None:
    for message in (None, 7, "text", b"bytes", ["list"], [("key", "value")], {"a set"}, object()):
        with pytest.raises(TypeError):
            await getattr(subject, call)("name", message)
    await assert_nothing_comes(subject, "name")


@differs(Difference.ERRORS_ARE_NO_ASSERTIONS)
@pytest.mark.parametrize("call", ["send", "group_send"])
async def test_reserved_key_raises_value_error(subject: Caller, call: str) -> None:
    await subject.group_add("name", "name")
    with pytest.raises(ValueError, match="__asgi_channel__"):
        await getattr(subject, call)("name", {"type": "a.message", "__asgi_channel__": "name"})
    await assert_nothing_comes(subject, "name")


async def test_reserved_key_may_stand_further_inside(subject: Caller) -> None:
    await subject.send("channel", {"inner": {"__asgi_channel__": "free text"}})
    assert await subject.receive("channel") == {"inner": {"__asgi_channel__": "free text"}}


@differs(Difference.REFUSES_UNSERIALIZABLE)
@pytest.mark.parametrize("call", ["send", "group_send"])
async def test_unserializable_value_raises_type_error_and_writes_nothing(subject: Caller, call: str) -> None:
    await subject.group_add("name", "name")
    bad: list[Mapping[Any, Any]] = [{"a": {1, 2}}, {"a": 2**63}, {"a": object()}, {1: "a"}, {"a": {None: 1}}]
    bad.append({"a": "\ud800"})
    for message in bad:
        with pytest.raises(TypeError, match="serializable"):
            await getattr(subject, call)("name", message)
    await assert_nothing_comes(subject, "name")


@differs(Difference.LIMITS_MESSAGE_SIZE)
@pytest.mark.parametrize("call", ["send", "group_send"])
async def test_message_beyond_16_mib_raises_message_too_large(subject: Caller, call: str) -> None:
    await subject.group_add("name", "name")
    with pytest.raises(MessageTooLarge):
        await getattr(subject, call)("name", {"data": bytes(16 * 1024 * 1024)})
    await assert_nothing_comes(subject, "name")


async def test_message_of_1_mib_arrives(subject: Caller) -> None:
    data = bytes(range(256)) * 4096
    await subject.send("channel", {"data": data})
    assert (await subject.receive("channel"))["data"] == data


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_messages_arrive_in_order(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    for number in range(100):
        await subject.send(channel, {"n": number})
    assert [message["n"] for message in await collect(subject, channel, 100)] == list(range(100))
    await assert_nothing_comes(subject, channel)


@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_gathered_sends_keep_the_order_of_their_calls(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    await asyncio.gather(*(subject.send(channel, {"n": number}) for number in range(100)))
    assert [message["n"] for message in await collect(subject, channel, 100)] == list(range(100))


async def test_channels_do_not_see_each_others_messages(subject: Caller) -> None:
    first, second = await subject.new_channel(), await subject.new_channel()
    for channel in (first, second, "normal"):
        await subject.send(channel, {"to": channel})
    for channel in ("normal", second, first):
        assert await collect(subject, channel, 1) == [{"to": channel}]
        await assert_nothing_comes(subject, channel)


@only(AT_ONCE)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_waiting_receiver_gets_the_message(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    waiting = await subject.wait_on(channel)
    assert not waiting.done()
    await subject.send(channel, {"n": 1})
    assert await soon(waiting) == {"n": 1}


@only(AT_ONCE)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_each_message_goes_to_exactly_one_receiver(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    waiting = [await subject.wait_on(channel) for _ in range(5)]
    for number in range(5):
        await subject.send(channel, {"n": number})
    assert sorted([(await soon(task))["n"] for task in waiting]) == list(range(5))
    await assert_nothing_comes(subject, channel)


@only(AS_LAYER)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_cancelled_receiver_takes_nothing(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    waiting = await subject.wait_on(channel)
    waiting.cancel()
    await asyncio.wait([waiting])
    await subject.send(channel, {"n": 1})
    assert await subject.receive(channel) == {"n": 1}


@only(AS_LAYER)
@differs(Difference.CANCELLING_SPARES_OTHER_RECEIVERS)
@pytest.mark.parametrize("specific", [False, True], ids=["normal", "specific"])
async def test_cancelling_one_receiver_spares_the_others(subject: Caller, specific: bool) -> None:
    channel = await subject.new_channel() if specific else "channel"
    first, second = await subject.wait_on(channel), await subject.wait_on(channel)
    first.cancel()
    await asyncio.wait([first])
    await subject.send(channel, {"n": 1})
    # Less than the usual deadline: the in-memory layer lets it pass each time.
    assert await asyncio.wait_for(second, 1) == {"n": 1}


@differs(Difference.LOCAL_PART_IS_OPTIONAL)
async def test_receive_up_to_the_mark_gets_messages_of_all_local_parts_with_their_name(subject: Caller) -> None:
    name = await subject.new_channel()
    queue = name[: name.index("!") + 1]
    await subject.send(name, {"n": 1})
    await subject.send(f"{queue}other", {"n": 2})
    await subject.send(queue, {"n": 3})
    await subject.send(name, {"n": 4})
    # Likewise: it has nothing under this name but the third.
    received = [await subject.receive(queue, 1) for _ in range(4)]
    assert received[:2] == [{"n": 1, "__asgi_channel__": name}, {"n": 2, "__asgi_channel__": f"{queue}other"}]
    # Where the name that was asked for is the message's own, nothing needs to be said.
    assert received[2]["n"] == 3
    assert received[3] == {"n": 4, "__asgi_channel__": name}


async def test_receive_of_a_full_name_adds_no_key(subject: Caller) -> None:
    name = await subject.new_channel()
    await subject.send(name, {"n": 1})
    assert await subject.receive(name) == {"n": 1}


@only(AT_ONCE)
@differs(Difference.LOCAL_PART_IS_OPTIONAL)
async def test_receivers_up_to_the_mark_and_of_a_full_name_share_the_messages(subject: Caller) -> None:
    name = await subject.new_channel()
    queue = name[: name.index("!") + 1]
    tasks = [await subject.wait_on(channel) for channel in (queue, name, queue)]
    for number in range(3):
        await subject.send(name, {"n": number})
    done, _ = await asyncio.wait(tasks, timeout=1)
    assert sorted(task.result()["n"] for task in done) == [0, 1, 2]


@only(AT_ONCE)
@differs(Difference.LOCAL_PART_IS_OPTIONAL)
async def test_one_broadcast_wakes_every_receiver_up_to_the_mark(subject: Caller) -> None:
    name = await subject.new_channel()
    queue = name[: name.index("!") + 1]
    tasks = [await subject.wait_on(queue) for _ in range(3)]
    members = {f"{queue}{local}" for local in "abc"}
    for member in members:
        await subject.group_add("group", member)
    await subject.group_send("group", {"n": 1})
    done, _ = await asyncio.wait(tasks, timeout=1)
    assert {task.result()["__asgi_channel__"] for task in done} == members


@differs(Difference.OTHER_PROCESSES_CHANNELS_ARE_REFUSED)
async def test_receive_on_another_process_channel_raises_value_error(subject: Caller) -> None:
    for name in ("specific.somebodyelse!abc", "specific.somebodyelse!", "somebodyelse!abc"):
        with pytest.raises(ValueError, match="specific"):
            await subject.receive(name, 0.5)


@differs(Difference.OTHER_PROCESSES_CHANNELS_ARE_REFUSED)
async def test_layers_own_names_by_their_client_part_alone(make: CallerMaker) -> None:
    first, second = make(), make()
    name = await first.new_channel()
    with pytest.raises(ValueError, match="specific"):
        await second.receive(name, 0.5)
    prefix, client = name[: name.index("!")].split(".")
    invented = f"another-{prefix}.{client}!invented"
    await second.send(invented, {"n": 1})
    assert await first.receive(invented, 1) == {"n": 1}
