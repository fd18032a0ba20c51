"""The pytest fixture of `testing`, in a module of its own because it imports pytest."""

from __future__ import annotations

import atexit
import multiprocessing
from collections.abc import Iterator

import pytest

from channels_sqlite.testing.isolated import isolated
from channels_sqlite.testing.rooms import room

__all__ = ["isolated_channel_layers"]


@pytest.fixture
def isolated_channel_layers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give the test fresh databases for all layers of CHANNEL_LAYERS; see `testing.IsolatedChannelLayersMixin`."""
    with isolated(keep_files=hasattr(request.cls, "ProtocolServerProcess")):
        yield


def _open_room() -> None:
    """Make the room now: a live server starts before the fixtures of its class's first test, and must know where it is.

    A server's own process that comes by here follows the one that started it.
    """
    if multiprocessing.parent_process() is None:
        opened = room()
        opened.__enter__()
        atexit.register(opened.__exit__, None, None, None)


_open_room()
