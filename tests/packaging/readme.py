"""The README taken apart: sections, tables and blocks of code."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "blocks", "section", "sections", "table"]

README = Path(__file__).resolve().parents[2] / "README.md"


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
        found = re.match(r"# (\S+\.py)\n", self.text)
        return found[1] if found else ""


def sections() -> list[str]:
    """The headings of the second level, in their order."""
    return re.findall(r"^## (.+)$", README.read_text(encoding="utf-8"), re.MULTILINE)


def section(title: str) -> str:
    """The text below a heading of the second level, up to the next one."""
    text = README.read_text(encoding="utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert text, f"the README has no section {title!r}"
    return text


def blocks(file: Path = README) -> list[Block]:
    """Every block of code of the README, or of another Markdown file, in their order."""
    found: list[Block] = []
    heading = lead = language = ""
    inside: list[str] | None = None
    for line in file.read_text(encoding="utf-8").splitlines():
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
    assert inside is None, f"{file.name} has a block without an end"
    return found


def table(title: str, number: int = 0) -> list[list[str]]:
    """The rows of the first table in a section, or of a later one, without its head."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in section(title).splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
        before = line
    return tables[number][2:]
