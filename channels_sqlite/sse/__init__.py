"""Server-sent events: groups as a stream that a browser's EventSource reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, StreamingHttpResponse

from channels_sqlite import names
from channels_sqlite.channel_layers import layer_of
from channels_sqlite.sending import require_positive
from channels_sqlite.sse.sources import source_of
from channels_sqlite.sse.stream import EventStream

__all__ = ["event_stream"]

ACCEPT_ENCODING = "HTTP_ACCEPT_ENCODING"
LAST_EVENT_ID = "HTTP_LAST_EVENT_ID"


def event_stream(
    request: HttpRequest,
    *groups: str,
    last: int | None = None,
    # Any: what a message holds is known to who sends it. So functions of a TypedDict fit.
    encode: Callable[[Any], str] | None = None,
    heartbeat: float = 15.0,
    layer: str = "default",
) -> StreamingHttpResponse:
    """Return a response that sends what the groups are sent, for as long as the client is there, as server-sent events.

    Each message is one event: `event:` is its type, `data:` is JSON of the rest or what `encode(message)` returns, and
    `id:` its position, where the group has history. A browser that comes back with the id of its last event gets what
    it missed. `encode` gets the message with its type.

    Args:
        request: whose response it is; of an ASGI server.
        groups: names of groups.
        last: where the client is new, begin with that many of the newest messages of the groups together.
        encode: makes a message the data of an event; line breaks in it are kept.
        heartbeat: seconds from one comment line to the next, by which a client that is gone is found.
        layer: alias in CHANNEL_LAYERS. Over other packages' layers there are no ids.

    Raises:
        RuntimeError: the request came by way of WSGI, where a stream would hold a thread for good.
        TypeError: a name is invalid or none is given, or an argument is of a wrong type.
        ValueError: `last` is less than 1, or `heartbeat` is not finite and greater than 0.
        ImproperlyConfigured: CHANNEL_LAYERS has no such alias, or its CONFIG has faults.
    """
    if getattr(request, "scope", None) is None:
        raise RuntimeError(
            f"event_stream() needs a request of an ASGI server, and got {type(request).__name__}: serve the site with "
            f"ASGI (daphne, uvicorn or hypercorn) instead of WSGI; in tests use AsyncClient or AsyncRequestFactory"
        )
    if not groups:
        raise TypeError("event_stream() needs the name of at least one group")
    for group in groups:
        names.require_group_name(group)
    _require_last(last)
    if encode is not None and not callable(encode):
        raise TypeError(f"encode must be a function of a message, not {type(encode).__name__}")
    require_positive("heartbeat", heartbeat)
    wanted = list(dict.fromkeys(groups))
    stream = EventStream(
        source_of(layer_of(layer), wanted),
        since=request.META.get(LAST_EVENT_ID) or None,
        last=last,
        encode=encode,
        heartbeat_s=heartbeat,
        name=f"event stream of group {', '.join(map(repr, wanted))}",
    )
    if request.method == "HEAD":
        stream.close()
    # GZipMiddleware asks the request; what it compressed would wait in its buffer, and Content-Encoding is for others.
    request.META[ACCEPT_ENCODING] = "identity"
    return StreamingHttpResponse(
        stream, content_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )


def _require_last(last: object) -> None:
    if last is None:
        return
    if isinstance(last, bool) or not isinstance(last, int):
        raise TypeError(f"last must be None or a number of messages, not {last!r} ({type(last).__name__})")
    if last < 1:
        raise ValueError(f"last must be at least 1, not {last!r}")
