"""Fixtures: a small site with one WebSocket consumer, and the servers that serve it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.django.project import Project, start_project
from tests.servers.site import ASGI, BARE_ASGI, CONSUMERS, SETTINGS, Site
from tests.support.programs import Started


@pytest.fixture(scope="session")
def site_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files; tests use copies."""
    folder = tmp_path_factory.mktemp("site")
    project = start_project(folder)
    project.settings(SETTINGS)
    project.write("project/consumers.py", CONSUMERS)
    project.write("project/asgi.py", ASGI)
    project.write("project/bare.py", BARE_ASGI)
    return folder


@pytest.fixture
def site(no_leaks: None, site_template: Path, tmp_path: Path) -> Iterator[Site]:
    """The site with a fresh channels database, and nobody who serves it yet."""
    folder = tmp_path / "site"
    shutil.copytree(site_template, folder)
    project = Project(folder)
    project.migrated()
    started = Started(tmp_path)
    site = Site(project, started)
    try:
        yield site
    finally:
        site.kill_what_is_left()
        started.end()
