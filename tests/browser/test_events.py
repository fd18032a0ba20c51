"""A browser's own EventSource: the server is killed and started again, and the browser has every event once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import VisitorFactory
from tests.facade.setup import facade_over
from tests.sse.site import SERVERS, EventSite
from tests.support.databases import ChannelDatabase
from tests.support.waiting import eventually

pytestmark = pytest.mark.browser

DEADLINE_S = 60.0
"""A browser tries again every 3 seconds."""

HISTORY = {"*": {"size": 1000, "ttl": 300}}


class Speaker:
    """Speaks in the room from this process. Its thread has no event loop, unlike that of the browser."""

    def __init__(self, database: ChannelDatabase, thread: ThreadPoolExecutor) -> None:
        self.said = 0
        self._database = database
        self._thread = thread

    def say(self, times: int) -> None:
        self._thread.submit(self._say, times).result(DEADLINE_S)

    def waits_for_a_listener(self) -> None:
        self._thread.submit(self._wait).result(2 * DEADLINE_S)

    def _wait(self) -> None:
        with facade_over(self._database, history=HISTORY) as layer:
            eventually(lambda: layer.group_count("room"), DEADLINE_S, what="a listener")

    def _say(self, times: int) -> None:
        with facade_over(self._database, history=HISTORY) as layer:
            for _ in range(times):
                layer.group_send("room", {"type": "room.said", "text": f"{self.said}\r\nid: forged\u2028"})
                self.said += 1


@pytest.fixture
def speaker(database: ChannelDatabase) -> Iterator[Speaker]:
    with ThreadPoolExecutor(1) as thread:
        yield Speaker(database, thread)


def hears_all(page: Page, speaker: Speaker) -> None:
    """Return once the page has heard all that was said, once and in order."""

    def heard() -> list[list[str]]:
        events: list[list[str]] = page.evaluate("heard")
        return events

    eventually(lambda: len(heard()) >= speaker.said, DEADLINE_S, what=f"{speaker.said} events")
    events = heard()
    assert [kind for kind, _, _ in events] == ["room.said"] * speaker.said
    assert [data for _, data, _ in events] == [f'{{"text":"{n}\\r\\nid: forged\u2028"}}' for n in range(speaker.said)]
    assert len({position for _, _, position in events}) == speaker.said


def opened(page: Page, times: int) -> None:
    eventually(lambda: page.evaluate("opened") >= times, DEADLINE_S, what=f"{times} connections")


@pytest.mark.parametrize("server", SERVERS)
def test_a_browser_resumes_by_itself_when_its_server_is_killed(
    event_site: EventSite, visitor: VisitorFactory, speaker: Speaker, server: str
) -> None:
    event_site.configure(history=HISTORY)
    event_site.start(server)
    page = visitor("Ann").page
    page.goto(event_site.url)
    opened(page, 1)
    speaker.waits_for_a_listener()  # some servers send the headers before
    speaker.say(3)
    hears_all(page, speaker)
    event_site.kill()
    speaker.say(3)  # while nobody serves
    event_site.start(server)
    hears_all(page, speaker)
    opened(page, 2)
    speaker.say(2)
    event_site.kill()
    event_site.start(server)
    speaker.say(2)
    hears_all(page, speaker)
    page.close()
    event_site.kill()
