import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from tests.conformance.backends import IN_MEMORY, OURS, Layer, LayerMaker
from tests.conformance.steps import Clock, Receivers
from tests.support.layers import LayerFactory


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs(difference): holds for ours, and must fail on the in-memory layer")


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn round what a test marked `differs` says about the in-memory layer.

    pytest's xfail(strict=True) does the same, but reports each as skipped.
    """
    marker = pyfuncitem.get_closest_marker("differs")
    if marker is None or pyfuncitem.callspec.params.get("backend") != IN_MEMORY:
        return (yield)
    try:
        yield
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails, it differs
        return True
    difference = marker.args[0]
    raise AssertionError(f"the in-memory layer no longer differs: remove Difference.{difference.name}")


@pytest.fixture(params=[IN_MEMORY, OURS])
def backend(request: pytest.FixtureRequest) -> str:
    """The layer under test. Every test of this folder that makes one runs with each of them."""
    name: str = request.param
    return name


@pytest.fixture
def make(backend: str, make_layer: LayerFactory) -> LayerMaker:
    """Makes layers of the backend under test."""

    def make_one(**config: Any) -> Layer:
        return InMemoryChannelLayer(**config) if backend == IN_MEMORY else make_layer(**config)

    return make_one


@pytest.fixture
def subject(make: LayerMaker) -> Layer:
    """A layer of the backend under test, with its default CONFIG."""
    return make()


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    """Starts receivers, and cancels in the end those that still wait."""
    started = Receivers()
    yield started
    for task in started.tasks:
        task.cancel()
    await asyncio.gather(*started.tasks, return_exceptions=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A wall clock that the test can put forward."""
    return Clock(monkeypatch)
