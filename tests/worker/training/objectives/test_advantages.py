# pyright: standard
"""Advantages against the sums that the papers write, and at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shardwork_worker.training.objectives.advantages import (
    explained_variance,
    generalised,
    leave_one_out,
    of_groups,
    whitened,
)

from .test_ppo import naive_gae


@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 1.0), (0.97, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_generalised_advantages_are_the_papers_double_sum(length: int, gamma: float, lam: float) -> None:
    draw = np.random.default_rng(length)
    rewards, values = draw.standard_normal(length), draw.standard_normal(length)
    found = generalised(torch.tensor(rewards), torch.tensor(values), gamma, lam)
    assert found.tolist() == pytest.approx(naive_gae(rewards.tolist(), values.tolist(), gamma, lam), rel=1e-12)


def test_an_answer_without_tokens_has_no_advantage() -> None:
    assert generalised(torch.zeros(0), torch.zeros(0), 1.0, 0.95).tolist() == []


def test_with_lambda_1_the_advantage_is_the_return_less_the_value() -> None:
    rewards, values = torch.tensor([0.0, 0.0, 3.0]), torch.tensor([1.0, 2.0, 0.5])
    assert generalised(rewards, values, 1.0, 1.0).tolist() == pytest.approx([2.0, 1.0, 2.5])


def test_groups_are_measured_by_their_own_mean_and_deviation() -> None:
    found = of_groups([1.0, 3.0, 10.0, 10.0], [0, 0, 1, 1], scale=True)
    assert found == pytest.approx([-1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4), 0.0, 0.0])
    assert of_groups([1.0, 3.0, 10.0, 10.0], [0, 0, 1, 1], scale=False) == [-1.0, 1.0, 0.0, 0.0]


def test_leave_one_out_measures_by_the_others() -> None:
    assert leave_one_out([1.0, 2.0, 6.0], ["a", "a", "a"]) == pytest.approx([-3.0, -1.5, 4.5])


@pytest.mark.parametrize("groups", [[0], [0, 1, 2]])
def test_an_answer_that_stands_alone_is_neither_good_nor_bad(groups: list[int]) -> None:
    rewards = [5.0 + group for group in groups]
    assert of_groups(rewards, groups, scale=True) == leave_one_out(rewards, groups) == [0.0] * len(groups)


def test_whitened_tokens_have_mean_0_and_deviation_1_over_all_answers() -> None:
    found = torch.cat(whitened([torch.tensor([1.0, 5.0]), torch.tensor([-2.0]), torch.tensor([7.0, 0.0, 1.0])]))
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(found.std()) == pytest.approx(1.0, rel=1e-6)


def test_what_is_all_alike_is_whitened_to_zero() -> None:
    assert torch.cat(whitened([torch.full((3,), 2.0), torch.full((2,), 2.0)])).tolist() == [0.0] * 5
    assert whitened([torch.tensor([4.0])])[0].tolist() == [0.0]
    assert whitened([]) == []


def test_explained_variance_is_1_for_a_prophet_and_0_for_a_constant() -> None:
    returns = torch.tensor([1.0, 2.0, 4.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(returns, torch.full((3,), 9.0)) == pytest.approx(0.0)
    assert explained_variance(torch.ones(3), returns) == 0.0
