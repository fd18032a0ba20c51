"""What the benchmarks ask of a channel layer."""

from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["Layer", "SyncLayer"]


class Layer(Protocol):
    """The part of the channel-layer specification that the scenarios use."""

    async def send(self, channel: str, message: dict[str, object]) -> None: ...

    # Any: the fields of a message are known to the scenario that sent it, not to the layer.
    async def receive(self, channel: str) -> Mapping[str, Any]: ...

    async def new_channel(self) -> str: ...

    async def group_add(self, group: str, channel: str) -> None: ...

    async def group_send(self, group: str, message: dict[str, object]) -> None: ...


class SyncLayer(Protocol):
    """The part of the sync facade that the scenarios use."""

    def send(self, channel: str, message: dict[str, object]) -> None: ...

    def group_send(self, group: str, message: dict[str, object]) -> None: ...
