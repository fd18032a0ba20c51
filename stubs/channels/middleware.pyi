from typing import Any

from .consumer import _Application, _Receive, _Scope, _Send

class BaseMiddleware:
    inner: _Application
    def __init__(self, inner: _Application) -> None: ...
    # Any: whatever the inner application returns.
    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> Any: ...
