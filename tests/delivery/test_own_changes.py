"""Two processes change the membership of one channel at the same moment: the last to commit is right.

What another process has done is read from the database, and what this one does is noted at once.
"""

import asyncio
import threading
from collections.abc import Callable

import pytest

from channels_sqlite.engine.engine import Engine
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from channels_sqlite.storage.store import Store
from channels_sqlite.storage.transactions import Transaction
from channels_sqlite.waking.sender import Sender
from tests.support.layers import LayerFactory
from tests.support.waiting import aeventually, eventually

DEADLINE_S = 20.0
NEVER_S = 3600

MemberOf = Callable[[Store, str, str, str], "tuple[int, float | None] | None"]


async def hears(layer: SqliteChannelLayer, channel: str, other: SqliteChannelLayer) -> bool:
    """Whether the channel gets what the group is sent."""
    await other.group_send("room", {"type": "broadcast"})
    await other.send(channel, {"type": "last"})
    message = await asyncio.wait_for(layer.receive(channel), DEADLINE_S)
    if message["type"] == "last":
        return False
    assert (await asyncio.wait_for(layer.receive(channel), DEADLINE_S))["type"] == "last"
    return True


def in_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def change(engine: Engine, what: str, channel: str) -> Callable[[Transaction], None]:
    operations = engine.operations
    return operations.group_add("room", channel) if what == "add" else operations.group_discard("room", channel)


@pytest.mark.parametrize(("theirs", "own"), [("add", "discard"), ("discard", "add")])
async def test_what_is_read_of_a_membership_does_not_undo_what_is_written_meanwhile(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch, theirs: str, own: str
) -> None:
    layer, other = make_layer(polling_interval=NEVER_S), make_layer()
    channel = await layer.new_channel()
    engine = engine_of(layer)
    if theirs == "discard":
        await layer.group_add("room", channel)
    member: MemberOf = Store.member
    overtaken = threading.Event()

    def overtaking(store: Store, group: str, client: str, name: str) -> "tuple[int, float | None] | None":
        found = member(store, group, client, name)
        if name == channel and not overtaken.is_set():
            overtaken.set()
            in_thread(lambda: engine.outbox.write_blocking(change(engine, own, channel)))
        return found

    monkeypatch.setattr(Store, "member", overtaking)
    await (other.group_add if theirs == "add" else other.group_discard)("room", channel)

    async def was_overtaken() -> bool:
        engine.inbox.reader.pull()
        return overtaken.is_set()

    await aeventually(was_overtaken, DEADLINE_S)
    assert await hears(layer, channel, other) == (own == "add")


@pytest.mark.parametrize("face", ["membership", "presence"])
async def test_what_was_committed_after_a_transaction_is_not_undone_by_its_end(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    """Another process adds the channel again between the commit of who discards it and the note that it is gone."""
    layer, other = make_layer(polling_interval=NEVER_S), make_layer()
    channel = await layer.new_channel()
    if face == "presence":
        await layer.presence_join("room", channel, "ann")
    else:
        await layer.group_add("room", channel)
    await other.send("jobs", {})  # is open
    engine, others = engine_of(layer), engine_of(other)
    member: MemberOf = Store.member
    read = threading.Event()

    def noted(store: Store, group: str, client: str, name: str) -> "tuple[int, float | None] | None":
        found = member(store, group, client, name)
        if name == channel and threading.current_thread() is reader:
            read.set()
        return found

    def comes_between() -> None:
        in_thread(lambda: others.outbox.write_blocking(rejoin))
        reader.start()
        assert read.wait(DEADLINE_S)

    rejoin: Callable[[Transaction], object]
    if face == "presence":
        rejoin = others.inbox.attendance.join("room", channel, "ann", layer_info(others))
    else:
        rejoin = change(others, "add", channel)

    def apply(transaction: Transaction) -> None:
        transaction.after_commit.append(comes_between)
        change(engine, "discard", channel)(transaction)

    reader = threading.Thread(target=engine.inbox.reader.pull)
    monkeypatch.setattr(Store, "member", noted)
    in_thread(lambda: engine.outbox.write_blocking(apply))
    eventually(lambda: not reader.is_alive(), DEADLINE_S)
    engine.inbox.reader.pull()
    assert [(group, name) for group, name, *_ in engine.inbox.members.all()] == [("room", channel)]
    if face == "presence":
        assert [(group, name) for group, name, _ in engine.inbox.audience.all()] == [("room", channel)]
    assert await hears(layer, channel, other)


async def test_a_thread_whose_own_transaction_is_waited_for_goes_on(
    make_layer: LayerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads what it sends itself before its transaction has quite ended; what others say of the channel waits."""
    monkeypatch.setattr(Sender, "send", lambda self, path: False)
    layer, other = make_layer(polling_interval=NEVER_S), make_layer()
    channel = await layer.new_channel()
    engine = engine_of(layer)
    await other.group_discard("room", channel)
    await other.group_add("room", channel)

    payload = engine.codec.encode({"type": "own"})

    def apply(transaction: Transaction) -> None:
        engine.operations.group_send("room", [payload])(transaction)
        change(engine, "add", channel)(transaction)

    in_thread(lambda: engine.outbox.write_blocking(apply))
    assert [(group, name) for group, name, *_ in engine.inbox.members.all()] == [("room", channel)]
    assert (await asyncio.wait_for(layer.receive(channel), DEADLINE_S))["type"] == "own"
    assert await hears(layer, channel, other)


def layer_info(engine: Engine) -> bytes:
    return engine.codec.encode({})
