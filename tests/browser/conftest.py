"""Fixtures: a browser, the example with two server processes, and people who visit it."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import django
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.site import Site, manage
from tests.browser.visitor import DESKTOP, Visitor
from tests.sse.conftest import event_site, project_template  # noqa: F401  # fixtures

# The example's thumbnails and the tutorial's job are tasks, and there are none with a Django that knows no tasks.
collect_ignore = [] if django.VERSION >= (6, 0) else ["test_jobs.py", "test_tutorial.py"]

VisitorFactory = Callable[..., Visitor]

BROWSER_NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def migrated_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's databases, migrated as the README says; tests use copies."""
    data = tmp_path_factory.mktemp("example")
    manage("migrate", data=data)
    manage("migrate", "--database=channels", data=data)
    return data


@pytest.fixture
def site(no_leaks: None, migrated_data: Path, tmp_path: Path) -> Iterator[Site]:
    site = Site(migrated_data, tmp_path)
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def browser(no_leaks: None) -> Iterator[Browser]:
    """Chromium, started for this test: none of its processes outlives it."""
    found = next(filter(None, map(shutil.which, BROWSER_NAMES)), None)
    if found is None:
        pytest.fail(f"none of {', '.join(BROWSER_NAMES)} is on PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=BROWSER_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[VisitorFactory]:
    """Makes people: `visitor("Ann", PHONE)`. Fails the test when a script on one of their pages failed."""
    visitors: list[Visitor] = []

    def make(name: str, size: tuple[int, int] = DESKTOP, *, dark: bool = False) -> Visitor:
        visitors.append(Visitor(browser, name, size, dark=dark))
        return visitors[-1]

    yield make
    assert [error for someone in visitors for error in someone.errors] == []
