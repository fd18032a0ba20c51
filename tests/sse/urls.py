"""Pages with event streams."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.urls import path
from django.views.decorators.gzip import gzip_page

from channels_sqlite.sse import event_stream

GROUPS = ("room", "news")


async def events(request: HttpRequest) -> HttpResponseBase:
    return event_stream(request, *GROUPS, **options)


def sync_events(request: HttpRequest) -> HttpResponseBase:
    return event_stream(request, *GROUPS, **options)


async def slow_view(request: HttpRequest) -> HttpResponseBase:
    response = event_stream(request, *GROUPS, **options)
    await asyncio.Event().wait()
    return response


@gzip_page
def zipped(request: HttpRequest) -> HttpResponseBase:
    return event_stream(request, *GROUPS, **options)


async def wrapped(request: HttpRequest) -> HttpResponseBase:
    response = event_stream(request, *GROUPS, **options)
    inner = response.streaming_content

    async def passed_on() -> Any:  # chunks
        async for chunk in inner:  # type: ignore[union-attr]  # an asynchronous one
            yield chunk

    response.streaming_content = passed_on()
    return response


async def other_stream(request: HttpRequest) -> HttpResponseBase:  # a view
    async def text() -> AsyncIterator[bytes]:
        yield b"some "
        yield b"text"

    return StreamingHttpResponse(text())


options: dict[str, Any] = {}
"""What the views give to `event_stream`; tests set it."""

urlpatterns = [
    path("events", events),
    path("sync", sync_events),
    path("slow-view", slow_view),
    path("zipped", zipped),
    path("wrapped", wrapped),
    path("other-stream", other_stream),
]
