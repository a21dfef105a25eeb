"""Blending: whose word counts where people and a judge agree, contradict each other, or one is silent."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.errors import InvalidInput
from shardwork.feedback.blending import Blend, Conflict, Spent, agreement, blend, side
from shardwork.feedback.consensus import Verdict
from shardwork.feedback.votes import Winner

A, B, TIE = Winner.A, Winner.B, Winner.TIE


def verdict(winner: Winner | None, confidence: float = 0.8, item: str = "i", votes: int = 3) -> Verdict:
    return Verdict(
        item=item,
        prompt_id=item,
        answer_a=0,
        answer_b=1,
        model_a="x",
        model_b="y",
        winner=winner,
        confidence=confidence if winner else 0.0,
        votes=votes,
    )


@pytest.mark.parametrize(
    ("how", "people", "judge", "winner", "confidence"),
    [
        (Blend(), verdict(A, 0.8), verdict(A, 0.6), A, 0.7),
        (Blend(people=3), verdict(A, 0.8), verdict(A, 0.6), A, 0.75),
        (Blend(), verdict(A, 0.7), verdict(B, 0.99), A, 0.7),
        (Blend(conflict=Conflict.DROP), verdict(A, 0.7), verdict(B, 0.99), None, 0.0),
        (Blend(conflict=Conflict.DROP), verdict(A, 0.7), verdict(A, 0.9), A, 0.8),
        (Blend(conflict=Conflict.WEIGHTED), verdict(A, 0.7), verdict(B, 0.9), B, 0.6),
        (Blend(people=4, conflict=Conflict.WEIGHTED), verdict(A, 0.8), verdict(B, 0.9), A, 0.66),
        (Blend(conflict=Conflict.WEIGHTED), verdict(A, 0.8), verdict(B, 0.8), TIE, 0.5),
        (Blend(), verdict(TIE, 0.9), verdict(B, 0.9), TIE, 0.9),
        (Blend(conflict=Conflict.DROP), verdict(TIE, 0.9), verdict(B, 0.9), None, 0.0),
        (Blend(conflict=Conflict.WEIGHTED), verdict(TIE, 0.9), verdict(B, 0.9), B, 0.7),
        (Blend(), verdict(None), verdict(B, 0.9), B, 0.9),
        (Blend(), verdict(A, 0.7), verdict(None), A, 0.7),
        (Blend(judge=0), verdict(A, 0.7), verdict(A, 0.9), A, 0.7),
        (Blend(people=0, conflict=Conflict.DROP), verdict(A, 0.7), verdict(B, 0.9), B, 0.9),
        (Blend(people=1e308, judge=1e308), verdict(A, 0.8), verdict(A, 0.6), A, 0.7),
    ],
)
def test_two_verdicts_become_one(
    how: Blend, people: Verdict, judge: Verdict, winner: Winner | None, confidence: float
) -> None:
    (found,) = blend([people], [judge], how)
    assert found.winner is winner
    assert found.confidence == pytest.approx(confidence)
    assert found.votes == (6 if how.people and how.judge else 3)


def test_who_alone_judged_a_pair_decides_it_unless_they_have_no_weight() -> None:
    people, judge = [verdict(A, item="only people")], [verdict(B, item="only judge")]
    assert blend(people, judge, Blend()) == [*judge, *people]
    assert blend(people, judge, Blend(judge=0)) == people
    assert blend([], [], Blend()) == []


@pytest.mark.parametrize(
    ("people", "judge", "conflict", "code"),
    [
        (0.0, 0.0, Conflict.DROP, "blend.no_weight"),
        (-1.0, 1.0, Conflict.DROP, "blend.bad_weight"),
        (1.0, math.nan, Conflict.DROP, "blend.bad_weight"),
        (math.inf, 1.0, Conflict.DROP, "blend.bad_weight"),
        (0.0, 1.0, Conflict.PEOPLE_FIRST, "blend.people_without_weight"),
    ],
)
def test_contradictory_weights_are_refused(people: float, judge: float, conflict: Conflict, code: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Blend(people=people, judge=judge, conflict=conflict)
    assert refused.value.code == code
    assert refused.value.why.next_step


shares = st.floats(0.5, 1)
sides = st.sampled_from([A, B])


@given(sides, shares, sides, shares, st.sampled_from(Conflict))
def test_a_blend_of_preferences_lies_between_them(
    one: Winner, sure: float, other: Winner, told: float, conflict: Conflict
) -> None:
    people, judge = verdict(one, sure), verdict(other, told)
    (found,) = blend([people], [judge], Blend(conflict=conflict))
    low, high = sorted((people.share_a, judge.share_a))
    assert low - 1e-9 <= found.share_a <= high + 1e-9 or found.winner is None


def test_agreement_counts_pairs_that_both_decided() -> None:
    people = [verdict(A, item=f"i{at}") for at in range(12)] + [verdict(TIE, item="t"), verdict(A, item="alone")]
    judge = [verdict(A if at < 9 else B, item=f"i{at}") for at in range(12)] + [verdict(A, item="t")]
    found = agreement(people, judge)
    assert (found.value, found.of) == (0.75, 12)
    assert found.low < 0.75 < found.high
    assert agreement([], judge).of == 0


def test_a_side_shows_cost_time_and_quality() -> None:
    verdicts = [verdict(A, item="i1"), verdict(B, item="i2"), verdict(TIE, item="i3"), verdict(None, item="i4")]
    spent = Spent(cost_msat=4000, ms=6000, timed=3) + Spent(cost_msat=1000, ms=2000, timed=1)
    right = {("i1", 0, 1): A, ("i2", 0, 1): A, ("i3", 0, 1): A}
    found = side("people", verdicts, spent, right)
    assert (found.pairs, found.preferences, found.votes) == (4, 2, 12)
    assert (found.cost_msat, found.ms_per_vote) == (5000, 2000)
    assert found.quality is not None and (found.quality.value, found.quality.of) == (0.5, 2)
    bare = side("judge", verdicts, Spent())
    assert bare.ms_per_vote is None and bare.quality is None
