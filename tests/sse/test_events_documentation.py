"""The code of the page about server-sent events runs as it stands there."""

import asyncio
import re

import pytest

from tests.packaging.pages import Block, blocks, page, table
from tests.sse.conftest import ListenFactory
from tests.sse.site import EventSite

PAGE = "docs/events.md"
SETTINGS = """
    INSTALLED_APPS = [*INSTALLED_APPS, "mysite"]
    ROOT_URLCONF = "mysite.urls"
"""


def with_files() -> dict[str, Block]:
    return {block.file: block for block in blocks(PAGE) if block.file}


def test_all_code_of_the_page_is_run() -> None:
    assert {block.language for block in blocks(PAGE) if not block.file} == {"nginx"}
    assert set(with_files()) == {
        "mysite/reporters.py",
        "mysite/settings.py",
        "mysite/templates/news.html",
        "mysite/tests.py",
        "mysite/urls.py",
        "mysite/views.py",
    }


@pytest.fixture
def documented_site(event_site: EventSite) -> EventSite:
    """The project with the files of the page."""
    files = with_files()
    for name, block in files.items():
        event_site.project.write(name, block.text)
    event_site.project.write("mysite/__init__.py", "")
    event_site.configure()
    event_site.project.settings(SETTINGS)
    event_site.project.settings(files["mysite/settings.py"].text)
    return event_site


@pytest.mark.processes
async def test_the_feed_of_the_page_runs(documented_site: EventSite, listen: ListenFactory) -> None:
    site = documented_site

    async def report(group: str, text: str) -> None:
        script = f"from mysite.reporters import report\nreport({group!r}, {text!r})"
        await asyncio.to_thread(site.project.shell, script)

    site.start("uvicorn")
    await report("news.sport", "Three to one")
    here = await listen(site, "/updates/")
    await report("news.city", "It rains")
    await here.hears('{"text":"Three to one"}', '{"text":"It rains"}')
    site.kill()
    await here.ended()
    await report("news.sport", "Extra time")
    site.start("uvicorn")
    again = await listen(site, "/updates/", source=here.source)
    await again.hears('{"text":"Three to one"}', '{"text":"It rains"}', '{"text":"Extra time"}')
    assert {event.type for event in again.events} == {"news.item"}


@pytest.mark.processes
def test_the_test_of_the_page_passes(documented_site: EventSite) -> None:
    assert "Ran 1 test" in documented_site.project.manage("test", "mysite")


def test_the_settings_for_nginx_are_for_the_view_of_the_page() -> None:
    [nginx] = [block.text for block in blocks(PAGE) if block.language == "nginx"]
    [path] = re.findall(r'path\("(\w+/)", updates\)', with_files()["mysite/urls.py"].text)
    assert f"location /{path} {{" in nginx
    assert f'EventSource("/{path}")' in with_files()["mysite/templates/news.html"].text


def test_the_table_of_arguments_has_every_argument_in_order() -> None:
    [signature] = re.findall(r"^`event_stream\(request, \*(.*)\)`$", page(PAGE), re.MULTILINE)
    names = [part.partition("=")[0].strip() for part in signature.split(",")]
    assert [row[0].strip("`") for row in table(PAGE, "The arguments")] == names
