"""Fixtures for the whole suite.

Every test is checked for what it leaves behind (`tests/support/leaks.py`). One that must leave something says why:

    @pytest.mark.leaks_allowed(reason="the thread of that library ends with the process")
"""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from channels_sqlite.layers import SqliteChannelLayer
from tests.conformance.differences import Difference, subject_of
from tests.support import locks
from tests.support.databases import ChannelDatabase, channel_database
from tests.support.layers import LayerFactory
from tests.support.leaks import belongings, leftovers
from tests.support.processes import ProcessFactory
from tests.support.redis_server import find_redis_server, running_redis

# A shell starts what runs in its background with SIGINT ignored, and the processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Warnings are errors in the processes that tests start as well, unless a test says otherwise, and why.
os.environ["PYTHONWARNINGS"] = "error"


# Locks are taken in the order of docs/locks.md, in all these processes.
if "CHANNELS_SQLITE_LOCKS" not in os.environ or os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ[locks.VARIABLE] = tempfile.mkdtemp(prefix="locks-")
    atexit.register(shutil.rmtree, os.environ[locks.VARIABLE], ignore_errors=True)
locks.install()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "differs(difference): must fail where `tests.conformance.differences` says so")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under xdist, browser tests take turns: their servers try the same ports."""
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.xdist_group("browser"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn round what a test marked `differs` says of those that differ.

    pytest's xfail(strict=True) does the same, but reports each as skipped.
    """
    marker = pyfuncitem.get_closest_marker("differs")
    if marker is None:
        return (yield)
    difference: Difference = marker.args[0]
    tested = subject_of(pyfuncitem.callspec.params)
    if tested not in difference.value.subjects:
        return (yield)
    try:
        yield
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 - however it fails, it differs
        return True
    raise AssertionError(f"no longer different: take {tested} out of Difference.{difference.name}")


# A machine that cannot run tests with these markers has not tested the package.
REQUIRED = {"browser", "processes"}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under CI, a browser or process test that is skipped has failed."""
    report = yield
    if REQUIRED & {marker.name for marker in item.iter_markers()}:
        fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself: it has no tests with markers, only its folder."""
    report = yield
    if REQUIRED & {*collector.nodeid.split("/")}:
        fail_if_skipped(report)
    return report


def fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure under CI."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} must not be skipped. {reason}"


@pytest.fixture(autouse=True)
def locks_in_order() -> Iterator[None]:
    """Fail a test in which locks were taken against their order, here or in a process that it has started."""
    yield
    found = locks.take_violations()
    if found:
        pytest.fail("\n".join(found), pytrace=False)


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


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int | None]:
    """The port of a redis-server that lives as long as this run of tests; None where it is not installed."""
    if find_redis_server() is None:
        yield None
        return
    with running_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def start_process(no_leaks: None, tmp_path: Path) -> Iterator[ProcessFactory]:
    """Starts processes that run a function of the tests, and kills in the end those that still run."""
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.close()
