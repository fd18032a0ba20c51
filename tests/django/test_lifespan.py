"""Lifespan: layers close when an ASGI server says that it shuts down."""

import sqlite3
from contextlib import closing

from channels.testing import ApplicationCommunicator

from channels_sqlite import get_channel_layer
from channels_sqlite.lifespan import lifespan
from tests.support.databases import ChannelDatabase

DEADLINE_S = 10


def count(database: ChannelDatabase, table: str) -> int:
    with closing(sqlite3.connect(database.path, timeout=10)) as connection:
        found: int = connection.execute(f"SELECT count(*) FROM channels_sqlite_{table}").fetchone()[0]
        return found


async def test_layers_close_when_the_server_shuts_down(database: ChannelDatabase) -> None:
    server = ApplicationCommunicator(lifespan, {"type": "lifespan", "asgi": {"version": "3.0"}})
    await server.send_input({"type": "lifespan.startup"})
    assert await server.receive_output(DEADLINE_S) == {"type": "lifespan.startup.complete"}
    layer = get_channel_layer()
    await layer.group_add("room", await layer.new_channel())
    assert (count(database, "process"), count(database, "membership")) == (1, 1)
    await server.send_input({"type": "lifespan.shutdown"})
    assert await server.receive_output(DEADLINE_S) == {"type": "lifespan.shutdown.complete"}
    assert (count(database, "process"), count(database, "membership")) == (0, 0)
    await server.wait(DEADLINE_S)
