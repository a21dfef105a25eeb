"""Wins between models as numbers of a stage: what is told, from whose side it is read, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shardwork.feedback.votes import Order, Vote, Winner
from shardwork.recipes.alignment.guards.wins import MOST_MODELS, win_metrics, win_of, wins_among, wins_in


def vote(number: int, a: str, b: str, winner: str) -> Vote:
    return Vote(
        prompt_id=f"p{number}",
        item=str(number),
        model_a=a,
        model_b=b,
        winner=Winner(winner),
        order=Order.AB,
        annotator=f"w{number % 5}",
    )


def test_a_share_is_told_once_and_read_from_either_side() -> None:
    votes = [vote(n, "policy", "before", "a") for n in range(30)] + [vote(99, "before", "policy", "tie")]
    told = win_metrics(votes)
    assert set(told) == {f"{kind}.before.policy" for kind in ("win", "win_low", "win_high")}
    mine, theirs = win_of(told, "policy", "before"), win_of(told, "before", "policy")
    assert mine is not None and theirs is not None
    assert mine.value == pytest.approx(30.5 / 31)
    assert 0.5 < mine.low < mine.value < mine.high <= 1
    assert (theirs.value, theirs.low, theirs.high) == pytest.approx((1 - mine.value, 1 - mine.high, 1 - mine.low))


def test_who_did_not_meet_has_no_share() -> None:
    told = win_metrics([vote(1, "a", "b", "a"), vote(2, "c", "c", "a")])
    assert win_of(told, "a", "c") is None
    assert win_of(told, "a", "a") is None
    assert win_of({}, "a", "b") is None
    assert win_of({"win.a.b": 0.0}, "a", "b") is None, "without its interval"
    assert not win_metrics([vote(1, "same", "same", "a")])


def test_names_that_no_job_gives_and_crowds_are_left_out() -> None:
    assert not win_metrics([vote(1, "", "b", "a"), vote(2, "a.b", "c", "a"), vote(3, "x" * 99, "c", "b")])
    names = [f"m{number}" for number in range(20)]
    crowd = [vote(n * 20 + m, one, other, "a") for n, one in enumerate(names) for m, other in enumerate(names)]
    assert len(win_metrics(crowd)) == 3 * MOST_MODELS * (MOST_MODELS - 1) // 2


def test_a_file_of_votes_may_name_no_models(tmp_path: Path) -> None:
    votes = [vote(n, "new", "old", "a") for n in range(4)] + [vote(9, "same", "same", "a")]
    nameless = vote(10, "x", "y", "b").to_json() | {"model_a": "", "model_b": ""}
    long = vote(11, "x", "y", "b").to_json() | {"model_a": "A model. With words"}
    file = tmp_path / "votes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*(one.to_json() for one in votes), nameless, long]))
    assert wins_in(file) == win_metrics(votes)
    file.write_text(json.dumps(nameless) + "\n")
    assert wins_in(file) == {}
    file.write_text("")
    assert wins_in(file) == {}


def test_other_numbers_are_none_of_them() -> None:
    assert wins_among({"win.a.b": 1.0, "win_low.a.b": 0.5, "winner": 1.0, "votes": 3.0, "windy.a.b": 0.1}) == {
        "win.a.b": 1.0,
        "win_low.a.b": 0.5,
    }
