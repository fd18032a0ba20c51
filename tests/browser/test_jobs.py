"""Thumbnails made by tasks while pages of two server processes watch. Each waits until the test lets it be made."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.conftest import VisitorFactory
from tests.browser.pictures import jpeg
from tests.browser.site import SIZES, Site, Worker, complaints
from tests.browser.visitor import DEADLINE_MS, PHONE, Visitor
from tests.support.programs import runs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.browser, pytest.mark.processes]

STEPS = len(SIZES)
DEADLINE_S = 30.0


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
    """The worker, which does not run yet, and does not run after the test. The gate is shut."""
    site.gate.shut()
    yield site.worker
    site.worker.stop()


def bar(someone: Visitor, name: str) -> Locator:
    return someone.job(name).get_by_role("progressbar")


def sees_bar_at(someone: Visitor, name: str, done: int) -> None:
    """Return when the bar of that picture has moved there, and the text beside it says so."""
    expect(bar(someone, name)).to_have_js_property("value", done, timeout=DEADLINE_MS)
    expect(bar(someone, name)).to_have_js_property("max", STEPS, timeout=DEADLINE_MS)
    count = someone.job(name).locator(".job-count")
    expect(count).to_contain_text(f"{done} of {STEPS}, by process ", timeout=DEADLINE_MS)


def pid_beside_bar(someone: Visitor, name: str) -> int:
    """The process that is said to do the work; 0 where none is."""
    found = re.search(r"by process (\d+)", someone.job(name).locator(".job-count").inner_text())
    return int(found[1]) if found else 0


def sees_another_process(someone: Visitor, name: str, *before: int) -> int:
    """Return the process that does the work, once it is none of those."""
    return eventually(lambda: (pid := pid_beside_bar(someone, name)) not in before and pid, DEADLINE_S)


def try_again(someone: Visitor, name: str) -> Locator:
    return someone.job(name).get_by_role("button", name="Try again")


def pictures_of(site: Site) -> list[Path]:
    """What was uploaded, the latest first."""
    return sorted(site.data.glob("media/thumbnails/*/picture"), key=lambda path: -path.stat().st_mtime_ns)


def test_bars_move_at_both_servers_and_end(site: Site, worker: Worker, visitor: VisitorFactory, tmp_path: Path) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob", dark=True).opens_thumbnails(site.two.url)
    eve = visitor("Eve", PHONE).opens_thumbnails(site.one.url)
    ann.uploads("hills.jpg", jpeg(1600, 1000))
    for someone in (ann, bob, eve):
        someone.sees_job("hills.jpg", "Waiting", thumbnails=0)
        expect(bar(someone, "hills.jpg")).not_to_have_attribute("value", "0")  # that of a thing which has not begun

    worker.start(processes=2)
    for someone in (ann, bob, eve):
        someone.sees_job("hills.jpg", "Working", thumbnails=0)
        sees_bar_at(someone, "hills.jpg", 0)
    assert pid_beside_bar(bob, "hills.jpg") in [child.pid for child in worker.children]
    for done, size in enumerate(SIZES[:-1], start=1):
        site.gate.open(size)
        for someone in (ann, bob, eve):
            sees_bar_at(someone, "hills.jpg", done)
    # Who comes in the middle sees how far it is.
    zoe = visitor("Zoe").opens_thumbnails(site.two.url)
    zoe.sees_job("hills.jpg", "Working", thumbnails=STEPS - 1)
    sees_bar_at(zoe, "hills.jpg", STEPS - 1)
    site.gate.open(SIZES[-1])
    for someone in (ann, bob, eve, zoe):
        someone.sees_job("hills.jpg", "Done", thumbnails=STEPS)
        expect(bar(someone, "hills.jpg")).to_be_hidden(timeout=DEADLINE_MS)
        expect(try_again(someone, "hills.jpg")).to_be_hidden(timeout=DEADLINE_MS)

    # Who comes later, and who comes again, sees the same.
    ann.opens_thumbnails(site.one.url)
    yan = visitor("Yan").opens_thumbnails(site.two.url)
    texts = bob.job("hills.jpg").locator(".thumbnails").inner_text()
    for someone in (ann, yan):
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


def test_a_failed_picture_says_why_and_can_be_tried_again(
    site: Site, worker: Worker, visitor: VisitorFactory, tmp_path: Path
) -> None:
    site.gate.open(*SIZES)
    worker.start()
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    ann.uploads("bad.jpg", b"not a picture")
    expect(ann.page.get_by_role("alert")).to_contain_text("not a picture that can be read", timeout=DEADLINE_MS)

    # The beginning of a picture looks like one, until somebody reads it to its end.
    whole = jpeg(1600, 1000)
    ann.opens_thumbnails(site.one.url)
    ann.uploads("<b>half.jpg", whole[:5000])
    for someone in (ann, bob):
        someone.sees_job("<b>half.jpg", "Failed", thumbnails=0)
        expect(someone.job("<b>half.jpg").locator(".job-note")).to_contain_text("damaged", timeout=DEADLINE_MS)
        expect(bar(someone, "<b>half.jpg")).to_be_hidden(timeout=DEADLINE_MS)
        expect(try_again(someone, "<b>half.jpg")).to_be_visible(timeout=DEADLINE_MS)
    bob.page.screenshot(path=tmp_path / "failed.png")

    # What ails it is gone: somebody has mended the file.
    site.gate.shut()
    pictures_of(site)[0].write_bytes(whole)
    try_again(bob, "<b>half.jpg").click()
    for someone in (ann, bob):
        someone.sees_job("<b>half.jpg", "Working", thumbnails=0)
        expect(someone.job("<b>half.jpg").locator(".job-note")).to_be_hidden(timeout=DEADLINE_MS)
        expect(try_again(someone, "<b>half.jpg")).to_be_hidden(timeout=DEADLINE_MS)
    site.gate.open(*SIZES)
    for someone in (ann, bob):
        someone.sees_job("<b>half.jpg", "Done", thumbnails=STEPS)


def test_a_bar_goes_on_when_its_worker_is_killed_in_the_middle(
    site: Site, worker: Worker, visitor: VisitorFactory
) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    worker.start()
    ann.uploads("lost.jpg", jpeg(1600, 1000))
    for someone in (ann, bob):
        sees_bar_at(someone, "lost.jpg", 0)
    site.gate.open(*SIZES[:2])
    for someone in (ann, bob):
        sees_bar_at(someone, "lost.jpg", 2)
    folder = pictures_of(site)[0].parent
    made = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.webp")}
    assert set(made) == {f"{size}.webp" for size in SIZES[:2]}

    killed = worker.kill_child()
    # Another process has it, goes on where the first one was, and tells of itself.
    for someone in (ann, bob):
        assert sees_another_process(someone, "lost.jpg", killed)
        sees_bar_at(someone, "lost.jpg", 2)
    site.gate.open(SIZES[2])
    for someone in (ann, bob):
        sees_bar_at(someone, "lost.jpg", 3)
    site.gate.open(*SIZES)
    for someone in (ann, bob):
        someone.sees_job("lost.jpg", "Done", thumbnails=STEPS)
    assert {name: (folder / name).stat().st_mtime_ns for name in made} == made, "what was there was made again"


def test_a_picture_that_kills_its_workers_fails_and_can_be_tried_again(
    site: Site, worker: Worker, visitor: VisitorFactory
) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    worker.start()
    ann.uploads("deadly.jpg", jpeg(1600, 1000))
    killed: list[int] = []
    for _ in range(3):  # "crash_attempts"
        at_work = sees_another_process(ann, "deadly.jpg", *killed)
        assert worker.kill_child() == at_work
        killed.append(at_work)
    ann.sees_job("deadly.jpg", "Failed", thumbnails=0)
    expect(ann.job("deadly.jpg").locator(".job-note")).to_contain_text("WorkerDied", timeout=DEADLINE_MS)
    site.gate.open(*SIZES)
    try_again(ann, "deadly.jpg").click()
    ann.sees_job("deadly.jpg", "Done", thumbnails=STEPS)


def test_uploads_wait_while_no_worker_runs(site: Site, worker: Worker, visitor: VisitorFactory) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    worker.start()
    ann.uploads("first.jpg", jpeg(1600, 1000))
    sees_bar_at(bob, "first.jpg", 0)
    # Told to stop, it finishes what it has in hand, and begins nothing more.
    children = worker.children
    os.kill(worker.program.process.pid, signal.SIGTERM)
    site.gate.open(*SIZES)
    assert worker.program.wait() == 0
    assert [child.pid for child in children if runs(child)] == []
    bob.sees_job("first.jpg", "Done", thumbnails=STEPS)

    ann.opens_thumbnails(site.one.url)
    ann.uploads("second.jpg", jpeg(300, 200))
    for someone in (ann, bob):
        someone.sees_job("second.jpg", "Waiting", thumbnails=0)
    worker.start()
    for someone in (ann, bob):
        someone.sees_job("second.jpg", "Done", thumbnails=2)


@pytest.mark.leaks_allowed(reason="the server that is started again here is stopped with its site")
def test_an_open_page_follows_what_happens_while_its_server_is_gone(
    site: Site, worker: Worker, visitor: VisitorFactory
) -> None:
    ann = visitor("Ann").opens_thumbnails(site.one.url)
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    worker.start()
    ann.uploads("gone.jpg", jpeg(1600, 1000))
    sees_bar_at(bob, "gone.jpg", 0)
    site.two.kill()
    bob.is_disconnected()
    site.gate.open(*SIZES[:3])
    sees_bar_at(ann, "gone.jpg", 3)
    site.two.start()
    site.two.wait_ready()
    bob.is_connected_to(site.two.pid)
    sees_bar_at(bob, "gone.jpg", 3)
    site.gate.open(*SIZES)
    bob.sees_job("gone.jpg", "Done", thumbnails=STEPS)


def test_the_feed_of_the_site_hears_of_pictures(site: Site, worker: Worker, visitor: VisitorFactory) -> None:
    ann = visitor("Ann")
    ann.page.goto(f"{site.one.url}/activity/")
    ann.is_connected()
    told = ann.page.locator("#feed a", has_text="valley.jpg")
    bob = visitor("Bob").opens_thumbnails(site.two.url)
    bob.uploads("valley.jpg", jpeg(400, 300))
    expect(told).to_have_text(["valley.jpg waits for a worker"], timeout=DEADLINE_MS)
    site.gate.open(*SIZES)
    worker.start()
    expect(told).to_have_text(["valley.jpg is done", "valley.jpg waits for a worker"], timeout=DEADLINE_MS)
    told.first.click()
    bob.page.close()
    ann.sees_job("valley.jpg", "Done", thumbnails=3)
