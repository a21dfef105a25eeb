"""What others said never steers the terminal, the log or the spreadsheet it is read in."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from shardwork_worker.account.statement import as_csv
from shardwork_worker.log import say
from shardwork_worker.status import readable, why_from_json

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def test_a_line_of_the_log_has_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"refused: {ESCAPE} – größer\n  second line")
    said = capsys.readouterr().err
    assert said.endswith("refused: ?]0;owned??[2J – größer\n  second line\n")


def test_a_reason_from_a_child_has_nothing_that_a_terminal_obeys() -> None:
    raw = {"code": "a.b", "sentence": f"It says {ESCAPE}.", "evidence": {"k" + ESCAPE: ESCAPE}, "next_step": ESCAPE}
    assert "\x1b" not in why_from_json(raw).render()
    status: dict[str, Any] = {"state": "paused", "why": raw, "shard": None, "worker_id": ""}
    assert "\x1b" not in readable(status)


@pytest.mark.parametrize("said", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)"])
def test_a_reason_is_no_formula_in_a_spreadsheet(said: str) -> None:
    line: dict[str, Any] = {
        "time": "2026-11-28 01:00:00",
        "id": said,
        "kind": said,
        "state": "rejected",
        "msat": -5,
        "payment_hash": "",
    }
    line["why"] = {"code": "a.b", "sentence": said}
    (row,) = csv.DictReader(io.StringIO(as_csv({"shards": [line], "payments": []})))
    assert (row["id"], row["kind"], row["reason"]) == (f"'{said}",) * 3
    assert row["msat"] == "-5", "a number stays one"
