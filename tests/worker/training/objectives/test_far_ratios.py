# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""A policy that went very far from the one that drew its answers: ratios beyond what fp32 holds, either way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shardwork.recipes.objectives import PolicyObjective
from shardwork_worker.training.objectives.policy_losses import FARTHEST, clipped_loss, k3, ratio

from . import made
from .test_policy import order, rollouts, wanted

BaseOf = Callable[[str], Path]
CLIPPED = PolicyObjective(advantage="grpo", group=2)
#: nats at which exp leaves fp32
OVERFLOW = 88.8
#: tokens of an answer
LONG = 40
#: makes log-probabilities large
COLD = 0.3


def lost(apart: float, advantage: float) -> tuple[float, float]:
    """Loss, and its gradient by the new log-probability."""
    told = torch.tensor([apart], requires_grad=True)
    losses, _ = clipped_loss(ratio(told), torch.tensor([advantage]), CLIPPED)
    losses.sum().backward()
    assert told.grad is not None
    return float(losses.detach()), float(told.grad)


@pytest.mark.parametrize("apart", [OVERFLOW, 100.0, 1e4, float(np.finfo(np.float32).max)])
@pytest.mark.parametrize("advantage", [1.5, 0.0, -1.5])
def test_a_ratio_beyond_fp32_gives_a_finite_loss_and_no_gradient(apart: float, advantage: float) -> None:
    loss, gradient = lost(apart, advantage)
    assert np.isfinite(loss) and gradient == 0.0
    # a better answer is held at the clip, as ever; a worse one costs what it does at the bound
    held = {1.5: -1.5 * (1 + CLIPPED.clip_high), 0.0: 0.0, -1.5: 1.5 * float(np.exp(FARTHEST))}[advantage]
    assert loss == pytest.approx(held, rel=1e-6, abs=0)


@pytest.mark.parametrize("apart", [-1e4, -100.0])
@pytest.mark.parametrize("advantage", [1.5, -1.5])
def test_a_ratio_of_nothing_has_no_gradient(apart: float, advantage: float) -> None:
    loss, gradient = lost(apart, advantage)
    assert loss == pytest.approx(0.0 if advantage > 0 else 1.5 * (1 - CLIPPED.clip_low), rel=1e-6, abs=1e-40)
    assert abs(gradient) < 1e-40


def test_within_the_bound_nothing_changes_by_a_bit() -> None:
    """Ratio, k3 and both gradients are those of the formula as it is written."""
    far = torch.cat([torch.linspace(-60, FARTHEST, 4001), torch.randn(4000) * 0.1])
    for ours, plain in ((ratio, torch.exp), (lambda x: k3(-x, torch.zeros(())), lambda x: x.exp() - x - 1)):
        one, other = far.clone().requires_grad_(), far.clone().requires_grad_()
        found, expected = ours(one), plain(other)
        found.sum().backward()
        expected.sum().backward()
        assert torch.equal(found, expected) and one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("apart", [OVERFLOW, 1e4])
def test_the_price_of_kl_stays_finite(apart: float) -> None:
    told = torch.tensor([-apart], requires_grad=True)
    price = k3(told, torch.zeros(1))
    price.sum().backward()
    assert bool(torch.isfinite(price).all()) and told.grad is not None and bool(torch.isfinite(told.grad).all())


def test_a_shard_whose_policy_leaps_says_numbers(base_of: BaseOf, tmp_path: Path) -> None:
    """Of rloo an answer is one action: one step carries a good one far, and the next ones meet its ratio."""
    rows = [([5, 6, 7], [9 + i % 2] * LONG) for i in range(4)]
    this = order(wanted("rloo", kl_coefficient=0.0, max_new_tokens=LONG, temperature=COLD), steps=2)
    this = this.model_copy(update={"schedule": this.schedule.model_copy(update={"learning_rate": 0.02})})
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, rows=rows, scores=[1.0, 0.0, 1.0, 0.0])
    losses, final, done = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    built = made.model_at(this, base_of("llama"), checkpoint)
    with torch.no_grad():
        before = made.told_by(built.model, *rows[0], COLD).sum()
        for name, values in final.items():
            built.trainable[name].copy_(torch.from_numpy(values).view_as(built.trainable[name]))
        leapt = float(made.told_by(built.model, *rows[0], COLD).sum() - before)
    assert leapt > OVERFLOW
    assert all(np.isfinite(losses)) and all(np.isfinite(values).all() for values in final.values())
    assert done.metrics["clip_fraction"] > 0
