"""The documentation taken apart: sections, tables and blocks of code. A page is named by its path from the root."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "DOCS",
    "PAGES",
    "README",
    "ROOT",
    "Block",
    "anchors",
    "blocks",
    "page",
    "prose",
    "section",
    "sections",
    "table",
]

ROOT = Path(__file__).resolve().parents[2]
README = "README.md"
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
"""The pages of the site."""

PAGES = [README, "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "example/README.md", *DOCS]
"""All that is written for people."""


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    section: str  # the heading of the second level above it; "" before the first
    language: str  # "" where none is named
    text: str
    lead: str  # the line above it

    @property
    def file(self) -> str:
        """The path in its first line, or ""."""
        found = re.match(r"(?:#|<!--) (\S+\.(?:py|html))(?: -->)?\n", self.text)
        return found[1] if found else ""


def page(name: str) -> str:
    """The text of a page."""
    return (ROOT / name).read_text(encoding="utf-8")


def prose(name: str) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page(name), flags=re.MULTILINE | re.DOTALL)


def sections(name: str) -> list[str]:
    """The headings of the second level, in their order."""
    return re.findall(r"^## (.+)$", prose(name), re.MULTILINE)


def anchors(name: str) -> set[str]:
    """What follows the # in links to headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose(name), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


def section(name: str, title: str) -> str:
    """The text below a heading of the second level, up to the next one."""
    text = page(name).partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert text, f"{name} has no section {title!r}"
    return text


def blocks(name: str) -> list[Block]:
    """Every block of code of a page, in their order."""
    found: list[Block] = []
    heading = lead = language = ""
    inside: list[str] | None = None
    for line in page(name).splitlines():
        if line.startswith("```"):
            if inside is None:
                inside, language = [], line.removeprefix("```")
            else:
                found.append(Block(heading, language, "".join(f"{one}\n" for one in inside), lead))
                inside = None
        elif inside is not None:
            inside.append(line)
        else:
            heading = line.removeprefix("## ") if line.startswith("## ") else heading
            lead = line or lead
    assert inside is None, f"{name} has a block without an end"
    return found


def table(name: str, title: str, number: int = 0) -> list[list[str]]:
    """The rows of the first table in a section, or of a later one, without its head."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in section(name, title).splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
        before = line
    return tables[number][2:]
