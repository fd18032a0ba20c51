"""Threads in tests: each with a result, and none left behind."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from channels_sqlite import SyncChannelLayer
from channels_sqlite.layers import SqliteChannelLayer, engine_of
from tests.support import inside
from tests.support.waiting import eventually

__all__ = ["DEADLINE_S", "Threads", "own_layer", "until_waiting"]

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE_S = 20.0
"""For what comes at once when it comes at all; generous, as the machine may be busy."""


class Threads:
    """Runs functions in threads of their own: `threads.start(facade.receive, "channel").result(DEADLINE_S)`."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Call the function in a new thread."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised where the result is wanted
                future.set_exception(error)

        thread = threading.Thread(target=run, name=f"test-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return future

    def join(self) -> None:
        """Wait for all. Raises AssertionError when one does not end."""
        for thread in self._threads:
            thread.join(DEADLINE_S)
        running = [thread.name for thread in self._threads if thread.is_alive()]
        assert not running, f"still running: {running}"


def own_layer(facade: SyncChannelLayer) -> SqliteChannelLayer:
    """The layer of this package behind a facade."""
    assert isinstance(facade.layer, SqliteChannelLayer)
    return facade.layer


def until_waiting(facade: SyncChannelLayer, count: int = 1) -> None:
    """Wait until so many threads sleep in `receive()` or `listen()` of our layer. Nothing public tells."""
    watch = engine_of(own_layer(facade)).watches.threads
    eventually(lambda: inside.sleepers(watch) >= count, DEADLINE_S, what=f"{count} threads wait")
