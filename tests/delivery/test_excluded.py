"""Members that do not get a broadcast: across processes, and in one row."""

import pytest

from tests.faults.support import query, receive
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory


@pytest.mark.parametrize("sender", [0, 1], ids=["sent by its own process", "sent by another"])
async def test_a_broadcast_names_whom_it_leaves_out_once(
    sender: int, make_layer: LayerFactory, database: ChannelDatabase
) -> None:
    layers = [make_layer(), make_layer()]
    members = [await layer.new_channel() for layer in layers for _ in range(2)]
    for member in (*members, "a", "b"):
        await layers[0].group_add("room", member)
    out = [members[0], members[2], "b"]
    await layers[sender].group_send("room", {"n": 1}, exclude=out)
    rows = query(database.path, "SELECT queue, local FROM channels_sqlite_message WHERE kind IN (0, 2) ORDER BY id")
    assert rows == [("room", " ".join(sorted(out))), ("a", None)]
    await layers[sender].group_send("room", {"n": 2})
    for number, member in enumerate(members):
        first = await receive(layers[number // 2], member)
        assert first == {"n": 2 if member in out else 1}
    assert await receive(layers[0], "a") == {"n": 1}
    assert await receive(layers[1], "b") == {"n": 2}
