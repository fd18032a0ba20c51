"""The facade is for threads without an event loop."""

from __future__ import annotations

from django.core.exceptions import SynchronousOnlyOperation

from channels_sqlite.concurrency.loops import running_loop

__all__ = ["require_no_loop"]


def require_no_loop(method: str) -> None:
    """Raise SynchronousOnlyOperation, which names what to await instead, where this thread's event loop is running."""
    if running_loop() is not None:
        raise SynchronousOnlyOperation(
            f"{method}() of the sync facade was called in a thread whose event loop is running, which it would block; "
            f"there, use the layer itself: {_ASYNC.get(method, f'await get_channel_layer().{method}(...)')}"
        )


_ASYNC = {
    "listen": "while True: message = await get_channel_layer().receive(channel)",
    "send_on_commit": "await get_channel_layer().send(...) after the transaction",
    "group_send_on_commit": "await get_channel_layer().group_send(...) after the transaction",
}
