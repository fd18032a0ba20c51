"""What `event_stream` takes and refuses, before anything is done, and what the middleware may do with its response."""

import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory, override_settings

from channels_sqlite.sse import event_stream
from tests.sse.conftest import VisitFactory
from tests.sse.test_live import gone, said
from tests.support import inside
from tests.support.layers import LayerFactory


@pytest.fixture
def request_() -> HttpRequest:
    return AsyncRequestFactory().get("/events")


def test_it_returns_a_streaming_response(make_default: LayerFactory, request_: HttpRequest) -> None:
    make_default()
    response = event_stream(request_, "room")
    assert isinstance(response, StreamingHttpResponse)
    assert response.is_async
    response.close()


def test_making_it_opens_nothing(make_default: LayerFactory, request_: HttpRequest) -> None:
    layer = make_default()
    event_stream(request_, "room")
    assert inside.made(layer) is None


def test_under_wsgi_it_says_to_use_asgi(make_default: LayerFactory) -> None:
    make_default()
    with pytest.raises(RuntimeError, match=r"ASGI server, and got WSGIRequest: .*instead of WSGI"):
        event_stream(RequestFactory().get("/events"), "room")


def test_djangos_test_client_of_wsgi_sees_that_too(make_default: LayerFactory) -> None:
    make_default()
    with pytest.raises(RuntimeError, match="instead of WSGI"):
        Client().get("/sync")


@pytest.mark.parametrize(
    ("groups", "arguments", "error", "complaint"),
    [
        ((), {}, TypeError, "at least one group"),
        (("a b",), {}, TypeError, "Group name must be"),
        (("room", None), {}, TypeError, "Group name must be"),
        (("room",), {"last": True}, TypeError, r"last must be None or a number of messages, not True \(bool\)"),
        (("room",), {"last": 1.0}, TypeError, r"last must be .* not 1\.0 \(float\)"),
        (("room",), {"last": "5"}, TypeError, r"last must be .* not '5' \(str\)"),
        (("room",), {"last": 0}, ValueError, "last must be at least 1, not 0"),
        (("room",), {"heartbeat": True}, TypeError, "heartbeat must be a number of seconds"),
        (("room",), {"heartbeat": None}, TypeError, "heartbeat must be a number of seconds"),
        (("room",), {"heartbeat": 0}, ValueError, "heartbeat must be greater than 0"),
        (("room",), {"heartbeat": float("inf")}, ValueError, "heartbeat must be a finite number"),
        (("room",), {"encode": "json"}, TypeError, "encode must be a function of a message, not str"),
        (("room",), {"layer": "nowhere"}, ImproperlyConfigured, "no alias 'nowhere'"),
    ],
)
def test_wrong_arguments_are_refused_where_they_are_given(
    groups: tuple[Any, ...], arguments: dict[str, Any], error: type[Exception], complaint: str, request_: HttpRequest
) -> None:
    with pytest.raises(error, match=complaint):
        event_stream(request_, *groups, **arguments)


# Compression

GZIP = "django.middleware.gzip.GZipMiddleware"
ASKS = {"Accept-Encoding": "gzip, deflate, br"}


async def test_gzip_middleware_leaves_it_as_it_is(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    with override_settings(MIDDLEWARE=[GZIP]):
        here = await visit(headers=ASKS).begun()
        await layer.group_send("room", said(1))
        await here.hears('{"n":1}')
        assert "Content-Encoding" not in here.headers
        await here.leave()
    await gone(layer)


async def test_gzip_page_leaves_it_as_it_is(make_default: LayerFactory, visit: VisitFactory) -> None:
    layer = make_default()
    here = await visit("/zipped", headers=ASKS).begun()
    await layer.group_send("room", said(1))
    await here.hears('{"n":1}')
    assert "Content-Encoding" not in here.headers


async def test_gzip_middleware_compresses_other_streams(visit: VisitFactory, make_default: LayerFactory) -> None:
    make_default()
    with override_settings(MIDDLEWARE=[GZIP]):
        here = visit("/other-stream", headers=ASKS)
        await here.ended()
    assert here.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(b"".join(here.chunks)) == b"some text"


# In users' tests


async def test_djangos_async_client_reads_it(make_default: LayerFactory) -> None:
    layer = make_default()
    response: Any = await AsyncClient().get("/events")  # Any: its type is that of any response
    chunks: AsyncIterator[bytes] = response.streaming_content
    assert await anext(chunks) == b":\n\n"
    await layer.group_send("room", said(1))
    assert await anext(chunks) == b'event: room.said\ndata: {"n":1}\n\n'
    response.close()
    await gone(layer)
