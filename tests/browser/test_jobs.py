"""Thumbnails made by a worker process while pages of two server processes watch, and announcements from a view."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import VisitorFactory
from tests.browser.pictures import jpeg
from tests.browser.site import Site, Worker, complaints, manage
from tests.browser.visitor import DEADLINE_MS, PHONE, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.processes]

# Thumbnails of a picture that is larger than all of them.
STEPS = 6
# Longer than a test lasts: the worker rests until it is killed.
FOR_EVER_S = 600.0
INTERRUPTED_DEADLINE_MS = 30_000.0


@pytest.fixture(scope="module")
def site(migrated_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The same two servers for all tests here, which upload under different names."""
    site = Site(migrated_data, tmp_path_factory.mktemp("jobs"))
    try:
        site.start()
        yield site
    finally:
        site.stop()


@pytest.fixture
def worker(no_leaks: None, site: Site) -> Iterator[Worker]:
    """The worker, which does not run yet, and does not run after the test."""
    yield site.worker
    site.worker.stop()


def note_progress(page: Page) -> None:
    """Let the page keep every text beside a progress bar, however short it is shown."""
    page.evaluate(
        """() => {
            window.shown = [];
            new MutationObserver(() => {
                for (const job of document.querySelectorAll(".job")) {
                    const text = (name) => job.querySelector(name).textContent;
                    window.shown.push([text(".job-name"), text(".job-count")]);
                }
            }).observe(document.getElementById("jobs"), { childList: true, subtree: true, characterData: true });
        }"""
    )


def noted_progress(page: Page, name: str) -> list[str]:
    """The different texts that the card of that picture had, in the order in which they were shown."""
    shown: list[list[str]] = page.evaluate("window.shown")
    return list(dict.fromkeys(text for job, text in shown if job == name))


def sees_first_thumbnail(someone: Visitor, name: str) -> None:
    """Return when the worker has at least begun; how far it is by now, nobody can know."""
    expect(someone.job(name).locator(".thumbnails li").first).to_be_visible(timeout=DEADLINE_MS)


def test_pages_of_both_servers_see_progress_and_results(
    site: Site, worker: Worker, visitor: VisitorFactory, tmp_path: Path
) -> None:
    worker.start(pause_s=0.2)
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob", dark=True).opens_thumbnails(site.two.url)
    eve = visitor("Eve", PHONE).opens_thumbnails(site.one.url)
    for someone in (bob, eve):
        note_progress(someone.page)
    ann.uploads("hills.jpg", jpeg(1600, 1000))

    for someone in (ann, bob, eve):
        someone.sees_job("hills.jpg", "Done", thumbnails=STEPS)
    for someone in (bob, eve):
        assert noted_progress(someone.page, "hills.jpg") == [f"{made} of {STEPS}" for made in range(STEPS + 1)]

    # The beginning of a picture looks like one, until somebody reads it to its end.
    ann.opens_thumbnails(site.one.url)
    ann.uploads("<b>half.jpg", jpeg(1600, 1000)[:5000])
    for someone in (ann, bob):
        someone.sees_job("<b>half.jpg", "Failed", thumbnails=0)
        expect(someone.job("<b>half.jpg").locator(".job-note")).to_contain_text("damaged", timeout=DEADLINE_MS)
    ann.opens_thumbnails(site.one.url)
    ann.uploads("bad.jpg", b"not a picture")
    expect(ann.page.get_by_role("alert")).to_contain_text("not a picture that can be read", timeout=DEADLINE_MS)

    # Who comes later, and who comes again, sees the same.
    ann.opens_thumbnails(site.one.url)
    zoe = visitor("Zoe").opens_thumbnails(site.two.url)
    ann.page.reload()
    texts = bob.job("hills.jpg").locator(".thumbnails").inner_text()
    for someone in (ann, zoe):
        someone.sees_job("hills.jpg", "Done", thumbnails=STEPS)
        assert someone.job("hills.jpg").locator(".thumbnails").inner_text() == texts
    # What the page says of the largest is true.
    picture = ann.job("hills.jpg").get_by_role("img", name="1280 by 800")
    picture.scroll_into_view_if_needed()
    expect(picture).to_have_js_property("naturalWidth", 1280, timeout=DEADLINE_MS)
    answer = ann.page.request.get(site.two.url + str(picture.get_attribute("src")))
    assert answer.headers["content-type"] == "image/webp"
    assert f"{len(answer.body()) / 1024:.1f}".removesuffix(".0") in texts

    eve.page.screenshot(path=tmp_path / "phone-list.png")
    bob.page.screenshot(path=tmp_path / "desktop-dark.png")
    eve.sees_nothing_beyond_the_right_edge()
    eve.page.get_by_role("link", name="hills.jpg", exact=True).click()
    eve.sees_job("hills.jpg", "Done", thumbnails=STEPS)
    eve.sees_nothing_beyond_the_right_edge()
    eve.page.screenshot(path=tmp_path / "phone-job.png")
    assert complaints(site.one.program, site.two.program) == ""


def test_upload_waits_while_the_worker_is_stopped(site: Site, worker: Worker, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    worker.start(pause_s=0.5)
    ann.uploads("first.jpg", jpeg(1600, 1000))
    sees_first_thumbnail(bob, "first.jpg")
    # Told to stop, it finishes what it has in hand.
    assert worker.program.terminate() == 0
    bob.sees_job("first.jpg", "Done", thumbnails=STEPS)

    ann.opens_thumbnails(site.one.url)
    ann.uploads("second.jpg", jpeg(300, 200))
    for someone in (ann, bob):
        someone.sees_job("second.jpg", "Waiting", thumbnails=0)
    worker.start()
    for someone in (ann, bob):
        someone.sees_job("second.jpg", "Done", thumbnails=2)


def test_job_of_a_killed_worker_can_be_run_again(site: Site, worker: Worker, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    worker.start(pause_s=FOR_EVER_S)
    ann.uploads("lost.jpg", jpeg(1600, 1000))
    sees_first_thumbnail(bob, "lost.jpg")
    worker.kill()
    worker.start()

    # The message went with the worker that had it: the next worker does not get it by itself.
    for someone in (ann, bob):
        state = someone.job("lost.jpg").locator(".job-state")
        expect(state).to_have_text("Interrupted", timeout=INTERRUPTED_DEADLINE_MS)
    bob.page.get_by_role("button", name="Run again").click()
    for someone in (ann, bob):
        someone.sees_job("lost.jpg", "Done", thumbnails=STEPS)
    expect(ann.page.get_by_role("button", name="Run again")).to_be_hidden(timeout=DEADLINE_MS)


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


def test_the_examples_own_tests_pass(migrated_data: Path) -> None:
    manage("test", data=migrated_data)
