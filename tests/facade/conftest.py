from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from channels.layers import channel_layers
from django.test import override_settings

from channels_sqlite import SyncChannelLayer, get_sync_channel_layer
from tests.conformance.backends import BACKENDS, REDIS, config_of
from tests.facade.configure import Configure
from tests.facade.threads import Threads
from tests.support.databases import ChannelDatabase


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest, redis_port: int | None) -> str:
    """The layer under test. Every test of this folder that configures one runs with each of them."""
    name: str = request.param
    if name == REDIS and redis_port is None:
        pytest.skip("redis-server is not installed (on Debian: apt-get install redis-server)")
    return name


@pytest.fixture
def configure(no_leaks: None, backend: str, redis_port: int | None, database: ChannelDatabase) -> Iterator[Configure]:
    """Makes CHANNEL_LAYERS, with CONFIG from its arguments, and closes all layers in the end."""
    made: list[SyncChannelLayer] = []
    layers: dict[str, dict[str, Any]] = {}

    def configure_one(alias: str = "default", /, **config: Any) -> SyncChannelLayer:
        whole = config_of(backend, config, database=database.alias, redis_port=redis_port)
        layers[alias] = {"BACKEND": BACKENDS[backend], "CONFIG": whole}
        overrides.enter_context(override_settings(CHANNEL_LAYERS=dict(layers)))
        made.append(get_sync_channel_layer(alias))
        return made[-1]

    with ExitStack() as overrides:
        yield configure_one
        # Some were made anew when CHANNEL_LAYERS got another alias.
        for facade in [*made, *map(SyncChannelLayer, channel_layers.backends.values())]:
            facade.close()


@pytest.fixture
def facade(configure: Configure) -> SyncChannelLayer:
    """The sync facade of the default layer, with the default CONFIG."""
    return configure()


@pytest.fixture
def threads(no_leaks: None) -> Iterator[Threads]:
    """Starts threads, and waits in the end until all have ended."""
    started = Threads()
    yield started
    started.join()
