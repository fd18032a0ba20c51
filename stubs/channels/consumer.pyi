from collections.abc import Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any, ClassVar, TypeAlias

from .layers import BaseChannelLayer

# Servers, middleware and routers each put their own keys and values in scopes and messages: hence Any.
_Scope: TypeAlias = MutableMapping[str, Any]
_Message: TypeAlias = Mapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[Any]]
_Send: TypeAlias = Callable[[Any], Awaitable[object]]

# What is accepted as an application. Frameworks disagree on the types of the three arguments.
_Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[object]]
# What Channels makes. With Any as its result it also fits path() and re_path(), which expect a view.
_MadeApplication: TypeAlias = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]

def get_handler_name(message: _Message) -> str: ...

class AsyncConsumer:
    channel_layer_alias: ClassVar[str]
    scope: _Scope
    # None where CHANNEL_LAYERS does not have channel_layer_alias; consumers that use the layer need not ask each time.
    channel_layer: BaseChannelLayer
    channel_name: str
    channel_receive: Callable[[], Awaitable[dict[str, Any]]]
    base_send: Callable[[Any], Any]
    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None: ...
    async def dispatch(self, message: _Message) -> None: ...
    async def send(self, message: _Message) -> None: ...
    @classmethod
    def as_asgi(cls, **initkwargs: Any) -> _MadeApplication: ...

class SyncConsumer(AsyncConsumer):
    def send(self, message: _Message) -> None: ...  # type: ignore[override]
