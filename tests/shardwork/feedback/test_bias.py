"""Bias: planted leans to the first and to the longer answer are found; none is found where there is none."""

from __future__ import annotations

import math
import random

import pytest

from shardwork.feedback.bias import bias, of_annotators
from shardwork.feedback.votes import Order, Vote, Winner

from .simulation import vote

Lengths = dict[tuple[str, int, int], tuple[int, int]]


def planted(first: float, slope: float, items: int = 600, who: str = "ann") -> tuple[list[Vote], Lengths]:
    """Votes that go to the first shown with `first` more log-odds, and to the longer with `slope` a doubling."""
    chance = random.Random(f"{first}/{slope}/{who}")
    votes, lengths = list[Vote](), Lengths()
    for number in range(items):
        item, order = f"{who}-{number}", chance.choice(list(Order))
        a, b = (round(100 * 2 ** chance.uniform(-1, 1)) for _ in range(2))
        lead = slope * math.log2(a / b) + (first if order is Order.AB else -first)
        winner = Winner.A if chance.random() < 1 / (1 + math.exp(-lead)) else Winner.B
        votes.append(vote(item, "x", "y", winner, who, order))
        lengths[item, 0, 1] = (a, b)
    return votes, lengths


def test_no_lean_is_none() -> None:
    found = bias(*planted(0, 0))
    assert not found.first.is_clear and not found.longer.is_clear
    assert found.length.low < 0 < found.length.high


def test_a_lean_to_the_first_is_found() -> None:
    found = bias(*planted(0.8, 0))
    assert found.first.low > 0.5 and found.first.low < 1 / (1 + math.exp(-0.8)) < found.first.high


def test_a_lean_to_the_longer_is_found() -> None:
    found = bias(*planted(0, 1.0))
    assert found.longer.low > 0.5
    assert found.length.low < 1.0 < found.length.high and found.length.low > 0.5


def test_each_annotator_has_their_own() -> None:
    one, lengths = planted(1.5, 0, who="left")
    two, others = planted(0, 0, who="fair")
    found = of_annotators([*one, *two], lengths | others)
    assert list(found) == ["fair", "left"]
    assert found["left"].first.is_clear and not found["fair"].first.is_clear


def test_the_intervals_of_slopes_cover() -> None:
    found = [bias(*planted(0, 0.5, 80, f"w{at}")).length for at in range(200)]
    assert 0.92 <= sum(one.low <= 0.5 <= one.high for one in found) / 200 <= 0.995


def test_the_order_of_rows_does_not_matter() -> None:
    votes, lengths = planted(0.5, 0.5)
    assert bias(votes[::-1], lengths) == bias(votes, lengths)


def test_no_votes_ties_and_unknown_lengths_say_nothing() -> None:
    for votes in ([], [vote("i", "x", "y", Winner.TIE, "ann")]):
        found = bias(votes, {("i", 0, 1): (1, 2)})
        assert (found.first.value, found.first.low, found.first.high, found.first.of) == (0.5, 0.0, 1.0, 0)
        assert (found.length.value, found.length.votes) == (0.0, 0)
    assert bias([vote("i", "x", "y", Winner.A, "ann")]).length.votes == 0


@pytest.mark.parametrize("lengths", [(0, 0), (0, 10**9), (7, 7)])
def test_empty_and_equal_lengths_give_finite_figures(lengths: tuple[int, int]) -> None:
    found = bias([vote("i", "x", "y", Winner.B, "ann")], {("i", 0, 1): lengths}).length
    assert math.isfinite(found.value) and math.isfinite(found.low) and math.isfinite(found.high)
