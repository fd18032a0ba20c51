from collections.abc import Sequence
from typing import Any

from ..consumer import _Application
from .application import ApplicationCommunicator

# JSON is of any type, as in the json module.

class WebsocketCommunicator(ApplicationCommunicator):
    response_headers: list[tuple[bytes, bytes]] | None
    def __init__(
        self,
        application: _Application,
        path: str,
        headers: Sequence[tuple[bytes, bytes]] | None = None,
        subprotocols: Sequence[str] | None = None,
        spec_version: str | None = None,
    ) -> None: ...
    async def connect(self, timeout: float = 1) -> tuple[bool, int | str | None]: ...
    async def send_to(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None: ...
    async def send_json_to(self, data: Any) -> None: ...
    async def receive_from(self, timeout: float = 1) -> str | bytes: ...
    async def receive_json_from(self, timeout: float = 1) -> Any: ...
    async def disconnect(self, code: int = 1000, timeout: float = 1) -> None: ...
