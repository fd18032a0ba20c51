"""The facade in a thread whose event loop runs, and in the threads that async code starts."""

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from channels_sqlite import Channel, Group, SyncChannelLayer
from tests.conformance.backends import OURS, REDIS
from tests.facade.configure import only_ours
from tests.facade.steps import let_go
from tests.facade.threads import DEADLINE_S, own_layer

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "send": ("channel", {}),
    "send_on_commit": ("channel", {}),
    "receive": ("channel", 0),
    "listen": ("channel",),
    "new_channel": (),
    "group_send": ("group", {}),
    "group_send_on_commit": ("group", {}),
    "send_many": ("channel", []),
    "send_later": ("channel", {}),
    "cancel": ("ticket",),
    "group_send_many": ("group", []),
    "group_send_later": ("group", {}),
    "group_add": ("group", "channel"),
    "group_discard": ("group", "channel"),
    "group_subscribe": ("group", "channel"),
    "group_history": ("group",),
    "group_channels": ("group",),
    "group_count": ("group",),
    "presence_join": ("group", "channel", "key"),
    "presence_update": ("group", "channel", {}),
    "presence_leave": ("group", "channel"),
    "presence_watch": ("group", "channel"),
    "presence_list": ("group",),
    "presence_count": ("group",),
    "presence_groups": ("key",),
    "flush": (),
    "close": (),
}
"""Every public method of the facade, with arguments that it accepts."""

ADVICE = {
    "send": "await get_channel_layer().send(",
    "send_on_commit": "await get_channel_layer().send(",
    "group_send_on_commit": "await get_channel_layer().group_send(",
    "listen": "await get_channel_layer().receive(",
}
"""The call to use instead, where it is not `await get_channel_layer().<the same>(`."""


def test_every_public_method_is_in_the_list() -> None:
    public = {name for name, _ in inspect.getmembers(SyncChannelLayer, inspect.isfunction) if not name.startswith("_")}
    assert public == set(ARGUMENTS)


@pytest.mark.parametrize("backend", [REDIS, OURS], indirect=True)
async def test_facade_refuses_where_it_would_block_a_loop(facade: SyncChannelLayer) -> None:
    for method, arguments in ARGUMENTS.items():
        with pytest.raises(SynchronousOnlyOperation) as caught:
            getattr(facade, method)(*arguments)
        assert ADVICE.get(method, f"await get_channel_layer().{method}(") in str(caught.value)


@only_ours
async def test_handles_refuse_where_they_would_block_a_loop(facade: SyncChannelLayer) -> None:
    channel: Channel[dict[str, object]] = Channel("channel")
    group: Group[dict[str, object]] = Group("group")
    calls: list[Any] = [
        lambda: channel.send({}),
        lambda: channel.send_on_commit({}),
        lambda: channel.receive(0),
        channel.listen,
        lambda: group.send({}),
        lambda: group.send_on_commit({}),
        lambda: group.add("channel"),
        lambda: group.discard("channel"),
        group.channels,
        group.count,
    ]
    for call in calls:
        with pytest.raises(SynchronousOnlyOperation, match="await get_channel_layer"):
            call()


def use(facade: SyncChannelLayer) -> dict[str, Any]:
    facade.group_add("group", "channel")
    facade.group_send("group", {"n": 1})
    facade.send("channel", {"n": 2})
    first = facade.receive("channel", timeout=DEADLINE_S)
    return {"first": first, "second": facade.receive("channel", timeout=0)}


async def test_facade_works_in_the_threads_of_sync_to_async(facade: SyncChannelLayer) -> None:
    assert await sync_to_async(use)(facade) == {"first": {"n": 1}, "second": {"n": 2}}
    with ThreadPoolExecutor(1) as pool:
        used = await sync_to_async(use, thread_sensitive=False, executor=pool)(facade)
    assert used == {"first": {"n": 1}, "second": {"n": 2}}
    await let_go(facade)


async def test_thread_of_sync_to_async_is_woken_by_a_coroutine(facade: SyncChannelLayer) -> None:
    def receive() -> dict[str, Any]:
        return facade.receive("channel", timeout=DEADLINE_S)

    waiting = asyncio.ensure_future(sync_to_async(receive)())
    await facade.layer.send("channel", {"n": 1})
    assert await asyncio.wait_for(waiting, DEADLINE_S) == {"n": 1}
    await let_go(facade)


def test_facade_works_in_sync_code_that_async_code_calls_from_sync_code(facade: SyncChannelLayer) -> None:
    """As a sync view under ASGI: sync outside, a loop in between, sync inside."""

    async def between() -> dict[str, Any]:
        return await sync_to_async(use)(facade)

    assert async_to_sync(between)() == {"first": {"n": 1}, "second": {"n": 2}}


@only_ours
async def test_facade_and_coroutines_share_what_the_layer_has_open(facade: SyncChannelLayer) -> None:
    layer = own_layer(facade)
    name = await layer.new_channel()
    assert await sync_to_async(facade.new_channel)() != name
    waiting = asyncio.ensure_future(layer.receive(name))
    await sync_to_async(facade.send)(name, {"n": 1})
    assert await asyncio.wait_for(waiting, DEADLINE_S) == {"n": 1}
    assert await sync_to_async(facade.receive)(await _sent(layer, name), DEADLINE_S) == {"n": 2}


async def _sent(layer: Any, name: str) -> str:
    await layer.send(name, {"n": 2})
    return name
