"""Paging: however a file is cut into pieces, its rows come once, in order, and none is read without a limit."""

from __future__ import annotations

import json
import random

import pytest

from shardwork.artifact import LEAF_BYTES, FileEntry, Manifest
from shardwork.errors import NotFound
from shardwork.feedback import paging
from shardwork.feedback.paging import Found, Paging, file_of_rows, leaves_of_page
from shardwork.feedback.samples import Row


def read(data: bytes, *, start: int = 0, count: int = 100, piece: int = 7, about: str = "") -> Found:
    """A page of a file that comes in pieces of so many bytes."""
    page = Paging(
        file="rows.jsonl",
        size=len(data),
        start=start,
        count=count,
        wanted=lambda row: about in str(row.get("prompt", "")),
    )
    for at in range(start, page.end, piece):
        if not page.add(data[at : min(at + piece, page.end)]):
            break
    return page.found()


def lines(*rows: Row) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ROWS = [{"prompt": f"number {number}", "filling": "é" * (number * 7 % 40)} for number in range(30)]


@pytest.mark.parametrize("seed", range(20))
def test_pages_of_any_size_in_pieces_of_any_size_hold_each_row_once(seed: int) -> None:
    chance = random.Random(seed)
    data, seen, start = lines(*ROWS), list[Row](), 0
    while True:
        found = read(data, start=start, count=chance.randint(1, 9), piece=chance.randint(1, 200))
        seen += found.rows
        assert found.problems == []
        if found.more is None:
            break
        start = found.more
    assert seen == ROWS


def test_the_last_line_need_not_end() -> None:
    found = read(lines(*ROWS)[:-1])
    assert found.rows == ROWS and found.more is None


def test_a_full_page_at_the_end_is_the_last_one() -> None:
    assert read(lines(*ROWS), count=30).more is None
    assert read(lines(*ROWS), count=29).more is not None


def test_a_search_passes_over_other_rows_and_goes_on_behind_the_last_that_it_found() -> None:
    data = lines(*ROWS)
    first = read(data, count=1, about="number 2")
    behind = len(lines(*ROWS[:3]))
    assert first.rows == [ROWS[2]] and first.more == behind
    assert len(read(data, start=behind, about="number 2").rows) == 10


def test_a_line_that_is_no_row_is_named_and_passed_over() -> None:
    data = lines(ROWS[0]) + b"no JSON\n\n[1]\n" + lines(ROWS[1])
    found = read(data)
    assert found.rows == ROWS[:2]
    assert [(one.file, one.line, one.code) for one in found.problems] == [
        ("rows.jsonl", 2, "samples.broken_line"),
        ("rows.jsonl", 4, "samples.broken_line"),
    ]
    begin = len(lines(ROWS[0]))
    later = read(data, start=begin)
    # nobody counted the lines before it
    assert [one.line for one in later.problems] == [None, None]
    assert f"byte {begin} " in later.problems[0].sentence and later.rows == [ROWS[1]]


def test_a_line_nested_without_end_is_no_row() -> None:
    found = read(b"[" * 100_000 + b"\n" + lines(ROWS[0]), piece=4096)
    assert found.rows == [ROWS[0]] and len(found.problems) == 1


def test_problems_are_told_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MOST_PROBLEMS", 3)
    assert len(read(b"x\n" * 50).problems) == 3


@pytest.mark.parametrize("piece", [10, 100, 5_000])
def test_a_line_that_is_too_long_is_named_and_what_follows_is_read(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """One row of a stranger used to hide all that came after it."""
    monkeypatch.setattr(paging, "MOST_LINE_BYTES", 1_000)
    data = lines(ROWS[0], {"prompt": "x" * 3_000}, ROWS[1])
    found = read(data, piece=piece)
    assert found.rows == ROWS[:2] and found.more is None
    assert [(one.line, one.code) for one in found.problems] == [(2, "samples.long_line")]


def test_a_page_reads_no_more_than_it_may_and_says_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    data = lines(*ROWS)
    monkeypatch.setattr(paging, "MOST_READ_BYTES", 300)
    first = read(data, about="number 29", piece=64)
    assert first.rows == [] and first.more is not None and 0 < first.more <= 300
    assert data[first.more - 1 : first.more] == b"\n"
    # and what it stops inside of is passed in the end
    monkeypatch.setattr(paging, "MOST_LINE_BYTES", 100)
    monkeypatch.setattr(paging, "MOST_READ_BYTES", 150)
    start: int | None = 0
    seen: list[Row] = []
    data = lines({"prompt": "x" * 1_000}, ROWS[0])
    for _ in range(20):
        found = read(data, start=start or 0, piece=64)
        seen += found.rows
        start = found.more
        if start is None:
            break
    assert start is None and seen == [ROWS[0]]


@pytest.mark.parametrize(
    ("start", "end", "leaves"),
    [
        (0, 0, []),
        (5, 5, []),
        (9, 3, []),
        (0, 1, [0]),
        (0, LEAF_BYTES, [0]),
        (LEAF_BYTES - 1, LEAF_BYTES + 1, [0, 1]),
        (LEAF_BYTES, LEAF_BYTES + 1, [1]),
    ],
)
def test_only_the_leaves_of_a_page_are_read(start: int, end: int, leaves: list[int]) -> None:
    assert list(leaves_of_page(start, end)) == leaves


def test_an_output_without_rows_says_what_it_has() -> None:
    manifest = Manifest((FileEntry("report.json", 0, ()),))
    with pytest.raises(NotFound) as refused:
        file_of_rows(manifest)
    assert refused.value.code == "samples.no_rows" and refused.value.why.evidence == {"files": "report.json"}
