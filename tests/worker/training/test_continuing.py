# pyright: standard
"""A stage that continues: what it begins with is what the earlier one left, and unlike checkpoints are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwork.errors import InvalidInput
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import ApplyOrder, InitOrder, LearnOrder, MergeOrder
from shardwork.tensors.checkpoint import open_checkpoint, write_checkpoint
from shardwork_coordinator.aggregate import apply, merge
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
STEPS, BATCH = 3, 4
FILES = ("weights.safetensors", "moments_m.safetensors", "moments_v.safetensors")


def continued(base: Path, parent: Path, into: Path, method: str, **changes: Any) -> Computed:
    order = InitOrder(tuning=tiny.tuning(method, **changes), from_scratch=False, continues=True)
    return TorchTrainer("cpu").init(order, tiny.context(into, base=base, parent=parent))


def learning(method: str, *, start_step: int = 0, first_row: int = 0) -> LearnOrder:
    """One shard at a constant rate, without warm-up."""
    return tiny.learn_order(method, steps=STEPS, start_step=start_step, first_row=first_row)


def one_round(base: Path, train: Path, checkpoint: Path, work: Path, order: LearnOrder) -> Path:
    """The checkpoint after one shard."""
    learned = tiny.context(work / "learn", base=base, checkpoint=checkpoint, train=train)
    delta = TorchTrainer("cpu").learn(order, learned).outputs["delta"]
    mean = MergeOrder(rule="mean", steps=STEPS, weights=(1,), candidates=("mean",), encoding="fp32")
    merged = merge.compute(mean, tiny.context(work / "merge", checkpoint=checkpoint, delta_0=delta)).outputs
    given = {"step": merged["step-mean"], "moments": merged["moments"]}
    applied = tiny.context(work / "apply", checkpoint=checkpoint, **given)
    return apply.compute(ApplyOrder(steps=STEPS, encoding="fp32"), applied).outputs["checkpoint"]


@pytest.mark.parametrize("method", ["lora", "full", "partial"])
def test_two_rounds_of_one_job_are_bitwise_one_round_of_each_of_two(
    method: str, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "init", method)
    halfway = one_round(base, train, first, tmp_path / "one", learning(method))
    second = learning(method, start_step=STEPS, first_row=STEPS * BATCH)
    whole = one_round(base, train, halfway, tmp_path / "two", second)

    begun = continued(base, halfway, tmp_path / "again", method)
    assert begun.metrics["continued_moments"] == 1 and begun.metrics["continued_step"] == STEPS
    checkpoint = begun.outputs["checkpoint"]
    # its schedule begins anew; the same rows are read to compare
    later = one_round(base, train, checkpoint, tmp_path / "later", learning(method, first_row=STEPS * BATCH))
    for name in FILES:
        assert (later / name).read_bytes() == (whole / name).read_bytes(), name
    with open_checkpoint(later) as opened:
        # Adam's count goes on, the rounds are the new job's own
        assert (opened.adam_step, opened.round) == (2 * STEPS, 1)


def test_every_worker_begins_with_the_same_bytes(base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "init", "lora")
    parent = one_round(base, train, first, tmp_path / "one", learning("lora"))
    one, other = (continued(base, parent, tmp_path / name, "lora").outputs["checkpoint"] for name in ("a", "b"))
    assert tiny.same_files(one, other)


def test_without_moments_or_by_another_method_only_the_weights_go_on(
    base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "init", "full")
    learned = one_round(base, train, first, tmp_path / "one", learning("full"))
    with open_checkpoint(learned) as opened:
        assert opened.m is not None and opened.v is not None
        other = tmp_path / "other"
        write_checkpoint(other, opened.weights, m=opened.m, v=opened.v, method="partial", adam_step=STEPS, round=1)
        bare = tmp_path / "bare"
        write_checkpoint(bare, opened.weights, m=None, v=None, method="full", adam_step=STEPS, round=1)
    for parent in (other, bare):
        begun = continued(base, parent, tmp_path / f"{parent.name}-begun", "full")
        assert begun.metrics["continued_moments"] == 0 and begun.metrics["continued_step"] == 0
        with open_checkpoint(begun.outputs["checkpoint"]) as opened:
            assert (opened.method, opened.adam_step, opened.m, opened.v) == ("full", 0, None, None)
        weights = begun.outputs["checkpoint"] / "weights.safetensors"
        assert weights.read_bytes() == (learned / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("made", "wanted", "first"),
    [
        (("lora", {"rank": 4}), ("lora", {"rank": 2}), "base_model.model.model.layers.0.mlp.down_proj.lora_A"),
        (("full", {}), ("lora", {}), "base_model.model.model.layers.0.mlp.down_proj.lora_A"),
        (("full", {}), ("partial", {}), "lm_head.weight"),
        (("lora", {}), ("lora", {"dora": True}), "base_model.model.model.layers.0.mlp.down_proj.lora_magnitude"),
        (("lora", {}), ("lora", {"frozen_a_seed": "ab" * 32}), "base_model.model.model.layers.0.mlp.down_proj.lora_A"),
    ],
)
def test_unlike_tensors_are_refused_and_the_first_is_named(
    made: tuple[str, dict[str, Any]],
    wanted: tuple[str, dict[str, Any]],
    first: str,
    base_of: BaseOf,
    tmp_path: Path,
) -> None:
    base = base_of("llama")
    parent = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "made", made[0], **made[1])
    with pytest.raises(InvalidInput) as caught:
        continued(base, parent, tmp_path / "wanted", wanted[0], **wanted[1])
    assert caught.value.why.code == "continue.other_tensors"
    assert caught.value.why.evidence["tensor"].startswith(first)
    assert caught.value.why.evidence["checkpoint_has"] != caught.value.why.evidence["stage_wants"]


def test_moments_that_cannot_be_are_refused(base_of: BaseOf, tmp_path: Path) -> None:
    base = base_of("llama")
    first = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "init", "lora")
    with open_checkpoint(first) as opened:
        weights = {name: np.array(opened.weights[name]) for name in opened.weights}
    zeros = {name: np.zeros_like(value) for name, value in weights.items()}
    below = {name: value - np.float32(1) for name, value in zeros.items()}
    write_checkpoint(tmp_path / "odd", weights, m=zeros, v=below, method="lora", adam_step=1, round=1)
    with pytest.raises(InvalidInput, match="negative"):
        continued(base, tmp_path / "odd", tmp_path / "begun", "lora")
