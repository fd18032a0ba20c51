"""The page of the feed, and the stream that it reads."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from activity.messages import activity
from channels_sqlite.sse import event_stream

__all__ = ["events", "feed"]

SHOWN = 30


@require_GET
def feed(request: HttpRequest) -> HttpResponse:
    """Show the feed. The list comes with the stream."""
    return render(request, "activity/feed.html", {"shown": SHOWN})


@require_GET
async def events(request: HttpRequest) -> StreamingHttpResponse:
    """Tell what has happened lately, and go on. A browser that lost its connection gets what it missed instead."""
    return event_stream(request, activity.name, last=SHOWN)
