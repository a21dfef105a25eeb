"""The site: builds without a warning, has every page, finds words, and asks nobody else for anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: what a browser fetches by itself; a link that a reader may follow is something else
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed|link(?![^>]*rel="?(?:canonical|next|prev)\b))\b[^>]*?"""
    r"""\b(?:src|href|data)=["']?((?:https?:)?//[^"'\s>]+)""",
    re.IGNORECASE,
)
FETCHED_BY_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?((?:https?:)?//[^"')\s]+)""")


def outside(text: str) -> list[str]:
    """Addresses of other hosts that a browser would fetch for this page or style sheet."""
    return [*FETCHED.findall(text), *FETCHED_BY_STYLE.findall(text)]


def build(folder: Path) -> Path:
    """The whole site, where any warning is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("site"))


def _written(site: Path, *endings: str) -> Iterator[tuple[str, str]]:
    for path in sorted(site.rglob("*")):
        if path.suffix in endings:
            yield path.relative_to(site).as_posix(), path.read_text(encoding="utf-8")


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    made = {name for name, _ in _written(site, ".html")}
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert len(pages) > 15
    for page in pages:
        folder = page.parent if page.stem in ("README", "index") else page.with_suffix("")
        assert (folder / "index.html").as_posix() in made
    assert {"ARCHITECTURE/index.html", "GLOSSARY/index.html"} <= made
    assert not [name for name in made if name.endswith(".py")]


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    found = {name: there for name, text in _written(site, ".html", ".css") if (there := outside(text))}
    assert found == {}
    # the theme would load this one's engine, and a star count, from elsewhere
    for name, text in _written(site, ".html"):
        assert 'class="mermaid"' not in text, name
        assert 'data-md-component="source"' not in text, name


def test_words_are_found_and_every_page_stands_in_the_nav(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("escrow" in each["text"] for each in index["docs"])
    start = (site / "index.html").read_text(encoding="utf-8")
    places = {each["location"].partition("#")[0] for each in index["docs"]} - {""}
    assert [place for place in sorted(places) if f'href="{place}"' not in start] == []


def test_a_font_a_script_and_a_picture_of_another_host_are_found() -> None:
    assert outside('<link rel="stylesheet" href="https://fonts.example/a.css">') == ["https://fonts.example/a.css"]
    assert outside("<script src=//cdn.example/a.js></script>") == ["//cdn.example/a.js"]
    assert outside("<style>b{background:url('https://x.example/y.png')}</style>") == ["https://x.example/y.png"]
    assert outside('<a href="https://example.org">x</a><img src="../a.svg">') == []
