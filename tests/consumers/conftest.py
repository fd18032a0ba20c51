"""The two classes of consumers, and the layers that they run over."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from channels.consumer import AsyncConsumer
from channels.layers import BaseChannelLayer, channel_layers
from django.utils.module_loading import import_string

from channels_sqlite.consumers import DirectDispatch
from tests.support.layers import LayerFactory


class AsChannelsHasIt(AsyncConsumer):
    """Stands in the place of the mixin and does nothing."""


BACKENDS = {
    "memory": "channels.layers.InMemoryChannelLayer",
    "redis-core": "channels_redis.core.RedisChannelLayer",
    "redis-pubsub": "channels_redis.pubsub.RedisPubSubChannelLayer",
}

CLOSING = {"memory": "flush", "redis-core": "close_pools", "redis-pubsub": "flush"}
"""The methods that close the connections of each."""


@pytest.fixture(params=[AsChannelsHasIt, DirectDispatch], ids=["channels", "direct"])
def dispatching(request: pytest.FixtureRequest) -> Any:  # a base class of what a test defines
    """What consumers of a test name first."""
    return request.param


@pytest.fixture
def set_layer() -> Iterator[Callable[[str, BaseChannelLayer | None], None]]:
    """Puts a layer in the place of CHANNEL_LAYERS[alias], or none, until the test ends."""
    before: dict[str, BaseChannelLayer | None] = {}

    def set_layer(alias: str, layer: BaseChannelLayer | None) -> None:
        before.setdefault(alias, channel_layers.backends.get(alias))
        if layer is None:
            channel_layers.backends.pop(alias, None)
        else:
            channel_layers.backends[alias] = layer

    yield set_layer
    for alias, layer in before.items():
        set_layer(alias, layer)


@pytest.fixture(params=["sqlite", *BACKENDS])
async def default_layer(
    request: pytest.FixtureRequest,
    make_layer: LayerFactory,
    redis_port: int | None,
    set_layer: Callable[[str, BaseChannelLayer | None], None],
) -> AsyncIterator[BaseChannelLayer]:
    """The layer under test in the place of CHANNEL_LAYERS["default"]."""
    backend: str = request.param
    if backend == "sqlite":
        ours = make_layer()
        set_layer("default", ours)
        yield ours
        return
    config: dict[str, Any] = {}
    if backend != "memory":
        if redis_port is None:
            pytest.skip("redis-server is not installed")
        config = {"hosts": [("127.0.0.1", redis_port)], "prefix": uuid.uuid4().hex}
    theirs = import_string(BACKENDS[backend])(**config)
    set_layer("default", theirs)
    yield theirs
    await getattr(theirs, CLOSING[backend])()
