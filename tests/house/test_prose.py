"""The written pages: links lead somewhere, the glossary is in order, nothing grows past what is read in one sitting."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from .tree import ROOT, files

LINK = re.compile(r"\[[^]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")
TERM = re.compile(r"^\*\*(.+?)\*\*: (.+)$")
#: most lines of the pages that everybody reads
LIMITS = {"README.md": 150, "ARCHITECTURE.md": 220}


def dead_links(folder: Path, text: str) -> list[str]:
    """Relative links to nothing; addresses of the web are not followed."""
    targets = [target for target in LINK.findall(text) if "://" not in target and not target.startswith("mailto:")]
    return [target for target in targets if not (folder / target).exists()]


def misplaced(text: str) -> list[str]:
    """Glossary lines that are no entry of one line, and terms out of order or there twice."""
    lines = [line for line in text.splitlines() if line.startswith("**")]
    found = [line for line in lines if not TERM.match(line)]
    terms = [term[1].lower() for line in lines if (term := TERM.match(line))]
    return found + [after for before, after in pairwise(terms) if before >= after]


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in files() if path.suffix == ".md"]
    assert len(pages) > 5
    dead = {path.name: gone for path in pages if (gone := dead_links(path.parent, path.read_text(encoding="utf-8")))}
    assert dead == {}


def test_the_glossary_is_in_order_and_has_one_line_a_word() -> None:
    assert misplaced((ROOT / "GLOSSARY.md").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_page_for_everybody_stays_short(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8").count("\n") <= LIMITS[name]


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("", encoding="utf-8")
    assert dead_links(tmp_path, "[a](a.md) [b](b.md#part) [web](https://example.org/x)") == ["b.md"]


def test_a_misplaced_word_is_found() -> None:
    assert misplaced("**Job**: x.\n**Lease**: y.\n") == []
    assert misplaced("**Lease**: y.\n**Job**: x.\n**Job**: z.\n**Shard** none\n") == ["**Shard** none", "job", "job"]
