"""Closing layers when an ASGI server shuts down: the ASGI lifespan protocol
(https://asgi.readthedocs.io/en/latest/specs/lifespan.html).

Layers close themselves when the interpreter ends. Uvicorn never gets there when it is told to end by SIGTERM: after its
own shutdown it raises the signal again, with the default handler, which kills the process. Lifespan comes before that.
"""

from __future__ import annotations

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from channels.layers import channel_layers

from channels_sqlite.layers import SqliteChannelLayer

__all__ = ["lifespan"]


async def lifespan(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Close this process's layers at the server's shutdown; an ASGI application for scopes of the type "lifespan".

    In asgi.py: `ProtocolTypeRouter({"http": ..., "websocket": ..., "lifespan": lifespan})`.
    """
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            for layer in list(channel_layers.backends.values()):
                if isinstance(layer, SqliteChannelLayer):
                    await layer.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
