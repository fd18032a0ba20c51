"""A great batch holds up no event loop: its thread encodes it and writes it, in its place among the sends."""

import asyncio
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import pytest
from django.utils.functional import lazystr
from django.utils.translation import override

from channels_sqlite.codec import Codec
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.sending import INLINE_BYTES, ROW_BYTES
from tests.faults.support import query, receive, write_lock
from tests.support import inside
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory

MANY = 20_000
MOST_AT_ONCE = INLINE_BYTES // ROW_BYTES + 1

language: ContextVar[str] = ContextVar("language", default="none")


@pytest.fixture
def threads_of_encoding(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Which thread encoded each message."""
    found: list[threading.Thread] = []
    encode = Codec.encode

    def noting(codec: Codec, message: Mapping[str, object], path: str = "message") -> bytes:
        found.append(threading.current_thread())
        return encode(codec, message, path)

    monkeypatch.setattr(Codec, "encode", noting)
    return found


def numbers(path: Any) -> int:
    count: int = query(path, "SELECT count(*) FROM channels_sqlite_message")[0][0]
    return count


@pytest.mark.parametrize("to", ["normal", "group"])
async def test_the_thread_encodes_and_writes_what_would_hold_up_the_loop(
    to: str, make_layer: LayerFactory, database: ChannelDatabase, threads_of_encoding: list[threading.Thread]
) -> None:
    layer = make_layer(capacity=2 * MANY)
    messages = [{"n": n} for n in range(MANY)]
    if to == "group":
        await layer.group_add("room", "normal")
        sending = layer.group_send_many("room", messages)
    else:
        sending = layer.send_many("normal", messages)
    await sending
    here = threads_of_encoding.count(threading.current_thread())
    assert 0 < here <= MOST_AT_ONCE
    assert threads_of_encoding.count(inside.thread_of(engine_of(layer)) or threading.main_thread()) == MANY - here
    assert numbers(database.path) == MANY
    assert (await receive(layer, "normal"))["n"] == 0


async def test_a_few_are_written_at_once(make_layer: LayerFactory, threads_of_encoding: list[threading.Thread]) -> None:
    layer = make_layer()
    await layer.send("normal", {"n": 0})
    before = engine_of(layer).outbox.commits
    await layer.send_many("normal", [{"n": n} for n in range(1, 100)])
    assert engine_of(layer).outbox.commits == before + 1
    assert set(threads_of_encoding) == {threading.current_thread()}


async def test_a_great_batch_keeps_its_place_among_the_sends(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=10_000)
    await layer.send("normal", {"n": 0})
    await asyncio.gather(
        layer.send("normal", {"n": 1}),
        layer.send_many("normal", [{"n": n} for n in range(2, 1002)]),
        layer.send("normal", {"n": 1002}),
        layer.send_many("normal", [{"n": 1003}]),
    )
    assert [(await receive(layer, "normal"))["n"] for _ in range(1004)] == list(range(1004))


async def test_what_is_wrong_far_behind_is_found_before_anything_is_written(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer(capacity=10_000)
    messages: list[dict[str, object]] = [{"n": n} for n in range(3000)]
    messages[2999] = {"n": object()}
    with pytest.raises(TypeError, match=r"^messages\[2999\]\['n'\]"):
        await layer.send_many("normal", messages)
    assert numbers(database.path) == 0
    await layer.send("normal", {"n": "works"})
    assert await receive(layer, "normal") == {"n": "works"}


async def test_what_depends_on_the_context_is_as_it_was_at_the_call(make_layer: LayerFactory) -> None:
    layer = make_layer(capacity=10_000)
    language.set("of the caller")

    class Spoken:
        def __str__(self) -> str:
            return language.get()

    with override("de"):
        await layer.send_many("normal", [{"text": lazystr(Spoken())} for _ in range(1000)])
    texts = {(await receive(layer, "normal"))["text"] for _ in range(1000)}
    assert texts == {"of the caller"}


async def test_large_messages_count_by_their_size(
    make_layer: LayerFactory, threads_of_encoding: list[threading.Thread]
) -> None:
    layer = make_layer()
    await layer.send_many("normal", [{"data": b"x" * 200_000} for _ in range(10)])
    assert threads_of_encoding.count(threading.current_thread()) == 2


async def test_a_batch_that_is_cancelled_while_it_waits_is_not_sent(
    make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layer = make_layer(capacity=10_000)
    await layer.send("normal", {"n": 0})
    with write_lock(database.path):
        sending = asyncio.ensure_future(layer.send_many("normal", [{"n": n} for n in range(1000)]))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
    await layer.send("normal", {"n": 1})
    assert numbers(database.path) == 2


async def test_a_broadcast_batch_of_its_own_process_comes_in_steps(make_layer: LayerFactory) -> None:
    """Own rows are delivered without reading them back, and not more of them in one go than of others."""
    layer: SqliteChannelLayer = make_layer(capacity=1000)
    members = [await layer.new_channel() for _ in range(50)]
    for member in members:
        await layer.group_add("room", member)
    await layer.group_send_many("room", [{"n": n} for n in range(100)])
    for member in (members[0], members[-1]):
        assert [(await receive(layer, member))["n"] for _ in range(100)] == list(range(100))
