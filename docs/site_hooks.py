"""What the site has beside docs/ as it lies there: root pages, links out of docs/, pictures in the page, a full nav.

Called by MkDocs (`hooks` in mkdocs.yml), by nobody else. Makes no text of its own: a page reads the same in a checkout
and on the site.

- ARCHITECTURE.md and GLOSSARY.md of the root are pages of the site, and links to them lead there.
- A link to anything else outside docs/ (source, measurements) stays as text: the site has no such file.
- A drawn SVG becomes part of its page, so that it takes the page's colours, light or dark.
- `folder/*` in the nav stands for the pages of that folder which nothing else in the nav names; what no line covers is
  added under More, so that no page is without a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOT_PAGES = ("ARCHITECTURE.md", "GLOSSARY.md")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#\s]+)(?P<part>#[^)]*)?\)")
PICTURE = re.compile(r'<img alt="(?P<alt>[^"]*)" src="(?P<source>[^":]+\.svg)"\s*/?>')
#: marks a picture whose style touches nothing else on the page
DRAWN = 'class="sw"'
TITLE = re.compile(r"^# (.+)$", re.MULTILINE)

Nav = list[Any]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = full_nav(config.nav or [], pages())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    known = {file.src_uri for file in files}
    # a page of the root lies one folder higher than the site has it
    where = PurePosixPath("." if page.file.src_uri in ROOT_PAGES else f"docs/{page.file.src_uri}").parent
    return LINK.sub(lambda found: relinked(found, where, page.file.src_uri, known), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return PICTURE.sub(lambda found: _inlined(found, page), html)


# ---- links and pictures ---------------------------------------------------------------------------------------------


def relinked(found: re.Match[str], where: PurePosixPath, page: str, known: set[str]) -> str:
    """The link as the site has it; its text alone where it leads to what the site doesn't have."""
    target = found["target"]
    if ":" in target:
        return found[0]
    aim = _plain(where / target)
    inside = aim.removeprefix("docs/")
    if inside in known and (aim.startswith("docs/") or aim in ROOT_PAGES):
        return f"[{found['text']}]({_from(page, inside)}{found['part'] or ''})"
    return found["text"] if (ROOT / aim).exists() and not aim.startswith("docs/") else found[0]


def _plain(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts:
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def _from(page: str, target: str) -> str:
    return "../" * page.count("/") + target


def _inlined(found: re.Match[str], page: Page) -> str:
    """The picture itself. MkDocs made its address relative to the page's own folder on the site."""
    folder = PurePosixPath(page.file.dest_uri).parent
    path = DOCS / _plain(folder / found["source"])
    if not path.is_file():
        return found[0]
    text = path.read_text(encoding="utf-8")
    if DRAWN not in text:
        return found[0]
    # blank lines would end the block, were it read as Markdown again
    return f'<figure class="drawn">{" ".join(line.strip() for line in text.splitlines() if line.strip())}</figure>'


# ---- nav ------------------------------------------------------------------------------------------------------------


def pages() -> list[str]:
    """Every page's address in docs/, and those of the root."""
    found = (path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    return [*sorted(found), *ROOT_PAGES]


def full_nav(nav: Nav, known: list[str]) -> Nav:
    named = {line for line in _lines(nav) if not line.endswith("/*")}
    patterns = [line.removesuffix("*") for line in _lines(nav) if line.endswith("/*")]
    left = [page for page in known if page not in named and not any(page.startswith(one) for one in patterns)]
    whole = [_expanded(item, known, named) for item in nav]
    return [*whole, {"More": [_titled(page) for page in left]}] if left else whole


def _lines(nav: Nav) -> Iterator[str]:
    for item in nav:
        if isinstance(item, str):
            yield item
        else:
            for inner in item.values():
                yield from _lines([inner] if isinstance(inner, str) else inner)


def _expanded(item: Any, known: list[str], named: set[str]) -> Any:
    if isinstance(item, str):
        return _titled(item)
    return {title: _section(inner, known, named) for title, inner in item.items()}


def _section(inner: Any, known: list[str], named: set[str]) -> Any:
    if isinstance(inner, str):
        return inner
    made: Nav = []
    for item in inner:
        if isinstance(item, str) and item.endswith("/*"):
            made += [_titled(one) for one in known if one.startswith(item[:-1]) and one not in named]
        else:
            made.append(_expanded(item, known, named))
    return made


def _titled(page: str) -> Any:
    """A page under its own first heading; an index page stays bare, for the theme puts it on its section."""
    path = ROOT / page if page in ROOT_PAGES else DOCS / page
    title = TITLE.search(path.read_text(encoding="utf-8")) if path.is_file() else None
    return {title[1]: page} if title else page
