from collections.abc import Mapping, Sequence
from typing import Any

from django.urls import URLPattern

from .consumer import _Application, _Receive, _Scope, _Send

# The routers return whatever the application does: hence Any, which also fits path().

def get_default_application() -> _Application: ...

class ProtocolTypeRouter:
    application_mapping: Mapping[str, _Application]
    def __init__(self, application_mapping: Mapping[str, _Application]) -> None: ...
    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> Any: ...

class URLRouter:
    routes: Sequence[URLPattern]
    def __init__(self, routes: Sequence[URLPattern]) -> None: ...
    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> Any: ...

class ChannelNameRouter:
    application_mapping: Mapping[str, _Application]
    def __init__(self, application_mapping: Mapping[str, _Application]) -> None: ...
    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> Any: ...
