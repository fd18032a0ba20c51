"""The example's chat, for pages that come back: what was said while they were away."""

from collections.abc import Iterator

import pytest

from tests.browser.cable import Cable
from tests.browser.conftest import VisitorFactory
from tests.browser.site import Site, manage

pytestmark = [pytest.mark.browser, pytest.mark.processes]


@pytest.fixture
def cable(site: Site) -> Iterator[Cable]:
    """A way to the first server."""
    cable = Cable(site.one.port)
    yield cable
    cable.close()


def test_page_whose_socket_is_cut_catches_up_with_what_was_said_meanwhile(
    site: Site, cable: Cable, visitor: VisitorFactory
) -> None:
    ann = visitor("Ann").enter(cable.url)
    bob = visitor("Bob").enter(site.two.url)
    bob.say("before")
    ann.sees_exactly("before")
    ann.sees_no_banner()
    cable.cut()
    ann.is_disconnected()
    meanwhile = [f"line {number}" for number in range(20)]
    for line in meanwhile:
        bob.say(line)
    bob.sees_exactly("before", *meanwhile)
    cable.mend()
    ann.is_connected()
    ann.sees_banner("caught up")
    ann.sees_exactly("before", *meanwhile)
    bob.say("after")
    ann.sees_exactly("before", *meanwhile, "after")
    ann.say("thanks")
    bob.sees_exactly("before", *meanwhile, "after", "thanks")


def test_page_whose_server_is_killed_catches_up(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    ann.say("before")
    bob.sees_exactly("before")
    site.one.kill()
    ann.is_disconnected()
    bob.say("one")
    bob.say("two")
    bob.sees_exactly("before", "one", "two")
    site.one.start()
    site.one.wait_ready()
    ann.is_connected_to(site.one.pid)
    ann.sees_banner("caught up")
    ann.sees_exactly("before", "one", "two")


def test_two_tabs_catch_up_each_for_itself(site: Site, cable: Cable, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(cable.url)
    bob = visitor("Bob").enter(site.two.url)
    bob.say("one")
    ann.sees_exactly("one")
    tab = ann.another_tab(cable.url)
    tab.sees_exactly("one")
    cable.cut()
    for page in (ann, tab):
        page.is_disconnected()
    bob.say("two")
    bob.say("three")
    bob.sees_exactly("one", "two", "three")
    cable.mend()
    for page in (ann, tab):
        page.page.bring_to_front()  # a page in the background may take its time
        page.is_connected()
        page.sees_banner("caught up")
        page.sees_exactly("one", "two", "three")


def test_page_is_told_that_messages_are_gone(site: Site, cable: Cable, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(cable.url)
    bob = visitor("Bob").enter(site.two.url)
    bob.say("before")
    ann.sees_exactly("before")
    cable.cut()
    ann.is_disconnected()
    bob.say("lost")
    bob.sees_exactly("before", "lost")
    manage("channels_flush", "--yes", data=site.data)
    eve = visitor("Eve").enter(site.two.url)
    eve.say("kept")
    eve.sees_exactly("kept")
    cable.mend()
    ann.is_connected()
    ann.sees_banner("some messages are gone")
    ann.sees_exactly("kept")
