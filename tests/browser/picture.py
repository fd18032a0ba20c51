"""Makes the picture of the README anew, from the example in a real browser: `python -m tests.browser.picture`.

Two windows side by side, each at a server process of its own, in one chat.
"""

import shutil
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.browser.conftest import BROWSER_FLAGS, BROWSER_NAMES
from tests.browser.site import Site, manage
from tests.browser.visitor import Visitor
from tests.support.processes import ROOT

__all__ = ["PICTURE", "main"]

PICTURE = ROOT / "docs" / "images" / "demo.png"
WINDOW = (520, 560)
GAP = 16
GREY = (214, 219, 223)
COLOURS = 96


def main() -> None:
    """Start the example, let two people chat, and keep what their windows show."""
    with tempfile.TemporaryDirectory(prefix="cs-") as name:
        folder = Path(name)
        template = folder / "template"
        template.mkdir()
        manage("migrate", data=template)
        manage("migrate", "--database=channels", data=template)
        site = Site(template, folder)
        try:
            site.start()
            windows = chat(site)
        finally:
            site.stop()
    width, height = WINDOW
    picture = Image.new("RGB", (2 * width + 3 * GAP, height + 2 * GAP), GREY)
    for number, window in enumerate(windows):
        picture.paste(window, (GAP + number * (width + GAP), GAP))
    picture.quantize(COLOURS).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size} bytes")  # noqa: T201  # this is a command


def chat(site: Site) -> list[Image.Image]:
    """What two people see who talk to each other at two processes."""
    browser_path = next(filter(None, map(shutil.which, BROWSER_NAMES)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=BROWSER_FLAGS)
        ann = Visitor(browser, "Ann", WINDOW).enter(site.one.url)
        bob = Visitor(browser, "Bob", WINDOW).enter(site.two.url)
        said = []
        for someone, text in (
            (ann, "Hello Bob! Which process are you at?"),
            (bob, "Another one than you. Look at the foot of the page."),
            (ann, "And no Redis anywhere."),
            (bob, "One SQLite file."),
        ):
            someone.say(text)
            said.append(text)
            for window in (ann, bob):
                window.sees_exactly(*said)
        taken = [window.page.screenshot() for window in (ann, bob)]
        browser.close()
    return [Image.open(BytesIO(one)).convert("RGB") for one in taken]


if __name__ == "__main__":
    main()
