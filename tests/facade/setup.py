"""What the tests of transactions and workers share: the facade as settings name it, and processes that use it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.test import override_settings

from channels_sqlite import get_sync_channel_layer
from channels_sqlite.sync import SyncChannelLayer
from tests.processes.evidence import query
from tests.support.child import Parent
from tests.support.databases import ChannelDatabase
from tests.support.waiting import eventually

DEADLINE_S = 30.0
"""For what takes milliseconds on a free machine."""

NEVER_S = 600.0
"""A `polling_interval` with which nothing is found by polling: what arrives was announced."""


def channel_layers(database: str, **config: object) -> dict[str, dict[str, object]]:
    """CHANNEL_LAYERS with one layer over the alias `database`."""
    return {
        "default": {
            "BACKEND": "channels_sqlite.layers.SqliteChannelLayer",
            "CONFIG": {"database": database, **config},
        }
    }


@contextmanager
def facade_over(database: ChannelDatabase, **config: object) -> Iterator[SyncChannelLayer]:
    """The facade of a layer with this CONFIG, closed in the end."""
    with override_settings(CHANNEL_LAYERS=channel_layers(database.alias, **config)):
        layer = get_sync_channel_layer()
        try:
            yield layer
        finally:
            layer.close()


def facade_in(parent: Parent) -> SyncChannelLayer:
    """The facade in a process that a test started, with the CONFIG that the test gave."""
    settings.CHANNEL_LAYERS = channel_layers(parent.database.alias, **parent.job["config"])
    return get_sync_channel_layer()


def answer_what_comes(parent: Parent) -> None:
    """For each channel that the test names, receive one message there and say it; None when there was none."""
    layer = facade_in(parent)
    parent.say("ready")
    while True:
        try:
            channel, timeout_s = parent.hear()
        except EOFError:
            break
        try:
            parent.say(layer.receive(channel, timeout=timeout_s))
        except TimeoutError:
            parent.say(None)
    layer.close()


def until_heard_of(database: ChannelDatabase, channel: str, count: int = 1) -> None:
    """Wait until so many processes want to be woken for messages on `channel`."""
    statement = "SELECT count(*) FROM channels_sqlite_listener WHERE channel = ?"
    eventually(
        lambda: query(database, statement, channel)[0][0] >= count, DEADLINE_S, what=f"{count} wait on {channel}"
    )


def is_empty(layer: SyncChannelLayer, channel: str) -> bool:
    """Whether nothing waits on `channel`."""
    try:
        layer.receive(channel, timeout=0)
    except TimeoutError:
        return True
    return False


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Start `function` in a thread; call what is returned for its result, or its error."""
    outcome: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(function())
        except BaseException as error:  # noqa: BLE001  # raised where the result is wanted
            errors.append(error)

    thread = threading.Thread(target=run, name="of the test", daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(DEADLINE_S)
        if errors:
            raise errors[0]
        assert not thread.is_alive(), "the thread hangs"
        return outcome[0]

    return result
