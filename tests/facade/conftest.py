import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from channels.layers import channel_layers
from django.test import override_settings

from channels_sqlite import SyncChannelLayer, get_sync_channel_layer
from tests.facade.backends import BACKENDS, OURS, REDIS, Configure
from tests.facade.differences import Difference
from tests.facade.threads import Threads
from tests.support.databases import ChannelDatabase
from tests.support.redis_server import find_redis_server, running_redis


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "facade_differs(difference): must fail over the backends that it names")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn round what a test marked `facade_differs` says about the backends that differ."""
    marker = pyfuncitem.get_closest_marker("facade_differs")
    if marker is None:
        return (yield)
    difference: Difference = marker.args[0]
    if pyfuncitem.callspec.params["backend"] not in difference.value.backends:
        return (yield)
    try:
        yield
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails, it differs
        return True
    raise AssertionError(f"no longer different: take this backend out of Difference.{difference.name}")


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int | None]:
    """The port of a redis-server that lives as long as this run of tests; None where it is not installed."""
    if find_redis_server() is None:
        yield None
        return
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(params=list(BACKENDS.values()), ids=list(BACKENDS))
def backend(request: pytest.FixtureRequest, redis_port: int | None) -> str:
    """BACKEND of the layer under test. Every test of this folder that configures one runs with each of them."""
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
        if backend == OURS:
            config = {"database": database.alias, **config}
        elif backend == REDIS:
            # A prefix of its own keeps each test apart from what others have left in the server.
            config = {"hosts": [("127.0.0.1", redis_port)], "prefix": uuid.uuid4().hex, **config}
        layers[alias] = {"BACKEND": backend, "CONFIG": config}
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
