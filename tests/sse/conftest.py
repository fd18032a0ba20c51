"""Fixtures: pages with event streams, over layers of the test's own."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from channels.layers import BaseChannelLayer, channel_layers
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from channels_sqlite.layers import SqliteChannelLayer
from tests.django.project import Project, start_project
from tests.sse import urls
from tests.sse.site import EventSite, Listener
from tests.sse.visits import Visit
from tests.support.databases import ChannelDatabase
from tests.support.layers import LayerFactory
from tests.support.programs import Started

VisitFactory = Callable[..., Visit]
ListenFactory = Callable[..., Awaitable[Listener]]


@pytest.fixture(autouse=True)
def closing_connections(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """A response that ends has Django look at old connections, at those that other tests have left open among them."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:  # any arguments of `event_stream`
    """What the pages give to `event_stream`."""
    yield urls.options
    urls.options.clear()


@pytest.fixture
def set_default() -> Iterator[Callable[[BaseChannelLayer], None]]:
    """Puts a layer in the place of CHANNEL_LAYERS["default"] until the test ends."""
    before = channel_layers.backends.pop("default", None)

    def set_default(layer: BaseChannelLayer) -> None:
        channel_layers.backends["default"] = layer

    with override_settings(ROOT_URLCONF=urls.__name__):
        yield set_default
    channel_layers.backends.pop("default", None)
    if before is not None:
        channel_layers.backends["default"] = before


@pytest.fixture
def make_default(make_layer: LayerFactory, set_default: Callable[[BaseChannelLayer], None]) -> LayerFactory:
    """Makes the default layer, with CONFIG from its arguments."""

    class Default(LayerFactory):
        def __call__(self, alias: str = "channels", /, **config: Any) -> SqliteChannelLayer:
            layer = make_layer(alias, **config)
            set_default(layer)
            return layer

    return Default()


@pytest.fixture
async def visit(no_leaks: None) -> AsyncIterator[VisitFactory]:
    """Opens streams, and leaves those in the end that still run."""
    visits: list[Visit] = []

    def visit(*arguments: Any, **named: Any) -> Visit:  # as Visit has them
        visits.append(Visit(*arguments, **named))
        return visits[-1]

    yield visit
    for one in visits:
        if not one.task.done():
            one.reads.set()
            with contextlib.suppress(Exception):
                await one.leave()


# Real servers


@pytest.fixture(scope="session")
def project_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's files; tests use copies."""
    folder = tmp_path_factory.mktemp("events")
    start_project(folder)
    return folder


@pytest.fixture
def event_site(
    no_leaks: None, database: ChannelDatabase, project_template: Path, tmp_path: Path
) -> Iterator[EventSite]:
    """The site over the test's own database, and nobody who serves it yet."""
    folder = tmp_path / "site"
    shutil.copytree(project_template, folder)
    started = Started(tmp_path)
    try:
        yield EventSite(Project(folder), started, database)
    finally:
        started.end()


@pytest.fixture
async def listen(no_leaks: None) -> AsyncIterator[ListenFactory]:
    """Connects listeners, and has those leave in the end that are still there."""
    listeners: list[Listener] = []

    async def listen(site: EventSite, path: str = "/events", *, slow: bool = False, **named: Any) -> Listener:
        listeners.append(Listener(site, path, **named))
        return await listeners[-1].connect(slow=slow)

    yield listen
    for one in listeners:
        await one.leave()
