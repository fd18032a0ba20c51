from collections.abc import Iterable, Mapping

from ..consumer import AsyncConsumer

class AsyncHttpConsumer(AsyncConsumer):
    body: list[bytes]
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    async def send_headers(
        self, *, status: int = 200, headers: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] | None = None
    ) -> None: ...
    async def send_body(self, body: bytes, *, more_body: bool = False) -> None: ...
    async def send_response(
        self,
        status: int,
        body: bytes,
        *,
        headers: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]] | None = None,
    ) -> None: ...
    async def handle(self, body: bytes) -> None: ...
    async def disconnect(self) -> None: ...
