"""Large messages pass, too large ones are refused before anything is written."""

import pytest
from channels.exceptions import MessageTooLarge

from channels_sqlite.layers import SqliteChannelLayer
from tests.faults.support import count_messages, receive
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory

pytestmark = pytest.mark.faults

MIB = 1024 * 1024


async def test_messages_of_one_and_ten_mebibytes_pass_on_every_way(make_layer: LayerFactory) -> None:
    sender, reader = make_layer(), make_layer()
    specific = await reader.new_channel()
    await reader.group_add("room", specific)
    await reader.group_add("room", "jobs")
    for size_bytes in (MIB, 10 * MIB):
        message = {"type": "x", "data": bytes(range(256)) * (size_bytes // 256)}
        await sender.send(specific, message)
        await sender.send("jobs", message)
        await sender.group_send("room", message)
        for channel in (specific, specific, "jobs", "jobs"):
            assert await receive(reader, channel, 30) == message


async def test_a_hundred_mebibytes_in_a_row_keep_their_order(make_layer: LayerFactory) -> None:
    sender, reader = make_layer(), make_layer()
    channel = await reader.new_channel()
    data = "x" * MIB
    for number in range(100):
        await sender.send(channel, {"n": number, "data": data})
    assert [(await receive(reader, channel, 30))["n"] for _ in range(100)] == list(range(100))


def message_of(encoded_bytes: int) -> dict[str, bytes]:
    """A message that needs exactly so many bytes: map, key, bytes of 32-bit length (https://github.com/msgpack/msgpack)."""
    return {"d": b"x" * (encoded_bytes - 1 - 2 - 5)}


async def refusals(layer: SqliteChannelLayer, message: dict[str, bytes]) -> list[str]:
    """What `send` and `group_send` say to a message that both must refuse."""
    texts = []
    for call in (layer.send("jobs", message), layer.group_send("room", message)):
        with pytest.raises(MessageTooLarge) as raised:
            await call
        texts.append(str(raised.value))
    return texts


@pytest.mark.parametrize("limit", [MIB, 16 * MIB])
async def test_the_limit_is_exact_and_nothing_of_a_larger_message_is_written(
    make_layer: LayerFactory, database: ChannelDatabase, limit: int
) -> None:
    layer = make_layer(max_message_size=limit)
    await layer.group_add("room", "jobs")
    for text in await refusals(layer, message_of(limit + 1)):
        assert str(limit + 1) in text
        assert str(limit) in text
        assert "max_message_size" in text
    assert count_messages(database.path) == 0
    fits = message_of(limit)
    await layer.send("jobs", fits)
    assert await receive(layer, "jobs", 30) == fits


async def test_a_refused_message_opens_no_database(make_layer: LayerFactory, database: ChannelDatabase) -> None:
    database.path.unlink()
    await refusals(make_layer(max_message_size=1000), {"d": b"x" * 1001})


async def test_the_limit_counts_the_message_before_its_encryption(make_layer: LayerFactory) -> None:
    layer = make_layer(max_message_size=MIB, symmetric_encryption_keys=["a key"])
    fits = message_of(MIB)
    await layer.send("jobs", fits)
    assert await receive(layer, "jobs", 30) == fits
    assert len(await refusals(layer, message_of(MIB + 1))) == 2
