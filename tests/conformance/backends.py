"""The layers that the suite compares, behind one type."""

from collections.abc import Mapping
from typing import Any, Protocol

from channels.layers import InMemoryChannelLayer

from channels_sqlite.layers import SqliteChannelLayer

__all__ = ["IN_MEMORY", "OURS", "Layer", "LayerMaker"]

IN_MEMORY = "in-memory"
OURS = "sqlite"


class Layer(Protocol):
    """What the Channel Layer Specification asks of a layer, its extensions and `close` included."""

    extensions: list[str]

    async def send(self, channel: str, message: Mapping[str, Any]) -> None: ...

    async def receive(self, channel: str) -> dict[str, Any]: ...

    async def new_channel(self, prefix: str = ...) -> str: ...

    async def group_add(self, group: str, channel: str) -> None: ...

    async def group_discard(self, group: str, channel: str) -> None: ...

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None: ...

    async def flush(self) -> None: ...

    async def close(self) -> None: ...


class LayerMaker(Protocol):
    """Makes a layer of the backend under test from its CONFIG."""

    # CONFIG comes from settings, whose values are of any type.
    def __call__(self, **config: Any) -> Layer: ...


def _both_fit(in_memory: InMemoryChannelLayer, ours: SqliteChannelLayer) -> tuple[Layer, Layer]:
    """For mypy alone: both layers have the type above."""
    return in_memory, ours
