"""A person in front of the example's pages."""

from playwright.sync_api import Browser, BrowserContext, Error, FilePayload, Locator, Page, expect

DEADLINE_MS = 15_000.0
DESKTOP = (1200, 760)
PHONE = (360, 740)


class Visitor:
    """One browser profile with one page. What its scripts fail at is in `errors`."""

    def __init__(
        self,
        browser: Browser,
        name: str,
        size: tuple[int, int] = DESKTOP,
        *,
        dark: bool = False,
        profile: BrowserContext | None = None,
    ) -> None:
        """`profile`: that of another visitor's, by default a new one."""
        width, height = size
        self.name = name
        self._browser = browser
        self.errors: list[str] = []
        self.tabs: list[Page] = []
        self._context = profile or browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        self._context.set_default_timeout(DEADLINE_MS)
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", self._failed)

    def _failed(self, error: Error) -> None:
        self.errors.append(f"{self.name}: {error}")

    def open_another_tab(self) -> None:
        """Go on in a new tab of the same profile; the one before stays open."""
        self.tabs.append(self.page)
        self.page = self._context.new_page()
        self.page.on("pageerror", self._failed)

    def close_tab(self) -> None:
        """Close the tab in front, and go on in the one before."""
        self.page.close()
        self.page = self.tabs.pop()

    def enter(self, url: str, room: str = "tea-time") -> "Visitor":
        """Open a room at a server, give the name, and return when the room has let this page in."""
        self.enter_without_waiting(url, room)
        self.is_connected()
        return self

    def enter_without_waiting(self, url: str, room: str = "tea-time") -> None:
        self.page.goto(f"{url}/chat/{room}/")
        self.page.get_by_label("Your name", exact=True).fill(self.name)
        self.page.get_by_role("button", name="Enter the room").click()

    def is_connected(self) -> None:
        expect(self.page.locator("#status")).to_have_text("Connected", timeout=DEADLINE_MS)

    def is_disconnected(self) -> None:
        expect(self.page.locator("#status")).to_have_attribute("data-state", "waiting", timeout=DEADLINE_MS)

    def is_connected_to(self, pid: int) -> None:
        self.is_connected()
        expect(self.page.locator("#connected-to")).to_have_text(str(pid), timeout=DEADLINE_MS)

    def say(self, text: str) -> None:
        self.page.get_by_label("Message to").fill(text)
        self.page.get_by_role("button", name="Send").click()

    def bubbles(self) -> Locator:
        return self.page.locator(".bubble")

    def sees_exactly(self, *texts: str) -> None:
        """Return when what was said on this page is `texts`, in this order."""
        expect(self.bubbles()).to_have_text(list(texts), timeout=DEADLINE_MS)

    def sees_banner(self, text: str) -> None:
        """Return when this page says of the time in which it was away: caught up, or some messages are gone."""
        expect(self.page.locator("#banner")).to_have_text(text, timeout=DEADLINE_MS)
        expect(self.page.locator("#banner")).to_be_visible()

    def sees_no_banner(self) -> None:
        expect(self.page.locator("#banner")).to_be_hidden()

    def another_tab(self, url: str, room: str = "tea-time") -> "Visitor":
        """A second page of the same browser profile, which knows the name already."""
        tab = Visitor(self._browser, self.name, profile=self._context)
        tab.errors = self.errors
        tab.page.goto(f"{url}/chat/{room}/")
        tab.is_connected()
        return tab

    def sees_event(self, text: str) -> None:
        expect(self.page.locator(".event", has_text=text)).to_have_count(1, timeout=DEADLINE_MS)

    def sees_people(self, *names: str) -> None:
        expect(self.page.locator("#people li > :last-child")).to_have_text(list(names), timeout=DEADLINE_MS)

    def sees_no_event(self, text: str) -> None:
        """There is none now; call it once something that would come later is there."""
        expect(self.page.locator(".event", has_text=text)).to_have_count(0, timeout=DEADLINE_MS)

    def sees_room(self, room: str, people: str) -> None:
        """Return when the list of rooms says how many people are in one."""
        expect(self.page.locator(f".room-people[data-room={room}]")).to_have_text(people, timeout=DEADLINE_MS)

    def sees_announcement(self, text: str) -> None:
        expect(self.page.locator(".announcement p")).to_have_text(text, timeout=DEADLINE_MS)

    def opens_thumbnails(self, url: str) -> "Visitor":
        """Open the list of pictures at a server, and return when it is told of what happens."""
        self.page.goto(f"{url}/thumbnails/")
        self.is_connected()
        return self

    def uploads(self, name: str, content: bytes) -> None:
        """Send a file by the form of the list, which is open."""
        file: FilePayload = {"name": name, "mimeType": "image/jpeg", "buffer": content}
        self.page.get_by_label("Picture", exact=True).set_input_files(file)
        self.page.get_by_role("button", name="Make thumbnails").click()

    def job(self, name: str) -> Locator:
        """The card of the picture `name`."""
        return self.page.locator(".job", has=self.page.get_by_role("link", name=name, exact=True))

    def sees_job(self, name: str, state: str, *, thumbnails: int | None = None) -> None:
        """Return when the card of that picture says `state`, and shows that many thumbnails."""
        expect(self.job(name).locator(".job-state")).to_have_text(state, timeout=DEADLINE_MS)
        if thumbnails is not None:
            expect(self.job(name).locator(".thumbnails li")).to_have_count(thumbnails, timeout=DEADLINE_MS)

    def sees_nothing_beyond_the_right_edge(self) -> None:
        """There is nothing to scroll to at the right, once the page is laid out."""
        fits = "document.documentElement.scrollWidth <= window.innerWidth"
        self.page.wait_for_function(fits, timeout=DEADLINE_MS)

    def leave(self) -> None:
        self._context.close()
