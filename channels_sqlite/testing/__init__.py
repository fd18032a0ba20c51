"""For the tests of projects that use the layer: databases of their own for each test, tasks, lost messages.

from channels_sqlite.testing import isolated_channel_layers        # in conftest.py, for pytest
class ChatTests(IsolatedChannelLayersMixin, TestCase): ...         # for manage.py test, and pytest
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from channels_sqlite.testing.isolated import IsolatedChannelLayersMixin
from channels_sqlite.testing.losses import Losses, lossy
from channels_sqlite.testing.running import run_tasks

__all__ = ["IsolatedChannelLayersMixin", "Losses", "isolated_channel_layers", "lossy", "run_tasks"]

isolated_channel_layers: Callable[..., Iterator[None]]
"""A pytest fixture: the test has fresh databases for all layers of CHANNEL_LAYERS; see IsolatedChannelLayersMixin."""


def __getattr__(name: str) -> object:
    if name == "isolated_channel_layers":  # pytest is imported where it is used alone
        from channels_sqlite.testing import fixtures

        return fixtures.isolated_channel_layers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
