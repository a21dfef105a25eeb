"""Consensus: each rule's verdicts, the rows of a verdict, and what no order of votes may change."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.feedback.consensus import Rule, Verdict, consensus
from shardwork.feedback.votes import Origin, Vote, Winner, ranked

from .simulation import vote

A, B, TIE, BAD = Winner.A, Winner.B, Winner.TIE, Winner.BOTH_BAD


def of(winners: list[Winner], rule: Rule) -> Verdict:
    (one,) = consensus([vote("i", "x", "y", winner, f"w{at}") for at, winner in enumerate(winners)], rule)
    return one


@pytest.mark.parametrize(
    ("rule", "winners", "winner", "confidence"),
    [
        (Rule.MAJORITY, [A, A, B], A, 2 / 3),
        (Rule.MAJORITY, [A, B], None, 0),
        (Rule.MAJORITY, [A, B, TIE], None, 0),
        (Rule.MAJORITY, [BAD, BAD, A], BAD, 2 / 3),
        (Rule.MAJORITY, [B], B, 1),
        (Rule.UNANIMOUS, [B, B, B], B, 1),
        (Rule.UNANIMOUS, [B, B, TIE], None, 0),
        (Rule.DAWID_SKENE, [A, B], TIE, 0.5),
        (Rule.BRADLEY_TERRY, [A, B], TIE, 0.5),
        (Rule.BRADLEY_TERRY, [TIE, TIE], TIE, 0.5),
    ],
)
def test_a_rule_decides(rule: Rule, winners: list[Winner], winner: Winner | None, confidence: float) -> None:
    found = of(winners, rule)
    assert found.winner is winner
    assert found.confidence == pytest.approx(confidence)
    assert found.votes == len(winners)
    assert found.is_preference is (winner in (A, B))


@pytest.mark.parametrize("rule", [Rule.DAWID_SKENE, Rule.BRADLEY_TERRY])
def test_more_votes_for_it_make_a_model_surer(rule: Rule) -> None:
    few, many = of([A, A, B], rule), of([A] * 6 + [B], rule)
    assert few.winner is many.winner is A
    assert 0.5 < few.confidence <= many.confidence <= 1


@pytest.mark.parametrize("rule", list(Rule))
def test_no_votes_are_no_verdicts(rule: Rule) -> None:
    assert consensus([], rule) == []


some_votes = st.lists(
    st.builds(
        vote,
        item=st.sampled_from(["i1", "i2", "i3"]),
        a=st.just("x"),
        b=st.just("y"),
        winner=st.sampled_from(Winner),
        annotator=st.sampled_from(["ann", "bob", "eve", "tom"]),
    ),
    max_size=20,
)


@given(some_votes, st.sampled_from(Rule), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(votes: list[Vote], rule: Rule, chance: random.Random) -> None:
    mixed = list(votes)
    chance.shuffle(mixed)
    assert consensus(mixed, rule) == consensus(votes, rule)


@given(some_votes, st.sampled_from(Rule))
def test_sides_are_treated_alike(votes: list[Vote], rule: Rule) -> None:
    swap = {A: B, B: A}
    turned = [replace(one, winner=swap.get(one.winner, one.winner)) for one in votes]
    for one, other in zip(consensus(votes, rule), consensus(turned, rule), strict=True):
        if one.winner is None or other.winner is None or abs(one.confidence - 0.5) > 1e-6:
            assert (swap.get(one.winner, one.winner) if one.winner else None) is other.winner
        assert one.confidence == pytest.approx(other.confidence, abs=1e-6)


@given(some_votes, st.sampled_from(Rule))
def test_a_preference_is_believed_at_least_half(votes: list[Vote], rule: Rule) -> None:
    for one in consensus(votes, rule):
        assert 0 <= one.confidence <= 1 + 1e-9
        assert one.winner is not None or one.confidence == 0


def test_answers_to_one_item_are_ranked_through_each_other() -> None:
    """Nobody compared x with z; y lost to x and beat z."""
    xy = [replace(vote("i", "x", "y", A, f"w{at}"), answer_a=0, answer_b=1) for at in range(3)]
    yz = [replace(vote("i", "y", "z", A, f"w{at}"), answer_a=1, answer_b=2) for at in range(3)]
    xz = [replace(vote("i", "x", "z", B, "w9"), answer_a=0, answer_b=2)]
    found = {one.pair: one for one in consensus([*xy, *yz, *xz], Rule.BRADLEY_TERRY)}
    assert found["i", 0, 2].winner is A
    assert {one.pair: one.winner for one in consensus([*xy, *yz, *xz], Rule.MAJORITY)}["i", 0, 2] is B


def test_a_ranking_of_four_is_six_verdicts_and_their_rows() -> None:
    votes = ranked(vote("i", "", "", A, "ann"), "wxyz", ranking=(3, 1, 0, 2), shown=(0, 1, 2, 3))
    found = consensus(votes, Rule.MAJORITY)
    texts = ["0", "1", "2", "3"]
    rows = [one.row("Why?", texts) for one in found]
    rank = "3102"
    assert len(rows) == 6
    assert all(rank.index(row["chosen"]) < rank.index(row["rejected"]) for row in rows)
    assert rows[0] == {
        "prompt": "Why?",
        "chosen": "1",
        "rejected": "0",
        "prompt_id": "i",
        "confidence": 1.0,
        "votes": 1,
    }


def test_a_judge_says_how_sure_it_is() -> None:
    judged = replace(vote("i", "x", "y", B, "judge"), source=Origin.JUDGE, confidence=0.8)
    (found,) = consensus([judged], Rule.MAJORITY)
    assert (found.winner, found.confidence) == (B, 0.8)
    assert found.share_a == pytest.approx(0.2)


def test_one_person_has_one_vote_on_a_pair() -> None:
    votes = [vote("i", "x", "y", A, "ann")] * 5 + [vote("i", "x", "y", B, name) for name in ("bob", "eve")]
    (found,) = consensus(votes, Rule.MAJORITY)
    assert (found.winner, found.votes) == (B, 3)
