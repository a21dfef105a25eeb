"""The reference in docs/ is what the code says now, and nothing a person can set or call is without words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from .tree import ROOT

REFERENCE = ROOT / "docs" / "reference"

#: errors by class that say what is wrong and not what to do; may only shrink
STEPLESS = {"InvalidInput": 51, "LimitExceeded": 1, "NotAllowed": 4, "NotAuthenticated": 1, "NotFound": 5}
#: classes whose errors a person meets who can do something about them, and so is told what
FOR_PEOPLE = ("InvalidInput", "NotFound", "NotAllowed", "NotAuthenticated", "NotEnoughFunds", "LimitExceeded")


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def wordless(page: str, head: str = "") -> set[str]:
    """First cells of the rows without a meaning; of those tables whose first column is `head`, where it is given."""
    return {cells[0] for title, cells in _rows(page) if title == (head or title) and not cells[-1]}


def _rows(page: str) -> Iterator[tuple[str, list[str]]]:
    """(first column's title, cells) of every row of every table."""
    title = ""
    for line in page.splitlines():
        if not line.startswith("|"):
            title = ""
            continue
        cells = [cell.strip().strip("`") for cell in line.strip("|").split(" | ")]
        if not title:
            title = cells[0]
        elif set(cells) != {"---"}:
            yield title, cells


def _page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_the_reference_is_what_the_code_says_now() -> None:
    done = check(REFERENCE)
    assert (done.returncode, done.stderr) == (0, "")


PAGES = sorted(path.name for path in REFERENCE.glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_every_command_option_setting_call_parameter_and_metric_has_words(name: str) -> None:
    page = _page(name)
    if name == "rpc.md":  # its messages' fields mostly say all by their names
        assert wordless(page, "Call") == set()
    elif name == "python.md":
        assert wordless(page, "Name") == set()
    elif name != "README.md":
        assert list(_rows(page))
        assert wordless(page) == set()


def test_every_program_is_there_with_its_verbs() -> None:
    for name, verb in (("shardwork", "job submit"), ("shardwork-worker", "start"), ("shardwork-coordinator", "serve")):
        assert f"## {name} {verb}\n" in _page(f"{name}.md")


def test_every_code_has_a_sentence_and_errors_for_people_a_next_step() -> None:
    rows = [cells for title, cells in _rows(_page("codes.md")) if title == "Code"]
    assert len(rows) > 400
    assert [cells[0] for cells in rows if not cells[2]] == []
    found = stepless(rows)
    assert {name: found.get(name, 0) for name in FOR_PEOPLE if found.get(name, 0) > STEPLESS.get(name, 0)} == {}


def stepless(rows: Iterable[list[str]]) -> dict[str, int]:
    """Errors without a next step, by class."""
    return dict(Counter(cells[1].strip("`") for cells in rows if cells[1] and not cells[3]))


def test_an_edited_missing_or_extra_page_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "reference"
    shutil.copytree(REFERENCE, folder)
    (folder / "metrics.md").write_text(_page("metrics.md").replace("gauge", "counter"), encoding="utf-8")
    (folder / "rpc.md").unlink()
    (folder / "old.md").write_text("# Old\n", encoding="utf-8")
    done = check(folder)
    assert done.returncode == 1
    for name in ("metrics.md", "old.md", "rpc.md"):
        assert f"differs from the code: {name}" in done.stderr


def test_an_error_without_a_next_step_is_counted() -> None:
    rows = [["a.b", "`NotFound`", "It is gone.", "", "x.py"], ["a.c", "`NotFound`", "It is gone.", "Wait.", "x.py"]]
    assert stepless([*rows, ["a.d", "", "It waits.", "", "x.py"]]) == {"NotFound": 1}


def test_a_row_without_words_is_found() -> None:
    calls = "| Call | Meaning |\n| --- | --- |\n| `A` | does |\n| `B` |  |\n"
    page = calls + "\n| Field | Meaning |\n| --- | --- |\n| `c` |  |\n"
    assert wordless(page) == {"B", "c"}
    assert wordless(page, "Call") == {"B"}
