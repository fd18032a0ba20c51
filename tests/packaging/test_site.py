"""The look at the built site finds what it is for."""

from pathlib import Path

import pytest

from tests.packaging.site import from_elsewhere


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>'),
        ("a.html", '<LINK REL="preconnect stylesheet" href="//fonts.example/">'),
        ("a.html", '<img src="HTTP://pictures.example/x.png">'),
        ("a.html", '<p style="background: url(//pictures.example/x)">'),
        ("a.html", '<div data-md-component="source"></div>'),
        ("a.html", '<pre class="mermaid"></pre>'),
        ("deep/er/a.css", '@import "https://fonts.example/x.css";'),
        ("a.css", "p { background: url( 'https://pictures.example/x' ) }"),
    ],
)
def test_what_is_fetched_from_elsewhere_is_named(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    [fault] = from_elsewhere(tmp_path)
    assert fault.startswith(f"{name} fetches ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<a href="https://elsewhere.example/"></a>'),
        ("a.html", '<link rel="canonical" href="https://this.example/">'),
        ("a.html", '<script src="assets/x.js"></script><script>let x = "https://a.example"</script>'),
        ("a.css", "p { background: url(data:image/svg+xml;x) } /* https://licence.example */"),
        ("a.js", 'fetch("https://elsewhere.example/")'),  # the theme's own, for what is not used here
    ],
)
def test_what_is_only_named_is_none(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert from_elsewhere(tmp_path) == []
