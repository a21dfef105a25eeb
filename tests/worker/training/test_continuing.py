# pyright: standard
"""A stage that continues: what it begins with is what the earlier one left, and unlike checkpoints are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardwork.errors import InvalidInput
from shardwork.models.checkpoint import CARRIED
from shardwork.recipes.base import Computed
from shardwork.recipes.orders import ApplyOrder, InitOrder, LearnOrder, MergeOrder
from shardwork.tensors.checkpoint import open_checkpoint, write_checkpoint
from shardwork.tensors.file import write_tensors
from shardwork_coordinator.aggregate import apply, merge
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
STEPS, BATCH = 3, 4
FILES = ("weights.safetensors", "moments_m.safetensors", "moments_v.safetensors")


FIRST_A: dict[str, Any] = {"frozen_a_seed": "a1" * 32}
OTHER_A: dict[str, Any] = {"frozen_a_seed": "b2" * 32, "carried_a": True}
#: name -> method and settings of the first stage, and of the second where they differ
KINDS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "lora": ("lora", {}, {}),
    "full": ("full", {}, {}),
    "partial": ("partial", {}, {}),
    # the second stage's own seed would draw another A
    "ffa": ("lora", FIRST_A, OTHER_A),
    "ffa dora": ("lora", {**FIRST_A, "dora": True}, {**OTHER_A, "dora": True}),
    "scratch": ("full", {}, {}),
}


def continued(
    base: Path, parent: Path, into: Path, method: str, *, from_scratch: bool = False, **changes: Any
) -> Computed:
    tuning = tiny.tuning(method, **changes)
    carries = from_scratch or bool(tuning.frozen_a_seed)
    order = InitOrder(tuning=tuning, from_scratch=from_scratch, continues=True, carries=carries)
    return TorchTrainer("cpu").init(order, tiny.context(into, base=base, parent=parent))


def learning(method: str, **changes: Any) -> LearnOrder:
    """One shard at a constant rate, without warm-up."""
    return tiny.learn_order(method, steps=STEPS, **changes)


def one_round(base: Path, train: Path, checkpoint: Path, work: Path, order: LearnOrder) -> Path:
    """The checkpoint after one shard."""
    learned = tiny.context(work / "learn", base=base, checkpoint=checkpoint, train=train)
    delta = TorchTrainer("cpu").learn(order, learned).outputs["delta"]
    mean = MergeOrder(rule="mean", steps=STEPS, weights=(1,), candidates=("mean",), encoding="fp32")
    merged = merge.compute(mean, tiny.context(work / "merge", checkpoint=checkpoint, delta_0=delta)).outputs
    given = {"step": merged["step-mean"], "moments": merged["moments"]}
    applied = tiny.context(work / "apply", checkpoint=checkpoint, **given)
    return apply.compute(ApplyOrder(steps=STEPS, encoding="fp32"), applied).outputs["checkpoint"]


@pytest.mark.parametrize("kind", KINDS)
def test_two_rounds_of_one_job_are_bitwise_one_round_of_each_of_two(
    kind: str, base_of: BaseOf, train: Path, tmp_path: Path
) -> None:
    scratch = kind == "scratch"
    base = tiny.write_skeleton(tmp_path / "skeleton", "llama") if scratch else base_of("llama")
    method, before, after = KINDS[kind]
    tuning = tiny.tuning(method, **before)
    own = {"tuning": tuning, "from_scratch": scratch}
    new = {"tuning": tiny.tuning(method, **after), "from_scratch": scratch}
    begin = InitOrder(tuning=tuning, from_scratch=scratch, carries=scratch or "frozen_a_seed" in before)
    first = TorchTrainer("cpu").init(begin, tiny.context(tmp_path / "init", base=base)).outputs["checkpoint"]
    halfway = one_round(base, train, first, tmp_path / "one", learning(method, **own))
    second = learning(method, start_step=STEPS, first_row=STEPS * BATCH, **own)
    whole = one_round(base, train, halfway, tmp_path / "two", second)

    begun = continued(base, halfway, tmp_path / "again", method, from_scratch=scratch, **after)
    assert begun.metrics["continued_moments"] == 1 and begun.metrics["continued_step"] == STEPS
    checkpoint = begun.outputs["checkpoint"]
    # its schedule begins anew; the same rows are read to compare
    order = learning(method, first_row=STEPS * BATCH, **new)
    later = one_round(base, train, checkpoint, tmp_path / "later", order)
    carried = {"scratch": ["tokenizer.json"], "ffa": ["frozen.safetensors"], "ffa dora": ["frozen.safetensors"]}
    there = [path.name for path in later.iterdir()]
    assert [name for name in CARRIED if name in there] == carried.get(kind, [])
    for name in (*FILES, *carried.get(kind, [])):
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


def test_a_frozen_a_that_is_not_there_or_another_adapters_is_refused(base_of: BaseOf, tmp_path: Path) -> None:
    """B was learned with its own A: a new one of the right shape would load, and mean another model."""
    base = base_of("llama")
    bare = tiny.first_checkpoint(TorchTrainer("cpu"), base, tmp_path / "bare", "lora", **FIRST_A)
    with pytest.raises(InvalidInput) as caught:
        continued(base, bare, tmp_path / "one", "lora", **OTHER_A)
    assert caught.value.code == "continue.no_frozen_a"
    write_tensors(bare / "frozen.safetensors", {"a": np.zeros((2, 2), np.float32)})
    with pytest.raises(InvalidInput) as caught:
        continued(base, bare, tmp_path / "two", "lora", **OTHER_A)
    assert caught.value.code == "continue.other_frozen_a"


def test_what_is_published_has_the_a_that_was_carried(base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    base, own, new = base_of("llama"), tiny.tuning("lora", **FIRST_A), tiny.tuning("lora", **OTHER_A)
    begin = InitOrder(tuning=own, from_scratch=False, carries=True)
    trainer = TorchTrainer("cpu")
    first = trainer.init(begin, tiny.context(tmp_path / "init", base=base)).outputs["checkpoint"]
    learned = one_round(base, train, first, tmp_path / "one", learning("lora", tuning=own))
    again = continued(base, learned, tmp_path / "again", "lora", **OTHER_A).outputs["checkpoint"]
    published: list[bytes] = []
    for name, checkpoint, tuning in (
        ("x", learned, own),
        ("y", again, new),
        ("z", learned, own),
    ):
        order = tiny.publish_order(tuning=tuning)
        model = trainer.publish(order, tiny.context(tmp_path / name, base=base, checkpoint=checkpoint)).outputs["model"]
        published.append((model / "adapter_model.safetensors").read_bytes())
    assert published[0] == published[1] == published[2]
