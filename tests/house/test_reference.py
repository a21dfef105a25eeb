"""The reference in docs/ is what the code says now, and nothing a person can set or call is without words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tree import ROOT

REFERENCE = ROOT / "docs" / "reference"

#: calls whose name says all, so far; may only shrink
WORDLESS_CALLS = frozenset(
    {
        "CancelJob",
        "CheckLedger",
        "CreateDeposit",
        "GetBalance",
        "GetDeposit",
        "GetJob",
        "GetJobReport",
        "GetManifest",
        "GetOverview",
        "ListJobEvents",
        "ListJobs",
        "ListTransfers",
        "ListWorkers",
        "PauseJob",
        "QuoteJob",
        "ResumeJob",
    }
)
#: keys of a job file without words, so far; may only shrink
WORDLESS_KEYS = frozenset(
    {
        "budget",
        "name",
        "params",
        "plan",
        "recipe",
        "stages",
        "trust",
    }
)


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


@pytest.mark.parametrize(
    "name", ["coordinator-settings.md", "worker-settings.md", "client-settings.md", "recipes.md", "metrics.md"]
)
def test_every_setting_parameter_and_metric_has_words(name: str) -> None:
    assert len(list(_rows(_page(name)))) >= 1
    assert wordless(_page(name)) == set()


def test_calls_and_keys_without_words_do_not_grow() -> None:
    assert wordless(_page("rpc.md"), "Call") == WORDLESS_CALLS
    assert wordless(_page("job-file.md")) == WORDLESS_KEYS


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


def test_a_row_without_words_is_found() -> None:
    calls = "| Call | Meaning |\n| --- | --- |\n| `A` | does |\n| `B` |  |\n"
    page = calls + "\n| Field | Meaning |\n| --- | --- |\n| `c` |  |\n"
    assert wordless(page) == {"B", "c"}
    assert wordless(page, "Call") == {"B"}
