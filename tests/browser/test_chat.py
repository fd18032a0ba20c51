"""The example's chat in real browsers, served by two processes."""

from pathlib import Path

import pytest
from playwright.sync_api import expect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.browser.conftest import VisitorFactory
from tests.browser.site import Server, Site, complaints, manage
from tests.browser.visitor import DEADLINE_MS, PHONE
from tests.support.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes]


def test_what_one_types_appears_at_the_other_process(site: Site, visitor: VisitorFactory, tmp_path: Path) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob", dark=True).enter(site.two.url)
    ann.is_connected_to(site.one.pid)
    bob.is_connected_to(site.two.pid)

    ann.say("Hello, is anybody here?")
    bob.sees_exactly("Hello, is anybody here?")
    bob.say("Yes, over at the other process.")
    ann.sees_exactly("Hello, is anybody here?", "Yes, over at the other process.")
    bob.sees_exactly("Hello, is anybody here?", "Yes, over at the other process.")

    ann.page.screenshot(path=tmp_path / "desktop-light.png")
    bob.page.screenshot(path=tmp_path / "desktop-dark.png")


def test_page_that_joins_later_sees_what_was_said_before_and_what_comes(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    ann.say("before")
    bob.sees_exactly("before")

    eve = visitor("Eve").enter(site.two.url)
    ann.say("after")
    bob.say("and after that")
    # Two senders in two processes: each page has both lines; only the order of one sender's lines is given.
    for someone in (ann, bob, eve):
        expect(someone.bubbles()).to_have_count(3)
    first, *rest = eve.bubbles().all_inner_texts()
    assert (first, sorted(rest)) == ("before", ["after", "and after that"])
    eve.sees_no_banner()


def test_rooms_are_apart(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url, "red")
    bob = visitor("Bob").enter(site.two.url, "blue")
    eve = visitor("Eve").enter(site.two.url, "red")
    bob.say("blue")
    ann.say("red")
    eve.sees_exactly("red")
    ann.sees_exactly("red")
    bob.sees_exactly("blue")


def test_killed_process_does_not_stop_the_other(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    eve = visitor("Eve").enter(site.two.url)
    ann.say("one")
    bob.sees_exactly("one")
    eve.sees_exactly("one")

    site.one.kill()
    ann.is_disconnected()
    expect(ann.page.get_by_role("button", name="Send")).to_be_disabled()

    bob.say("two")
    eve.sees_exactly("one", "two")
    eve.say("three")
    bob.sees_exactly("one", "two", "three")
    bob.is_connected_to(site.two.pid)
    # New pages as well, not only those that were there.
    zoe = visitor("Zoe").enter(site.two.url)
    zoe.say("four")
    bob.sees_exactly("one", "two", "three", "four")


def test_page_reconnects_when_its_server_comes_back(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    bob.say("before")
    ann.sees_exactly("before")

    killed = site.one.pid
    site.one.kill()
    ann.is_disconnected()
    site.one.start()
    site.one.wait_ready()
    ann.is_connected_to(site.one.pid)
    assert site.one.pid != killed

    ann.say("back again")
    bob.sees_exactly("before", "back again")
    bob.say("good")
    ann.sees_exactly("before", "back again", "good")
    ann.sees_people("Ann (you)", "Bob")
    bob.sees_people("Ann", "Bob (you)")


def test_everybody_sees_who_is_here(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    eve = visitor("Eve").enter(site.one.url)
    ann.sees_people("Ann (you)", "Bob", "Eve")
    bob.sees_people("Ann", "Bob (you)", "Eve")
    eve.sees_people("Ann", "Bob", "Eve (you)")
    ann.sees_event("Bob joined")

    bob.page.get_by_role("button", name="Your name").click()
    bob.page.get_by_label("Your name", exact=True).fill("Robert")
    bob.page.get_by_role("button", name="Enter the room").click()
    ann.sees_event("Bob is now called Robert")
    eve.sees_people("Ann", "Eve (you)", "Robert")

    bob.leave()
    ann.sees_event("Robert left")
    ann.sees_people("Ann (you)", "Eve")
    eve.sees_people("Ann", "Eve (you)")


def test_a_person_with_two_tabs_is_here_once_and_leaves_with_the_last(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    ann.sees_people("Ann (you)", "Bob")
    bob.open_another_tab()
    bob.page.goto(f"{site.two.url}/chat/tea-time/")
    bob.is_connected()
    bob.sees_people("Ann", "Bob (you)")
    bob.say("from the second tab")
    ann.sees_exactly("from the second tab")
    ann.sees_people("Ann (you)", "Bob")
    bob.close_tab()
    bob.say("from the first tab")
    ann.sees_exactly("from the second tab", "from the first tab")
    ann.sees_people("Ann (you)", "Bob")
    ann.sees_no_event("Bob left")
    bob.leave()
    ann.sees_event("Bob left")
    ann.sees_people("Ann (you)")


def test_people_of_a_killed_process_are_gone_within_seconds(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    eve = visitor("Eve").enter(site.two.url)
    for someone in (bob, eve):
        someone.sees_event("Eve joined" if someone is bob else "You joined")
    site.one.kill()
    for someone in (bob, eve):
        someone.sees_event("Ann left")
    bob.sees_people("Bob (you)", "Eve")
    ann.is_disconnected()
    site.one.start()
    site.one.wait_ready()
    ann.is_connected()
    ann.sees_people("Ann (you)", "Bob", "Eve")
    bob.sees_event("Ann joined")


def test_the_list_of_rooms_shows_how_many_are_in_each(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url, "red")
    bob = visitor("Bob").enter(site.two.url, "blue")
    eve = visitor("Eve")
    eve.page.goto(f"{site.two.url}/chat/")
    eve.sees_room("red", "1 here")
    eve.sees_room("blue", "1 here")
    zoe = visitor("Zoe").enter(site.one.url, "blue")
    eve.sees_room("blue", "2 here")
    ann.leave()
    eve.sees_room("red", "")
    site.one.kill()
    eve.sees_room("blue", "1 here")
    bob.sees_event(f"{zoe.name} left")


def test_html_is_shown_as_text(site: Site, visitor: VisitorFactory) -> None:
    attack = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
    ann = visitor("<b>Ann</b>").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    ann.say(attack)
    bob.sees_exactly(attack)
    ann.sees_exactly(attack)
    expect(bob.page.locator(".author")).to_have_text("<b>Ann</b>")
    bob.sees_people("<b>Ann</b>", "Bob (you)")
    for someone in (ann, bob):
        assert someone.page.title() == "tea-time · Chat"
        assert someone.page.locator("#room img, #room script, #room b").count() == 0


def test_nothing_sticks_out_on_a_phone(site: Site, visitor: VisitorFactory, tmp_path: Path) -> None:
    eve = visitor("Éva Nagyonhosszúnevű-Kovácsné", PHONE)
    eve.page.goto(f"{site.one.url}/chat")
    eve.sees_nothing_beyond_the_right_edge()
    eve.page.screenshot(path=tmp_path / "phone-rooms.png")

    eve.page.goto(f"{site.one.url}/chat/a-room-whose-name-is-as-long-as-allowed/")
    eve.sees_nothing_beyond_the_right_edge()
    eve.page.screenshot(path=tmp_path / "phone-name.png")

    room = "a-room-whose-name-is-as-long-as-allowed"
    eve.enter(site.one.url, room)
    bob = visitor("Bob").enter(site.two.url, room)
    lines = ("Short.", "w" * 300, "A line that has to be wrapped because it is longer than a phone is wide.")
    for count, line in enumerate(lines, start=1):
        bob.say(line)
        expect(eve.bubbles()).to_have_count(count)
    eve.say("From the phone")
    bob.sees_exactly(*lines, "From the phone")
    eve.sees_exactly(*lines, "From the phone")
    eve.sees_nothing_beyond_the_right_edge()
    for label in ("Message to", "Send", "Messages"):
        expect(eve.page.get_by_label(label).or_(eve.page.get_by_role("button", name=label)).first).to_be_in_viewport()
    expect(eve.bubbles().last).to_be_in_viewport()
    eve.page.screenshot(path=tmp_path / "phone-room.png")


def test_list_of_rooms_leads_into_rooms(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann")
    ann.page.goto(f"{site.one.url}/chat")
    ann.page.get_by_label("Name of a room").fill("!?")
    ann.page.get_by_role("button", name="Enter").click()
    expect(ann.page.get_by_role("alert")).to_contain_text("needs a letter or a digit")

    ann.page.get_by_label("Name of a room").fill("Tea & cake")
    ann.page.get_by_role("button", name="Enter").click()
    expect(ann.page).to_have_url(f"{site.one.url}/chat/tea-cake/")
    ann.page.get_by_label("Your name", exact=True).fill("Ann")
    ann.page.keyboard.press("Enter")
    ann.is_connected()

    bob = visitor("Bob")
    bob.page.goto(f"{site.two.url}/chat/")
    expect(bob.page.locator("#served-by")).to_have_text(str(site.two.pid))
    bob.page.get_by_role("link", name="tea-cake").click()
    expect(bob.page).to_have_url(f"{site.two.url}/chat/tea-cake/")


def test_announcement_appears_in_all_open_rooms(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url, "red")
    bob = visitor("Bob").enter(site.two.url, "blue")
    eve = visitor("Eve", PHONE)
    eve.page.goto(f"{site.one.url}/announce/")
    eve.sees_nothing_beyond_the_right_edge()
    eve.page.get_by_label("Announcement").fill("Tea <b>is</b> ready.")
    eve.page.get_by_role("button", name="Announce").click()
    expect(eve.page.get_by_role("status")).to_have_text("Announced in 2 rooms.", timeout=DEADLINE_MS)
    for someone in (ann, bob):
        someone.sees_announcement("Tea <b>is</b> ready.")
        someone.sees_exactly()


def test_frames_that_no_page_sends_are_refused(site: Site) -> None:
    address = f"ws://127.0.0.1:{site.one.port}/ws/chat/tea-time/"
    bad = (
        "no JSON",
        "[]",
        '{"type": "unknown"}',
        '{"type": "say", "text": "without a name"}',
        '{"type": "join", "person": "p", "name": "   "}',
        '{"type": "join", "person": "p", "name": 7}',
        b"bytes",
    )
    for frame in bad:
        with connect(address, additional_headers={"Origin": site.one.url}) as socket:
            assert '"welcome"' in str(socket.recv(timeout=10))
            socket.send(frame)
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)
            assert socket.close_code == 4400
    assert complaints(site.one.program) == ""


def test_pages_of_other_sites_cannot_connect(site: Site) -> None:
    address = f"ws://127.0.0.1:{site.one.port}/ws/chat/tea-time/"
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(address, additional_headers={"Origin": "https://elsewhere.example"}),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_page_comes_in_by_itself_once_the_database_is_migrated(visitor: VisitorFactory, tmp_path: Path) -> None:
    unmigrated = tmp_path / "unmigrated"
    unmigrated.mkdir()
    manage("migrate", data=unmigrated)
    server = Server(unmigrated, tmp_path / "server.log")
    server.start()
    try:
        server.wait_ready()
        ann = visitor("Ann")
        ann.enter_without_waiting(server.url)
        server.program.prints("migrate --database=channels")
        ann.is_disconnected()
        manage("migrate", "--database=channels", data=unmigrated)
        ann.is_connected()
        ann.say("now it works")
        ann.sees_exactly("now it works")
    finally:
        server.stop()


def test_server_without_trouble_prints_nothing(site: Site, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").enter(site.one.url)
    bob = visitor("Bob").enter(site.two.url)
    ann.say("hello")
    bob.sees_exactly("hello")
    bob.leave()
    ann.sees_event("Bob left")
    eventually(lambda: complaints(site.one.program, site.two.program) == "")
