from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.utils.module_loading import import_string

from tests.conformance.backends import BACKENDS, REDIS, SUBJECTS, Face, Subject, config_of
from tests.conformance.faces import AsFacade, AsLayer, Caller, CallerMaker
from tests.conformance.steps import Clock
from tests.support.databases import ChannelDatabase


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "subjects(subjects): cannot be asked of every layer and face")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that calls a layer with each of them, in both faces."""
    if "tested" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("subjects")
        metafunc.parametrize("tested", SUBJECTS if marker is None else marker.args[0], ids=str)


@pytest.fixture
async def make(
    no_leaks: None, tested: Subject, redis_port: int | None, database: ChannelDatabase
) -> AsyncIterator[CallerMaker]:
    """Makes layers of the backend under test."""
    if tested.backend == REDIS and redis_port is None:
        pytest.skip("redis-server is not installed (on Debian: apt-get install redis-server)")
    made: list[Caller] = []

    def make_one(**config: Any) -> Caller:
        whole = config_of(tested.backend, config, database=database.alias, redis_port=redis_port)
        layer = import_string(BACKENDS[tested.backend])(**whole)
        made.append(AsLayer(layer) if tested.face is Face.LAYER else AsFacade(layer))
        return made[-1]

    yield make_one
    for caller in made:
        await caller.end()


@pytest.fixture
def subject(make: CallerMaker) -> Caller:
    """A layer of the backend under test, with its default CONFIG."""
    return make()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A wall clock that the test can put forward."""
    return Clock(monkeypatch)
