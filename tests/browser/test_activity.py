"""The example's live feed: server-sent events, and a browser that comes back to a server that was killed."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import VisitorFactory
from tests.browser.site import Site, complaints
from tests.browser.visitor import DEADLINE_MS, PHONE, Visitor
from tests.support.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes]

DEADLINE_S = 60.0
AGAIN_MS = 30_000.0
"""A browser tries again every 3 seconds."""


def sees_exactly(someone: Visitor, *texts: str) -> None:
    """Return when the feed has these lines, the newest first."""
    expect(someone.page.locator("#feed a")).to_have_text(list(texts), timeout=AGAIN_MS)


def test_a_page_hears_of_all_rooms_and_misses_nothing_while_its_server_is_dead(
    site: Site, visitor: VisitorFactory
) -> None:
    ann = visitor("Ann", dark=True)
    ann.page.goto(f"{site.one.url}/chat/")
    ann.page.get_by_role("link", name="Activity", exact=True).click()
    ann.is_connected()
    expect(ann.page.locator("#empty")).to_be_visible(timeout=DEADLINE_MS)
    bob = visitor("Bob").enter(site.two.url, "tea-time")
    bob.say("hello")
    told = ["Bob spoke in tea-time", "Bob came into tea-time"]
    sees_exactly(ann, *told)
    expect(ann.page.locator("#empty")).to_be_hidden(timeout=DEADLINE_MS)

    site.one.kill()
    ann.is_disconnected()
    bob.say("is anybody there?")
    bob.sees_exactly("hello", "is anybody there?")
    site.one.start()
    site.one.wait_ready()
    told = ["Bob spoke in tea-time", *told]
    sees_exactly(ann, *told)
    ann.is_connected()
    bob.say("welcome back")
    told = ["Bob spoke in tea-time", *told]
    sees_exactly(ann, *told)

    # Who comes later sees what was kept.
    eve = visitor("Eve", PHONE)
    eve.page.goto(f"{site.two.url}/activity/")
    sees_exactly(eve, *told)
    eve.sees_nothing_beyond_the_right_edge()
    bob.leave()
    for someone in (ann, eve):
        sees_exactly(someone, "Bob left tea-time", *told)
    ann.page.locator("#feed a").first.click()
    expect(ann.page).to_have_url(f"{site.one.url}/chat/tea-time/")
    eventually(lambda: complaints(site.two.program) == "", DEADLINE_S)
