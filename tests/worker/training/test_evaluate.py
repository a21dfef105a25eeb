# pyright: standard
"""Held-out losses: of the right weights, on the right rows, with an honest standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from shardwork.errors import InvalidInput
from shardwork.tensors.checkpoint import write_step
from shardwork.tensors.file import read_tensors
from shardwork_coordinator.machine.choice import choose
from shardwork_worker.training.evaluate import WORST_LOSS, HeldOut, error_of_rise, standard_error
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def trainer() -> TorchTrainer:
    return TorchTrainer("cpu")


def step_to(checkpoint: Path, into: Path, scale: float, encoding: str = "fp32") -> Path:
    """A candidate whose weights are the checkpoint's times `scale`."""
    before = read_tensors(checkpoint / "weights.safetensors")
    write_step(into, encoding, before, {name: array * np.float32(scale) for name, array in before.items()}, 5, 5)
    return into


def by_hand(model: torch.nn.Module, rows: list[tiny.PreparedRow]) -> float:
    """Mean loss over labels, one row at a time and without padding."""
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.tokens])
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].double().log_softmax(-1)
        for place in range(1, len(row.tokens)):
            if row.mask[place]:
                total -= float(logs[place - 1, row.tokens[place]])
                count += 1
    return total / count


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_the_loss_is_that_of_rows_read_one_by_one(
    kind: str, trainer: TorchTrainer, base_of: BaseOf, held_out: Path, tmp_path: Path
) -> None:
    base = base_of(kind)
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    step = step_to(first, tmp_path / "step", 1.0)
    context = tiny.context(tmp_path / "out", base=base, checkpoint=first, eval=held_out, step_mean=step)
    metrics = trainer.evaluate(tiny.evaluate_order(), context).metrics
    model = AutoModelForCausalLM.from_pretrained(base)
    rows = tiny.rows(13, seed=9)
    assert metrics["mean.selection_loss"] == pytest.approx(by_hand(model, rows[:6]), rel=1e-5)
    assert metrics["mean.test_loss"] == pytest.approx(by_hand(model, rows[6:]), rel=1e-5)
    assert metrics["before.test_loss"] == metrics["mean.test_loss"]
    assert metrics.keys() == {"before.test_loss", "mean.selection_loss", "mean.test_loss", "mean.test_se"}


def test_every_candidate_starts_from_the_checkpoint(
    trainer: TorchTrainer, base_of: BaseOf, held_out: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    steps = {
        f"step_{name}": step_to(first, tmp_path / name, scale, "int8")
        for name, scale in (("mean", 1.5), ("nesterov", 1.0))
    }
    context = tiny.context(tmp_path / "out", base=base, checkpoint=first, eval=held_out, **steps)
    metrics = trainer.evaluate(tiny.evaluate_order(candidates=("mean", "nesterov")), context).metrics
    assert metrics["nesterov.test_loss"] == metrics["before.test_loss"] != metrics["mean.test_loss"]


def test_a_candidate_that_blew_up_gets_a_loss_that_is_a_number(
    trainer: TorchTrainer, base_of: BaseOf, held_out: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    before = read_tensors(first / "weights.safetensors")
    huge = {
        name: array * np.float32(1e30) if name in ("lm_head.weight", "model.norm.weight") else array
        for name, array in before.items()
    }
    write_step(tmp_path / "step", "fp32", before, huge, 5, 5)
    step = tmp_path / "step"
    context = tiny.context(tmp_path / "out", base=base, checkpoint=first, eval=held_out, step_mean=step)
    metrics = trainer.evaluate(tiny.evaluate_order(), context).metrics
    assert metrics["mean.test_loss"] == WORST_LOSS
    # an error as large as the loss would excuse it
    assert metrics["mean.test_se"] == 0.0
    assert choose(metrics, ("mean",), metrics["before.test_loss"], 0).rolled_back


def test_one_part_stands_in_for_an_empty_other(trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    rows = tiny.write_eval(tmp_path / "eval", [], tiny.rows(3))
    step = step_to(first, tmp_path / "step", 1.1)
    context = tiny.context(tmp_path / "out", base=base, checkpoint=first, eval=rows, step_mean=step)
    metrics = trainer.evaluate(tiny.evaluate_order(), context).metrics
    assert metrics["mean.selection_loss"] == metrics["mean.test_loss"]


def test_no_held_out_row_at_all_is_refused(trainer: TorchTrainer, base_of: BaseOf, tmp_path: Path) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(trainer, base, tmp_path / "init")
    rows = tiny.write_eval(tmp_path / "eval", [], [tiny.PreparedRow([5, 6], [0, 0])])
    context = tiny.context(tmp_path / "out", base=base, checkpoint=first, eval=rows)
    with pytest.raises(InvalidInput) as caught:
        trainer.evaluate(tiny.evaluate_order(candidates=()), context)
    assert caught.value.code == "rows.no_eval"


def test_the_standard_error_is_that_of_a_mean_when_rows_have_one_label_each() -> None:
    values = [1.0, 2.0, 4.0, 5.0]
    found = HeldOut(values, [1, 1, 1, 1])
    assert found.loss == 3.0
    assert standard_error(found) == pytest.approx(float(np.std(values, ddof=1)) / math.sqrt(4))


def test_rows_of_equal_loss_a_token_have_no_spread() -> None:
    assert standard_error(HeldOut([2.0, 6.0], [1, 3])) == 0.0


def test_one_row_has_no_standard_error() -> None:
    assert standard_error(HeldOut([2.0], [1])) == 0.0


def test_the_error_of_a_rise_is_that_of_the_differences() -> None:
    before = HeldOut([1.0, 20.0, 3.0, 40.0], [1, 4, 1, 8])
    even = HeldOut([value + 0.1 * count for value, count in zip(before.sums, before.labels, strict=True)], [1, 4, 1, 8])
    assert error_of_rise(before, even) == pytest.approx(0.0, abs=1e-12)
    uneven = HeldOut([1.2, 20.0, 3.1, 41.0], [1, 4, 1, 8])
    rises = HeldOut([0.2, 0.0, 0.1, 1.0], [1, 4, 1, 8])
    assert error_of_rise(before, uneven) == pytest.approx(standard_error(rises))


def test_items_that_were_all_alike_may_come_apart() -> None:
    """The first round of a reward model: every pair had ln 2, and what a step does to seven of them is chance still."""
    one = math.log(2)
    before = HeldOut([one + 0.001 * place for place in (-2, 1, 0, 2, -1, 1, -1)], [1] * 7, apart=0.5)
    after = HeldOut([one + rise for rise in (0.11, -0.06, 0.08, -0.03, 0.05, -0.04, 0.04)], [1] * 7, apart=0.5)
    assert after.loss > 1.01 * before.loss
    assert after.loss < before.loss + 3 * error_of_rise(before, after)
    # rows of text are no such items
    assert after.loss > before.loss + 3 * error_of_rise(HeldOut(before.sums, before.labels), after)
    ruined = HeldOut([27.0, *after.sums[1:]], [1] * 7, apart=0.5)
    assert ruined.loss > before.loss + 3 * error_of_rise(before, ruined)


def test_a_step_that_ruins_one_row_is_not_excused_by_its_own_spread() -> None:
    before = HeldOut([3.0, 3.1, 2.9, 3.0], [1, 1, 1, 1])
    ruined = HeldOut([30.0, 3.1, 2.9, 3.0], [1, 1, 1, 1])
    assert ruined.loss > before.loss + 3 * error_of_rise(before, ruined)
