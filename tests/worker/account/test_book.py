"""The book: what is kept of each shard, for how long, and that a disk which refuses it costs no shard."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from shardwork.why import Why
from shardwork_worker.account import book as book_module
from shardwork_worker.account.book import FILE_NAME, Book, Fate, Line

LINE = Line(
    lease_id="j/s/r1/learn/s0#0.1",
    coordinator="ab",
    recipe="sft",
    phase="learn",
    price_msat=7000,
    work_units=5,
    at_ms=1000,
    state=Fate.PENDING,
)
WHY = Why(code="result.bad", sentence="It was bad.", evidence={"loss": "9"}, next_step="Mend it.")


def test_a_line_is_kept_with_what_hands_it_in_until_its_verdict(tmp_path: Path) -> None:
    book = Book(tmp_path / "state")
    book.note(LINE, b"request")
    assert book.pending("ab") == [LINE] and book.pending("other") == [] and book.pending() == [LINE]
    assert book.request_of(LINE.lease_id) == b"request"
    rejected = replace(LINE, state=Fate.REJECTED, why=WHY, at_ms=2000)
    book.note(rejected)
    again = Book(tmp_path / "state")
    assert again.find(LINE.lease_id) == rejected and again.pending() == [] and not again.request_of(LINE.lease_id)
    assert stat.S_IMODE((tmp_path / "state" / FILE_NAME).stat().st_mode) == 0o600


def test_sums_count_what_was_paid_since_a_moment_and_moved_on_a_day(tmp_path: Path) -> None:
    book = Book(tmp_path)
    for number, at_ms in enumerate((1000, 2000, 3000)):
        book.note(replace(LINE, lease_id=f"a#0.{number}", state=Fate.PAID, paid_msat=10 + number, at_ms=at_ms))
    assert (book.paid_since(0), book.paid_since(2000), book.paid_since(9000)) == (33, 23, 0)
    book.moved("2026-11-27", 5)
    book.moved("2026-11-27", 6)
    assert (book.moved_on("2026-11-27"), book.moved_on("2026-11-28")) == (11, 0)


def test_old_lines_go_but_never_one_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MOST_LINES", 3)
    book = Book(tmp_path)
    book.note(replace(LINE, lease_id="waits#0.1", at_ms=1))
    for number in range(6):
        book.note(replace(LINE, lease_id=f"a#0.{number}", state=Fate.PAID, at_ms=100 + number))
    assert [line.at_ms for line in book.since(0)] == [105, 104, 103, 1]


def test_a_disk_that_refuses_the_book_raises_nothing_and_says_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, and long enough to be seen as none" * 50)
    book = Book(tmp_path)
    book.note(LINE)
    book.moved("2026-11-27", 5)
    assert book.find(LINE.lease_id) is None and book.moved_on("2026-11-27") == 0
    assert capsys.readouterr().err.count("the book of shards can't be written") == 1


def test_without_a_book_there_is_nothing(tmp_path: Path) -> None:
    assert Book(tmp_path / "none").since(0) == [] and not (tmp_path / "none").exists()
