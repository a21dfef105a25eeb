"""Ratings: planted strengths are found, intervals cover them, and nothing but the votes matters."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork.feedback.quality import Rules
from shardwork.feedback.ratings import ELO_MEAN, ELO_SCALE, Rating, fit, ratings, win_rate
from shardwork.feedback.votes import Order, Vote, Winner, ranked

from .simulation import BOTS, Habit, Person, Poll, campaign, person, poll, strengths, tau, vote

some_votes = st.lists(
    st.builds(
        vote,
        item=st.sampled_from(["i1", "i2", "i3"]),
        a=st.sampled_from("wxyz"),
        b=st.sampled_from("wxyz"),
        winner=st.sampled_from(Winner),
        annotator=st.sampled_from(["ann", "bob"]),
        order=st.sampled_from(Order),
    ),
    max_size=30,
)


def crowd() -> list[Person]:
    """200 people, of whom 60 are bots of each kind."""
    who = [person(f"honest-{number}", Habit.HONEST, 11) for number in range(140)]
    for number in range(60):
        habit = BOTS[number % len(BOTS)]
        who.append(person(f"bot-{number}", habit, 11, who[number].pressed if habit is Habit.COPIER else ()))
    random.Random(2).shuffle(who)
    return who


def test_a_planted_ranking_is_found_from_200_people_of_whom_60_are_bots() -> None:
    planted = strengths(8)
    votes, kept = campaign(planted, crowd(), Rules(), items=60)
    assert 135 <= kept <= 142
    assert tau(planted, [one.model for one in ratings(votes)]) >= 0.95


@pytest.mark.parametrize("prompts", [40, 150])
def test_intervals_cover_the_planted_strengths(prompts: int) -> None:
    planted = strengths(4)
    found = [one for seed in range(80) for one in ratings(poll(planted, Poll(prompts=prompts, seed=seed)))]
    assert 0.93 <= sum(covers(one, planted[one.model]) for one in found) / len(found) <= 0.995


@pytest.mark.parametrize(("person_lean", "prompt_lean"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_intervals_cover_where_votes_of_one_person_or_prompt_are_alike(person_lean: float, prompt_lean: float) -> None:
    """Of two models the rating is the log-odds of the mean chance, over people and prompts."""
    how = Poll(prompts=200, people=20, person_lean=person_lean, prompt_lean=prompt_lean)
    lean = random.Random(9)
    mean = (
        sum(1 / (1 + math.exp(0.6 - lean.gauss(0, math.hypot(person_lean, prompt_lean)))) for _ in range(50_000))
        / 50_000
    )
    weaker = math.log(mean / (1 - mean)) / 2
    found = [ratings(poll(strengths(2), replace(how, seed=seed))) for seed in range(100)]
    assert sum(covers(one[1], weaker) for one in found if one[1].model == "model-00") >= 0.93 * 100


def covers(one: Rating, strength: float) -> bool:
    return one.low <= ELO_MEAN + ELO_SCALE * strength <= one.high


@given(some_votes, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(votes: list[Vote], chance: random.Random) -> None:
    mixed = list(votes)
    chance.shuffle(mixed)
    assert ratings(mixed) == ratings(votes)
    assert win_rate(mixed, "x", "y") == win_rate(votes, "x", "y")


@given(some_votes)
def test_which_answer_is_called_a_does_not_matter(votes: list[Vote]) -> None:
    swap = {Winner.A: Winner.B, Winner.B: Winner.A}
    turned = [replace(v, model_a=v.model_b, model_b=v.model_a, winner=swap.get(v.winner, v.winner)) for v in votes]
    for one, other in zip(by_name(votes), by_name(turned), strict=True):
        assert one.model == other.model
        assert (one.elo, one.low, one.high) == pytest.approx((other.elo, other.low, other.high), abs=1e-6)


@given(some_votes)
def test_every_figure_is_finite_and_ratings_lie_around_the_mean(votes: list[Vote]) -> None:
    found = ratings(votes)
    assert all(math.isfinite(value) for one in found for value in (one.elo, one.low, one.high))
    assert all(one.low < one.elo < one.high or len(found) == 1 for one in found)
    assert not found or sum(one.elo for one in found) / len(found) == pytest.approx(ELO_MEAN)


def by_name(votes: list[Vote]) -> list[Rating]:
    return sorted(ratings(votes), key=lambda one: one.model)


def test_a_model_that_never_lost_stays_finite_and_its_interval_is_wide() -> None:
    best, worst = ratings([vote(f"i{at}", "x", "y", Winner.A, "ann") for at in range(1000)])
    assert best.model == "x" and best.elo - worst.elo < 4000
    assert best.high - best.low > 200


def test_all_ties_are_equal_ratings() -> None:
    one, other = ratings([vote(f"i{at}", "x", "y", Winner.TIE, "ann") for at in range(50)])
    assert one.elo == pytest.approx(other.elo)
    assert (one.votes, one.won) == (50, 25.0)


def test_one_vote_is_a_rating_and_none_is_none() -> None:
    best, worst = ratings([vote("i", "x", "y", Winner.B, "ann")])
    assert best.model == "y" and best.low < worst.elo
    assert ratings([]) == []
    assert [one.elo for one in ratings([vote("i", "x", "x", Winner.A, "ann")])] == [ELO_MEAN]


def test_the_fit_is_the_maximum_of_its_posterior() -> None:
    """Against the closed form of two models: their difference d solves 7(1-p(d)) - 3 p(d) + prior = 0."""
    found = fit(["x", "y"], {("x", "y"): 7.0, ("y", "x"): 3.0}, prior_games=1e-9)
    assert found["x"] - found["y"] == pytest.approx(math.log(7 / 3), abs=1e-6)


def test_ratings_of_rankings() -> None:
    blank = vote("i", "x", "y", Winner.A, "ann")
    votes = [
        pair
        for at in range(30)
        for pair in ranked(
            replace(blank, prompt_id=f"p{at}", item=f"p{at}"), "xyz", (2, 0, 1), (at % 3, *_rest(at % 3))
        )
    ]
    assert [one.model for one in ratings(votes)] == ["z", "x", "y"]


def _rest(first: int) -> list[int]:
    return [place for place in range(3) if place != first]


def test_a_win_rate_counts_both_ways_and_ties_half() -> None:
    votes = [
        vote("i1", "new", "old", Winner.A, "ann"),
        vote("i2", "old", "new", Winner.B, "ann"),
        vote("i3", "new", "old", Winner.BOTH_BAD, "ann"),
        vote("i4", "new", "old", Winner.B, "ann"),
        vote("i5", "new", "other", Winner.B, "ann"),
    ]
    rate = win_rate(votes, "new", "old")
    assert (rate.wins, rate.losses, rate.ties, rate.rate.value) == (2, 1, 1, 0.625)
    assert win_rate(votes, "old", "new").rate.value == pytest.approx(0.375)
    assert win_rate(votes, "new", "new").rate.of == 0


def test_votes_on_one_prompt_are_worth_less_than_as_many_apart() -> None:
    apart = [vote(f"i{at}", "x", "y", Winner.A if at % 2 else Winner.B, "ann") for at in range(60)]
    alike = [replace(v, prompt_id=f"p{at % 10}") for at, v in enumerate(apart)]
    one, other = win_rate(apart, "x", "y").rate, win_rate(alike, "x", "y").rate
    assert one.value == other.value == 0.5
    assert one.of == 60 and other.of == pytest.approx(9.15, abs=0.01)
    assert other.high - other.low > 1.5 * (one.high - one.low)
