# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Rollouts at their edges: what is left out, what moves nothing, what is refused, and batches cut in any way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardwork.errors import Corrupt, InvalidInput
from shardwork.recipes.base import Reported
from shardwork.recipes.checks import check
from shardwork.recipes.objectives import PolicyObjective
from shardwork.recipes.orders import LearnOrder, Optimizer
from shardwork.tensors.checkpoint import write_checkpoint
from shardwork_worker.training.objectives.policy_losses import k3, pass_order, value_errors

from ..test_oracle import relative
from . import made

BaseOf = Callable[[str], Path]
ADVANTAGES = ("ppo", "grpo", "rloo")
STILL = Optimizer(weight_decay=0.0)


def wanted(advantage: Any, **changes: Any) -> PolicyObjective:
    settings = {"group": 2, "kl_coefficient": 0.02, "max_new_tokens": made.MOST_NEW, **changes}
    return PolicyObjective(advantage=advantage, **settings)


def order(objective: PolicyObjective, method: str = "full", **changes: Any) -> LearnOrder:
    head = "value" if objective.advantage == "ppo" else ""
    made_order = made.order(method, objective, head=head, **{"steps": 4, **changes})
    return made_order.model_copy(update={"optimizer": changes.get("optimizer", STILL)})


def rollouts(this: LearnOrder, base: Path, into: Path, **changes: Any) -> tuple[Path, dict[str, Path]]:
    """A moved checkpoint and honest answers of it; `changes`: rows, scores, or a shift of some log-probabilities."""
    assert isinstance(this.objective, PolicyObjective)
    rows = changes.get("rows") or made.rollout_rows(4, this.objective.group)
    scores = changes.get("scores") or [float(np.cos(3 * i)) for i in range(len(rows))]
    checkpoint = made.moved(made.started(this, base, into), into / "moved")
    model = made.model_at(this, base, checkpoint).model
    with torch.no_grad():
        told = [made.told_by(model, prompt, answer, this.objective.temperature) for prompt, answer in rows]
    for row, by in changes.get("shifts", {}).items():
        told[row] = told[row] - by
    inputs = made.write_rollouts(into / "in", rows, this.objective, [one.tolist() for one in told], scores)
    return checkpoint, inputs


def reported(this: LearnOrder, metrics: dict[str, float]) -> bool:
    files: dict[str, int] = dict.fromkeys(("delta.safetensors", "m.safetensors", "v.safetensors", "update.json"), 1)
    told = Reported(outputs={"delta": "a"}, output_bytes={"delta": 4}, output_files={"delta": files}, metrics=metrics)
    return check("learn", this.canonical_json(), told).accepted


@pytest.mark.parametrize("method", ["lora", "full", "partial"])
@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_however_a_minibatch_is_cut_the_numbers_stay(
    advantage: str, method: str, base_of: BaseOf, tmp_path: Path
) -> None:
    whole = order(wanted(advantage, entropy_coefficient=0.01), method)
    checkpoint, inputs = rollouts(whole, base_of("llama"), tmp_path)
    found = [
        made.learned(this, base_of("llama"), tmp_path / str(size), checkpoint, **inputs)
        for size in (4, 3, 1)
        for this in [whole.model_copy(update={"micro_batch_size": size})]
    ]
    for losses, final, done in found[1:]:
        # of rloo the ratio carries the rounding of sums of some 60 nats
        assert losses == pytest.approx(found[0][0], rel=1e-6, abs=5e-6 if advantage == "rloo" else 1e-6)
        # what softmax cancels is moved by rounding alone, at full size by Adam
        assert relative(final, found[0][1]) <= 1e-5
        assert done.metrics == pytest.approx(found[0][2].metrics, rel=1e-4, abs=1e-5)
    assert reported(whole, dict(found[0][2].metrics))


@pytest.mark.parametrize("advantage", ["grpo", "rloo"])
def test_rewards_that_are_all_alike_teach_nothing_and_are_no_error(
    advantage: str, base_of: BaseOf, tmp_path: Path
) -> None:
    this = order(wanted(advantage, kl_coefficient=0.0))
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, scores=[1.0] * 8)
    losses, final, done = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    assert losses == [0.0] * 4
    before = made.weights_of(checkpoint)
    assert all(np.array_equal(final[name].ravel(), before[name].ravel()) for name in final)
    assert done.metrics["reward"] == 1.0
    assert reported(this, dict(done.metrics))


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_answers_of_another_policy_are_left_out_and_counted(advantage: str, base_of: BaseOf, tmp_path: Path) -> None:
    this, base = order(wanted(advantage)), base_of("llama")
    checkpoint, inputs = rollouts(this, base, tmp_path, shifts={1: 0.06, 4: 0.04, 6: 3.0})
    _, _, done = made.learned(this, base, tmp_path / "drifted", checkpoint, **inputs)
    assert done.metrics["left_out"] == 2
    _, _, all_of_them = made.learned(
        this.model_copy(update={"objective": wanted(advantage, drift=4.0)}),
        base,
        tmp_path / "all",
        checkpoint,
        **inputs,
    )
    assert all_of_them.metrics["left_out"] == 0


def test_when_every_answer_is_anothers_nothing_is_learned(base_of: BaseOf, tmp_path: Path) -> None:
    this = order(wanted("grpo"))
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, shifts=dict.fromkeys(range(8), 1.0))
    losses, final, done = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    before = made.weights_of(checkpoint)
    assert losses == [0.0] * 4 and done.metrics["left_out"] == 8 and done.metrics["tokens"] == 0
    assert all(np.array_equal(final[name].ravel(), before[name].ravel()) for name in final)
    assert reported(this, dict(done.metrics))


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_answers_of_one_token_and_groups_of_one(advantage: str, base_of: BaseOf, tmp_path: Path) -> None:
    this = order(wanted(advantage, group=1))
    rows = [([5, 6, 7 + i], [1]) for i in range(4)]
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, rows=rows, scores=[1.0, 0.0, 2.0, -1.0])
    losses, _, done = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    assert all(np.isfinite(losses)) and done.metrics["length"] == 1.0
    assert (losses[-1] != 0.0) is (advantage != "rloo")  # alone, only values and grpo's price of KL are left


def test_the_policy_goes_where_the_reward_is(base_of: BaseOf, tmp_path: Path) -> None:
    """The likelier of two answers that it learns is the better one."""
    this = order(wanted("grpo", kl_coefficient=0.0), steps=6)
    rows = [([5, 6, 7], [9, 1]), ([5, 6, 7], [11, 1])] * 2
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, rows=rows, scores=[1.0, 0.0, 1.0, 0.0])
    _, final, _ = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    built = made.model_at(this, base_of("llama"), checkpoint)
    before = [float(made.told_by(built.model, *row).sum().detach()) for row in rows[:2]]
    with torch.no_grad():
        for name, values in final.items():
            built.trainable[name].copy_(torch.from_numpy(values).view_as(built.trainable[name]))
    after = [float(made.told_by(built.model, *row).sum().detach()) for row in rows[:2]]
    assert after[0] > before[0] and after[1] < before[1]


def test_values_foresee_a_reward_that_the_answer_so_far_decides(base_of: BaseOf, tmp_path: Path) -> None:
    """Steps enough on the same answers: what a round's own few steps cannot show."""
    calm = {"kl_coefficient": 0.0, "value_coefficient": 1.0, "value_clip": 0.0, "lam": 1.0, "drift": 1e9}
    this, base = order(wanted("ppo", **calm), steps=80), base_of("llama")
    rows = [([5, 6, 7], [9, 20, 21, 1]), ([5, 6, 7], [11, 20, 21, 1])] * 2
    checkpoint, inputs = rollouts(this, base, tmp_path, rows=rows, scores=[1.0, -1.0, 1.0, -1.0])
    _, final, before = made.learned(this, base, tmp_path, checkpoint, **inputs)
    later = tmp_path / "later"
    shaped = {name: final[name].reshape(array.shape) for name, array in made.weights_of(checkpoint).items()}
    write_checkpoint(later, shaped, m=None, v=None, method="full", adam_step=0, round=2)
    once = this.model_copy(update={"steps": 1})
    _, _, after = made.learned(once, base, tmp_path / "again", later, **inputs)
    # at the first of four tokens nobody can know
    assert before.metrics["explained_variance"] < 0.2 and after.metrics["explained_variance"] > 0.7


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_refused(bad: float, base_of: BaseOf, tmp_path: Path) -> None:
    this = order(wanted("grpo"))
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, scores=[1.0] * 7 + [bad])
    with pytest.raises(Corrupt, match="finite"):
        made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)


def test_scores_of_other_answers_are_refused(base_of: BaseOf, tmp_path: Path) -> None:
    this = order(wanted("grpo"))
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path, scores=[1.0] * 6)
    with pytest.raises(Corrupt):
        made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)


def test_an_answer_too_long_for_the_order_is_left_out(base_of: BaseOf, tmp_path: Path) -> None:
    this = order(wanted("grpo"), max_length=16)
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path)
    too_long = sum(len(prompt) + len(answer) > 16 for prompt, answer in made.rollout_rows(4, 2))
    _, _, done = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    assert done.metrics["left_out"] == too_long > 0


def test_a_policy_without_the_head_that_it_needs_is_refused(base_of: BaseOf, tmp_path: Path) -> None:
    this = made.order("full", wanted("ppo"))
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path)
    with pytest.raises(InvalidInput, match="head"):
        made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)


def test_a_frozen_a_stays_frozen_although_the_adapter_was_off_for_the_reference(
    base_of: BaseOf, tmp_path: Path
) -> None:
    this = order(wanted("grpo"), "lora")
    this = this.model_copy(update={"tuning": this.tuning.model_copy(update={"frozen_a_seed": "17" * 32})})
    checkpoint, inputs = rollouts(this, base_of("llama"), tmp_path)
    _, final, _ = made.learned(this, base_of("llama"), tmp_path, checkpoint, **inputs)
    assert final and not any("lora_A" in name for name in final)


def test_each_pass_takes_every_answer_once_in_an_order_of_its_own() -> None:
    orders = [pass_order(b"seed", number, 9) for number in range(3)]
    assert all(sorted(one) == list(range(9)) for one in orders)
    assert orders[0] != orders[1] != orders[2]
    assert pass_order(b"seed", 1, 9) == orders[1] != pass_order(b"other", 1, 9)


def test_kl_is_never_negative_and_zero_where_nothing_changed() -> None:
    told = torch.tensor([-1.0, -2.0, -0.5])
    assert k3(told, told).tolist() == [0.0] * 3
    assert (k3(told, told + torch.tensor([0.5, -0.5, 2.0])) > 0).all()


def test_a_value_that_moved_too_far_is_charged_as_if_it_had_not() -> None:
    values, old, returns = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.0]), torch.tensor([1.0, 3.0])
    assert value_errors(values, old, returns, 0.2).tolist() == pytest.approx([0.5 * 0.64, 0.5 * 2.8**2])
    assert value_errors(values, old, returns, 0.0).tolist() == [0.0, 2.0]


def test_a_policys_loss_may_be_negative_and_others_may_not(tmp_path: Path) -> None:
    told = {"train_loss": -0.2, "loss_first": -0.1, "loss_last": -0.3, "tokens": 10.0, "clip_fraction": 0.1}
    assert reported(order(wanted("grpo")), told)
    assert not reported(made.order("full", None), told)  # type: ignore[arg-type]
    assert not reported(order(wanted("grpo")), {**told, "clip_fraction": 1.5})
    assert not reported(order(wanted("grpo")), {**told, "train_loss": -1e7})
