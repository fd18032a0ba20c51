"""Fixtures for the whole suite.

Every test is checked for what it leaves behind (`tests/support/leaks.py`). One that must leave something says why:

    @pytest.mark.leaks_allowed(reason="the thread of that library ends with the process")
"""

import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.leaks import belongings, leftovers
from tests.support.processes import ProcessFactory

# A shell starts what runs in its background with SIGINT ignored, and the processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Write the markers into the JUnit report: `python -m tests` looks for tests that must not be skipped."""
    for item in items:
        item.user_properties += [("marker", marker.name) for marker in item.iter_markers()]


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, descriptors, processes or SQLite connections behind."""
    allowed = request.node.get_closest_marker("leaks_allowed")
    if allowed is not None:
        if not allowed.kwargs.get("reason"):
            pytest.fail("leaks_allowed needs a reason")
        yield
        return
    before = belongings()
    yield
    left = leftovers(before)
    if left:
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def database(no_leaks: None, tmp_path: Path) -> Iterator[ChannelDatabase]:
    """A fresh migrated database under the alias `channels`, with the documented OPTIONS."""
    with channel_database(tmp_path) as fresh:
        yield fresh


@pytest.fixture
async def make_layer(no_leaks: None, database: ChannelDatabase) -> AsyncIterator[LayerFactory]:
    """Makes layers over the fresh database, and closes them in the end: `make_layer(capacity=5)`."""
    factory = LayerFactory()
    yield factory
    await factory.close()


@pytest.fixture
async def layer(make_layer: LayerFactory) -> SqliteChannelLayer:
    """A layer with the default CONFIG."""
    return make_layer()


@pytest.fixture
def start_process(no_leaks: None, tmp_path: Path) -> Iterator[ProcessFactory]:
    """Starts processes that run a function of the tests, and kills in the end those that still run."""
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.close()
