# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""Held-out pairs: losses, accuracy and calibration under the right weights, against the same by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.errors import Corrupt, InvalidInput
from shardwork.recipes.base import Reported
from shardwork.recipes.checks import check
from shardwork.recipes.objectives import LearnObjective, PolicyObjective, PreferenceObjective, RewardObjective
from shardwork.recipes.orders import EvaluateOrder
from shardwork_worker.training.objectives.verdicts import accuracy, calibration_error
from shardwork_worker.training.trainer import TorchTrainer

from .. import tiny
from ..test_evaluate import step_to
from . import made

BaseOf = Callable[[str], Path]


def measured(
    method: str, objective: LearnObjective, base: Path, into: Path, held: Path, size: int = 4
) -> tuple[EvaluateOrder, Path, Mapping[str, float]]:
    """A moved checkpoint, and a candidate whose weights are 1.1 times its."""
    this = made.order(method, objective, head="score" if isinstance(objective, RewardObjective) else "")
    checkpoint = made.moved(made.started(this, base, into), into / "moved")
    step = step_to(checkpoint, into / "step", 1.1)
    order = tiny.evaluate_order(method, objective=objective)
    order = order.model_copy(update={"tuning": this.tuning, "batch_size": size})
    context = tiny.context(into / "out", base=base, checkpoint=checkpoint, eval=held, step_mean=step)
    return order, checkpoint, TorchTrainer("cpu").evaluate(order, context).metrics


def accepted(order: EvaluateOrder, metrics: Mapping[str, float]) -> bool:
    told = Reported(outputs={}, output_bytes={}, output_files={}, metrics=metrics)
    return check("evaluate", order.canonical_json(), told).accepted


def in_front(this: Any, base: Path, checkpoint: Path, scale: float) -> Any:
    model = made.model_at(this, base, checkpoint).model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(scale)
    return model


@pytest.mark.parametrize("method", ["lora", "full", "partial"])
@pytest.mark.parametrize("loss", ["sigmoid", "ipo"])
def test_preferences_are_measured_as_by_hand(loss: Any, method: str, base_of: BaseOf, tmp_path: Path) -> None:
    pairs, values = made.pairs_of(14), [1.0, 0.8] * 7
    held = made.write_eval_pairs(tmp_path / "eval", pairs, values)
    objective = PreferenceObjective(loss=loss, beta=0.5, label_smoothing=0.1 if loss == "sigmoid" else 0.0)
    base = base_of("llama")
    order, checkpoint, told = measured(method, objective, base, tmp_path, held)
    model = in_front(made.order(method, objective), base, checkpoint, 1.1)
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    losses, margins = [], []
    for (prompt, *both), value in list(zip(pairs, values, strict=True))[7:]:
        with torch.no_grad():
            ratios = [
                float((made.told_by(model, prompt, one) - made.told_by(reference, prompt, one)).sum()) for one in both
            ]
        margins.append(0.5 * (ratios[0] - ratios[1]))
        if loss == "ipo":
            apart = ratios[0] / len(both[0]) - ratios[1] / len(both[1])
            losses.append(value * (apart - 1) ** 2 + (1 - value) * (apart + 1) ** 2)
        else:
            share = value * 0.9 + (1 - value) * 0.1
            wrong = math.log1p(math.exp(-margins[-1])), math.log1p(math.exp(margins[-1]))
            losses.append(share * wrong[0] + (1 - share) * wrong[1])
    assert told["mean.test_loss"] == pytest.approx(sum(losses) / 7, rel=1e-5)
    assert told["mean.accuracy"] == pytest.approx(accuracy(margins, values[7:]))
    assert told["mean.calibration_error"] == pytest.approx(calibration_error(margins, values[7:]), rel=1e-4)
    assert accepted(order, told)
    assert not accepted(order, {name: one for name, one in told.items() if name != "mean.accuracy"})
    assert not accepted(order, {**told, "mean.accuracy": 1.2})


@pytest.mark.parametrize("method", ["lora", "full", "partial"])
def test_rewards_are_measured_as_by_hand(method: str, base_of: BaseOf, tmp_path: Path) -> None:
    pairs = made.pairs_of(14)
    held = made.write_eval_pairs(tmp_path / "eval", pairs)
    base, objective = base_of("llama"), RewardObjective()
    order, checkpoint, told = measured(method, objective, base, tmp_path, held)
    model = in_front(made.order(method, objective, head="score"), base, checkpoint, 1.1)
    with torch.no_grad():
        margins = [
            float(model(torch.tensor([prompt + chosen])).logits - model(torch.tensor([prompt + rejected])).logits)
            for prompt, chosen, rejected in pairs[7:]
        ]
    assert told["mean.test_loss"] == pytest.approx(sum(math.log1p(math.exp(-one)) for one in margins) / 7, rel=1e-5)
    assert told["mean.accuracy"] == pytest.approx(sum(one > 0 for one in margins) / 7)
    assert accepted(order, told)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "orpo", "kto"])
def test_how_many_lie_on_the_device_does_not_show(loss: Any, base_of: BaseOf, tmp_path: Path) -> None:
    objective = PreferenceObjective(loss=loss)
    if loss == "kto":
        held = tmp_path / "eval"
        held.mkdir()
        for name in ("selection", "test"):
            rows = [made.row(*one) for one in made.answers_of(7, len(name))]
            made.write_items(held / f"{name}.safetensors", rows, [1.0, 0.0] * 3 + [1.0])
        (held / "index.json").write_text('{"pad_token_id": 0, "rows_per_item": 1}')
    else:
        held = made.write_eval_pairs(tmp_path / "eval", made.pairs_of(14))
    told = [
        measured("full", objective, base_of("llama"), tmp_path / str(size), held, size=size)[2] for size in (2, 5, 64)
    ]
    assert told[1] == pytest.approx(told[0], rel=1e-5, abs=1e-7)
    assert told[2] == pytest.approx(told[0], rel=1e-5, abs=1e-7)
    assert ("mean.accuracy" in told[0]) is (loss != "kto")


def test_scores_of_single_answers_are_learned_and_measured(base_of: BaseOf, tmp_path: Path) -> None:
    answers = made.answers_of(40)
    scores = [float(len(answer)) / 4 for _, answer in answers]
    rows = [made.row(*one) for one in answers]
    this = made.order("full", RewardObjective(data="scores"), head="score")
    losses, _, done = made.learned(
        this, base_of("llama"), tmp_path, train=made.write_train(tmp_path / "train", rows, 1, scores)
    )
    assert losses[-1] < losses[0] and "accuracy" not in done.metrics
    first = float(np.mean([score**2 for score in scores[:4]]))  # an untrained model is near zero
    assert losses[0] == pytest.approx(first, rel=0.5)


def test_a_policy_has_no_held_out_loss(base_of: BaseOf, tmp_path: Path) -> None:
    held = made.write_eval_pairs(tmp_path / "eval", made.pairs_of(4))
    with pytest.raises(InvalidInput, match="no held-out loss"):
        measured("full", PolicyObjective(advantage="grpo", group=2), base_of("llama"), tmp_path, held)


def test_single_rows_are_no_pairs(base_of: BaseOf, tmp_path: Path) -> None:
    rows = [made.row(*one) for one in made.answers_of(16)]
    train = made.write_train(tmp_path / "train", rows, 1)
    with pytest.raises(Corrupt, match="pairs"):
        made.learned(made.order("full", PreferenceObjective()), base_of("llama"), tmp_path, train=train)


def test_a_value_that_is_no_number_is_refused(base_of: BaseOf, tmp_path: Path) -> None:
    train = made.write_pairs(tmp_path / "train", made.pairs_of(16), [float("nan")] * 16)
    with pytest.raises(Corrupt, match="finite"):
        made.learned(made.order("full", PreferenceObjective()), base_of("llama"), tmp_path, train=train)


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "kto", "orpo", "reward"])
def test_however_a_batch_of_items_is_cut_the_numbers_stay(loss: Any, base_of: BaseOf, tmp_path: Path) -> None:
    objective = RewardObjective(centre=0.01) if loss == "reward" else PreferenceObjective(loss=loss)
    head = "score" if loss == "reward" else ""
    rows = [made.row(*one) for one in made.answers_of(40)]
    values = [float(i % 3 > 0) for i in range(40)]
    train = (
        made.write_train(tmp_path / "train", rows, 1, values)
        if loss == "kto"
        else made.write_pairs(tmp_path / "train", made.pairs_of(40))
    )
    found = [
        made.learned(
            made.order("lora", objective, head=head, micro_batch_size=size),
            base_of("llama"),
            tmp_path / str(size),
            train=train,
        )
        for size in (4, 3, 1)
    ]
    for losses, _, done in found[1:]:
        assert losses == pytest.approx(found[0][0], rel=1e-6, abs=1e-7)
        assert done.metrics == pytest.approx(found[0][2].metrics, rel=1e-4, abs=1e-5)


def test_a_pair_that_nobody_is_sure_of_pulls_neither_way(base_of: BaseOf, tmp_path: Path) -> None:
    """DPO with P = 1/2 is least where both answers gained alike, which is where it starts."""
    train = made.write_pairs(tmp_path / "train", made.pairs_of(16), [0.5] * 16)
    this = made.order("lora", PreferenceObjective(), steps=1)
    checkpoint = made.started(this, base_of("llama"), tmp_path)
    losses, final, _ = made.learned(this, base_of("llama"), tmp_path, checkpoint, train=train)
    assert losses == [pytest.approx(math.log(2))]
    before = made.weights_of(checkpoint)
    assert (
        max(float(np.abs(final[name].ravel() - before[name].ravel()).max()) for name in final if "lora_B" in name)
        < 1e-3
    )


def test_calibration_is_0_for_honest_confidence_and_large_for_a_braggart() -> None:
    """Of ten pairs at 70 %, seven are right."""
    sure = math.log(0.7 / 0.3)
    assert calibration_error([sure] * 10, [1.0] * 7 + [0.0] * 3) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error([20.0] * 10, [1.0] * 5 + [0.0] * 5) == pytest.approx(0.5, abs=1e-6)
    assert calibration_error([-sure] * 10, [0.7] * 10) == pytest.approx(0.4)
    assert accuracy([0.0, 2.0, -2.0], [1.0, 1.0, 1.0]) == pytest.approx(0.5)


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
def test_an_adapters_dropout_touches_what_is_learned_and_no_reference(
    loss: Any, base_of: BaseOf, tmp_path: Path
) -> None:
    """Dropped inputs are a row's own, so cutting the batch shows nowhere; kto looks at rows in between as well."""
    rows, values = [made.row(*one) for one in made.answers_of(40)], [float(i % 3 > 0) for i in range(40)]
    train = tmp_path / "train"
    train = made.write_train(train, rows, 1, values) if loss == "kto" else made.write_pairs(train, made.pairs_of(40))
    found: dict[tuple[int, float], list[float]] = {}
    for size, dropout in ((4, 0.3), (1, 0.3), (4, 0.0)):
        this = made.order("lora", PreferenceObjective(loss=loss, beta=1.0), micro_batch_size=size, steps=4)
        this = this.model_copy(update={"tuning": this.tuning.model_copy(update={"dropout": dropout})})
        checkpoint = made.moved(
            made.started(this, base_of("llama"), tmp_path / f"{size}-{dropout}"), tmp_path / f"m{size}-{dropout}"
        )
        found[size, dropout], _, _ = made.learned(
            this, base_of("llama"), tmp_path / f"{size}-{dropout}", checkpoint, train=train
        )
    assert found[1, 0.3] == pytest.approx(found[4, 0.3], rel=1e-5, abs=1e-6)
    assert found[4, 0.0] != pytest.approx(found[4, 0.3], rel=1e-3)
