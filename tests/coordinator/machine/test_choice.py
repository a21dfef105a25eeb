"""The best candidate wins, a worse round is rolled back, and NaN never wins."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwork_coordinator.machine.choice import choose

NAMES = ("mean", "nesterov")


def losses(**each: tuple[float, float, float]) -> dict[str, float]:
    """name=(selection loss, test loss, standard error)."""
    kinds = ("selection_loss", "test_loss", "test_se")
    return {f"{name}.{kind}": value for name, values in each.items() for kind, value in zip(kinds, values, strict=True)}


def test_the_best_on_selection_rows_wins_and_the_test_loss_is_reported() -> None:
    choice = choose(losses(mean=(4.0, 4.1, 0.01), nesterov=(3.9, 4.2, 0.01)), NAMES, 4.5, 0)
    assert (choice.candidate, choice.test_loss, choice.rolled_back, choice.stop) == ("nesterov", 4.2, False, False)
    assert choice.why.code == "round.taken"


def test_the_first_of_equals_wins() -> None:
    assert choose(losses(mean=(4, 4, 0), nesterov=(4, 4, 0)), NAMES, 5, 0).candidate == "mean"


@pytest.mark.parametrize(
    ("loss", "error", "rolled_back"),
    [(4.03, 0.0, False), (4.05, 0.0, True), (4.05, 0.02, False), (4.07, 0.02, True), (4.05, math.nan, True)],
)
def test_a_rise_beyond_one_percent_and_three_errors_rolls_back(loss: float, error: float, rolled_back: bool) -> None:
    choice = choose(losses(mean=(4.0, loss, error)), ("mean",), 4.0, 0)
    assert choice.rolled_back is rolled_back and not choice.stop
    assert choice.test_loss == loss


def test_twice_in_a_row_stops_with_the_reason() -> None:
    choice = choose(losses(mean=(9.0, 9.0, 0)), ("mean",), 4.0, 1)
    assert choice.rolled_back and choice.stop
    assert choice.why.code == "round.rolled_back_twice" and choice.why.next_step
    assert choice.why.evidence["before"] == "4.0000"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_never_wins(bad: float) -> None:
    assert choose(losses(mean=(4, 4, 0), nesterov=(bad, 1, 0)), NAMES, 5, 0).candidate == "mean"
    assert choose(losses(mean=(4, 4, 0), nesterov=(1, bad, 0)), NAMES, 5, 0).candidate == "mean"
    nothing = choose(losses(mean=(bad, 4, 0)), ("mean",), 5, 0)
    assert (nothing.candidate, nothing.test_loss, nothing.rolled_back) == ("", None, True)
    assert choose({}, NAMES, 5, 1).stop


def test_without_a_loss_before_nothing_is_compared() -> None:
    assert not choose(losses(mean=(9, 9, 0)), ("mean",), None, 1).rolled_back


@given(st.lists(st.floats(), min_size=1, max_size=5), st.floats() | st.none(), st.integers(0, 3))
def test_a_taken_candidate_has_the_lowest_finite_loss(found: list[float], before: float | None, earlier: int) -> None:
    names = [f"c{index}" for index in range(len(found))]
    metrics = {
        f"{name}.{kind}": value
        for name, value in zip(names, found, strict=True)
        for kind in ("selection_loss", "test_loss")
    }
    choice = choose(metrics, names, before, earlier)
    finite = [value for value in found if math.isfinite(value)]
    if finite:
        assert choice.test_loss == min(finite)
    else:
        assert choice.rolled_back
