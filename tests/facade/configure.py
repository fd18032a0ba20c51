"""Making CHANNEL_LAYERS with one of the backends."""

from typing import Any, Protocol

import pytest

from channels_sqlite import SyncChannelLayer
from tests.conformance.backends import OURS

__all__ = ["Configure", "only_ours"]

only_ours = pytest.mark.parametrize("backend", [OURS], indirect=True)
"""Marks what no other layer promises, or what the others cannot tell about."""


class Configure(Protocol):
    """Puts a layer of the backend under test into CHANNEL_LAYERS, and returns its sync facade."""

    # CONFIG comes from settings, whose values are of any type.
    def __call__(self, alias: str = "default", /, **config: Any) -> SyncChannelLayer: ...
