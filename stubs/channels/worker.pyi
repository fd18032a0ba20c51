from collections.abc import Iterable

from asgiref.server import StatelessServer

from .consumer import _Application
from .layers import BaseChannelLayer

class Worker(StatelessServer):
    channels: Iterable[str]
    channel_layer: BaseChannelLayer
    def __init__(
        self,
        application: _Application,
        channels: Iterable[str],
        channel_layer: BaseChannelLayer,
        max_applications: int = 1000,
    ) -> None: ...
    async def handle(self) -> None: ...
    async def listener(self, channel: str) -> None: ...
