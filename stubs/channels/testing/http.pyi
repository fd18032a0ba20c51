from collections.abc import Sequence
from typing import TypedDict

from ..consumer import _Application
from .application import ApplicationCommunicator

class _Response(TypedDict):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

class HttpCommunicator(ApplicationCommunicator):
    body: bytes
    sent_request: bool
    def __init__(
        self,
        application: _Application,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] | None = None,
    ) -> None: ...
    async def get_response(self, timeout: float = 1) -> _Response: ...
