"""Links between pages lead somewhere, on the site, in the repository and on the package index alike."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.packaging.pages import DOCS, PAGES, README, ROOT, anchors, page, prose

[REPOSITORY] = re.findall(r'^Repository = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
SHOWN = f"{REPOSITORY}/blob/main/"
RAW = REPOSITORY.replace("github.com", "raw.githubusercontent.com") + "/main/"
PICTURE = ROOT / "docs" / "images" / "demo.png"


def links(name: str) -> list[str]:
    """Where the links and pictures of a page lead."""
    return re.findall(r"\]\(<?([^)>\s]+)>?(?: \"[^\"]*\")?\)", prose(name))


def fault(target: str, folder: Path) -> str:
    """What is wrong with a link to a file of the repository, seen from a folder; "" where nothing is."""
    path, _, anchor = unquote(target).partition("#")
    file = (folder / path).resolve()
    if not file.is_relative_to(ROOT) or not file.exists():
        return f"{target}: there is no such file"
    if anchor and anchor not in anchors(file.relative_to(ROOT).as_posix()):
        return f"{target}: there is no such heading"
    return ""


def own(name: str) -> list[tuple[str, Path]]:
    """The links of a page to files of the repository, each with the folder that it is seen from."""
    found = []
    for link in links(name):
        found += [(link.removeprefix(start), ROOT) for start in (SHOWN, RAW) if link.startswith(start)]
        if link.startswith("#"):
            found.append((Path(name).name + link, (ROOT / name).parent))
        elif "://" not in link:
            found.append((link, (ROOT / name).parent))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_links_to_files_and_headings_lead_somewhere(name: str) -> None:
    assert [wrong for target, folder in own(name) if (wrong := fault(target, folder))] == []


def test_wrong_links_are_found() -> None:
    assert fault("docs/options.md#options", ROOT) == ""
    assert fault("docs/nowhere.md", ROOT)
    assert fault("docs/options.md#nowhere", ROOT)
    assert fault("../elsewhere.md", ROOT)
    assert sum(len(own(name)) for name in PAGES) > 100


def test_the_readme_can_be_shown_elsewhere() -> None:
    found = links(README)
    assert [link for link in found if "://" not in link] == []
    assert [link for link in found if link.startswith(REPOSITORY) and not link.startswith(SHOWN)] == []
    pages = {link.removeprefix(SHOWN).partition("#")[0] for link in found}
    assert {name for name in DOCS if name not in pages} <= {"docs/index.md", "docs/results.md"}


def test_pages_of_the_site_lead_to_others_by_relative_links() -> None:
    """Which work without a network, too."""
    assert [(name, link) for name in DOCS for link in links(name) if link.startswith((SHOWN, RAW))] == []


def test_every_page_is_in_the_navigation_once() -> None:
    settings = page("mkdocs.yml")
    listed = re.findall(r"^ +- [^:]+: (\S+\.md)$", settings.partition("\nnav:\n")[2], re.MULTILINE)
    assert sorted(f"docs/{name}" for name in listed) == DOCS
    assert f"{REPOSITORY}\n" in settings


def test_what_the_package_says_of_pages_is_true() -> None:
    found = []
    for path in sorted((ROOT / "channels_sqlite").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"https://github\.com/[\w-]+/channels_sqlite[\w./#-]*", text)
        assert "README" not in text, path
    assert found
    assert [wrong for link in found if (wrong := fault(link.removeprefix(SHOWN), ROOT))] == []


def test_the_picture_is_small() -> None:
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 150_000
