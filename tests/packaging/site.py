"""Whether the built site fetches anything from elsewhere. For `noxfile.py`: the standard library only."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

__all__ = ["from_elsewhere"]

FETCHED = {"embed": "src", "iframe": "src", "img": "src", "script": "src", "source": "src", "video": "src"}
FETCHED_RELATIONS = {"dns-prefetch", "icon", "manifest", "modulepreload", "preconnect", "preload", "stylesheet"}
"""Of links in the head: others, such as "canonical", only name an address."""

ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)
IN_STYLES = re.compile(r"""(?:@import\s*|url\()\s*["']?((?:https?:)?//[^"')\s;]+)""", re.IGNORECASE)


class _Page(HTMLParser):
    """Collects what a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag in FETCHED:
            self.fetched.append(given.get(FETCHED[tag], ""))
        elif tag == "link" and FETCHED_RELATIONS & set(given.get("rel", "").lower().split()):
            self.fetched.append(given.get("href", ""))
        self.fetched += [f"//{name} asks the host of the repository" for name in ("source",) if _is(given, name)]
        self.fetched += [found[1] for found in IN_STYLES.finditer(given.get("style", ""))]
        if "mermaid" in given.get("class", "").split():
            self.fetched.append("//mermaid is fetched by the theme")


def _is(given: dict[str, str], component: str) -> bool:
    return given.get("data-md-component") == component


def from_elsewhere(site: Path) -> list[str]:
    """What pages and styles below `site` fetch from other hosts, each with its file."""
    found = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            page = _Page()
            page.feed(path.read_text(encoding="utf-8"))
            fetched = page.fetched
        elif path.suffix == ".css":
            fetched = [match[1] for match in IN_STYLES.finditer(path.read_text(encoding="utf-8"))]
        else:
            continue
        name = path.relative_to(site).as_posix()
        found += [f"{name} fetches {address}" for address in fetched if ELSEWHERE.match(address)]
    return found
