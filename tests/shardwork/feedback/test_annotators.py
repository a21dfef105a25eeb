"""Dawid-Skene: planted accuracies and answers are found, and nothing is divided by zero."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.feedback.annotators import dawid_skene
from shardwork.feedback.votes import Vote, Winner

from .simulation import vote

WINNERS = (Winner.A, Winner.B, Winner.TIE)


def planted(accuracies: dict[str, float], items: int, seed: int = 0) -> tuple[list[Vote], dict[str, Winner]]:
    chance = random.Random(seed)
    truth = {f"i{item}": chance.choice(WINNERS) for item in range(items)}
    votes = [
        vote(item, "x", "y", true if chance.random() < accuracy else chance.choice(WINNERS), name)
        for item, true in truth.items()
        for name, accuracy in accuracies.items()
    ]
    return votes, truth


def test_planted_accuracies_and_answers_are_found_better_than_by_majority() -> None:
    accuracies = {"good": 0.95, "fair": 0.7, "poor-1": 0.1, "poor-2": 0.1, "poor-3": 0.1}
    votes, truth = planted(accuracies, 800)
    found = dawid_skene(votes)
    for name, accuracy in accuracies.items():
        assert found.annotators[name].share.value == pytest.approx(accuracy + (1 - accuracy) / 3, abs=0.1)
    right = sum(found.answers[item, 0, 1].winner is true for item, true in truth.items()) / len(truth)
    said = {item: Counter(v.winner for v in votes if v.item == item).most_common(1)[0][0] for item in truth}
    majority = sum(said[item] is true for item, true in truth.items()) / len(truth)
    assert right > 0.9 and right > majority + 0.03


def test_confidence_says_how_often_it_is_right() -> None:
    votes, truth = planted({f"w{at}": 0.5 for at in range(5)}, 2000, seed=3)
    found = dawid_skene(votes).answers
    sure = [(one.confidence, one.winner is truth[pair[0]]) for pair, one in found.items()]
    assert sum(c for c, _ in sure) / len(sure) == pytest.approx(sum(r for _, r in sure) / len(sure), abs=0.05)


some_votes = st.lists(
    st.builds(
        vote,
        item=st.sampled_from(["i1", "i2", "i3", "i4"]),
        a=st.just("x"),
        b=st.just("y"),
        winner=st.sampled_from(Winner),
        annotator=st.sampled_from(["ann", "bob", "eve"]),
    ),
    max_size=20,
)


@given(some_votes, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(votes: list[Vote], chance: random.Random) -> None:
    mixed = list(votes)
    chance.shuffle(mixed)
    assert dawid_skene(mixed) == dawid_skene(votes)


@given(some_votes)
def test_beliefs_are_probabilities(votes: list[Vote]) -> None:
    found = dawid_skene(votes)
    for answer in found.answers.values():
        assert sum(answer.shares.values()) == pytest.approx(1)
        assert 0 < answer.confidence <= 1 + 1e-9
    for accuracy in found.annotators.values():
        assert 0 <= accuracy.share.low <= accuracy.share.value <= accuracy.share.high <= 1


@given(some_votes)
def test_who_says_the_same_twice_has_one_vote(votes: list[Vote]) -> None:
    assert dawid_skene([*votes, *votes]) == dawid_skene(votes)


def test_who_contradicts_themselves_has_none() -> None:
    both = [vote("i", "x", "y", winner, "ann") for winner in (Winner.A, Winner.B)]
    assert dawid_skene(both).answers == {}
    assert dawid_skene([*both, vote("i", "x", "y", Winner.B, "bob")]).answers["i", 0, 1].winner is Winner.B


@pytest.mark.parametrize("winner", list(Winner))
def test_one_annotator_one_item_and_all_the_same(winner: Winner) -> None:
    one = dawid_skene([vote("i", "x", "y", winner, "ann")])
    assert (one.answers["i", 0, 1].winner, one.answers["i", 0, 1].confidence) == (winner, 1.0)
    many = dawid_skene([vote(f"i{at}", "x", "y", winner, f"w{at % 3}") for at in range(9)])
    assert {answer.winner for answer in many.answers.values()} == {winner}


def test_one_against_one_is_a_tie() -> None:
    found = dawid_skene([vote("i", "x", "y", Winner.A, "ann"), vote("i", "x", "y", Winner.B, "bob")])
    assert found.answers["i", 0, 1].winner is Winner.TIE
    assert found.answers["i", 0, 1].confidence == pytest.approx(0.5)
