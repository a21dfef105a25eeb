# pyright: standard
"""GPT-2, Llama, Qwen and Gemma style folders through every method, from first checkpoint to a model that others load.

Each case: init, two learn shards, merge, evaluate, apply, publish, and the published folder in plain transformers or
PEFT, whose logits must be those of the checkpoint. The gate runs each method and each family once; the whole table is
nightly.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from shardwork.models.folder import inspect_model
from shardwork.recipes.measure import trained_params
from shardwork.recipes.orders import ApplyOrder, EvaluateOrder, LearnOrder, MergeOrder, PublishOrder, Tuning
from shardwork_coordinator.aggregate import apply, merge
from shardwork_worker.training.checkpoints import load_weights
from shardwork_worker.training.model import build
from shardwork_worker.training.publish import probe
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
KINDS = ("gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2")
#: name -> method and its settings
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {}),
    "lora on top layers": ("lora", {"layers": "top:1"}),
    "dora": ("lora", {"dora": True}),
    "rslora": ("lora", {"rslora": True}),
    "ffa": ("lora", {"frozen_a_seed": "5a" * 32}),
    "dropout": ("lora", {"dropout": 0.1}),
    "partial": ("partial", {"last_layers": 1}),
    "full": ("full", {}),
    "pretrain": ("full", {}),
}
#: one family for each method and one method for each family
QUICK = {
    *(("gpt2", "dora"), ("llama", "lora on top layers"), ("qwen3", "ffa"), ("gemma", "lora"), ("gemma2", "full")),
    *(("qwen2", "partial"), ("qwen3", "pretrain")),
}
CASES = [
    pytest.param(kind, method, marks=[] if (kind, method) in QUICK else pytest.mark.nightly)
    for kind in KINDS
    for method in METHODS
]
STEPS = 2


def one_round(base: Path, tuning: Tuning, rows: Path, held_out: Path, into: Path) -> Path:
    """The checkpoint after a round of two shards, each of whose phases ran as a worker or the executor runs it."""
    trainer = TorchTrainer("cpu")
    changes = tuning.model_dump(exclude={"method"})
    first = tiny.first_checkpoint(trainer, base, into / "init", tuning.method.value, **changes)
    deltas: dict[str, Path] = {}
    for index in range(2):
        order: LearnOrder = tiny.learn_order(tuning=tuning, steps=STEPS, first_row=index * STEPS * 4)
        context = tiny.context(into / f"learn-{index}", base=base, checkpoint=first, train=rows)
        deltas[f"delta_{index}"] = trainer.learn(order, context).outputs["delta"]
    merging = MergeOrder(rule="mean", steps=STEPS, weights=(1, 1), candidates=("mean", "mean2"), encoding="fp32")
    merged = merge.compute(merging, tiny.context(into / "merge", checkpoint=first, **deltas)).outputs
    steps = {f"step_{name}": merged[f"step-{name}"] for name in merging.candidates}
    asked = EvaluateOrder(tuning=tuning, from_scratch=False, candidates=merging.candidates, max_length=64, batch_size=4)
    context = tiny.context(into / "evaluate", base=base, checkpoint=first, eval=held_out, **steps)
    losses = trainer.evaluate(asked, context).metrics
    assert losses["mean.test_loss"] != losses["before.test_loss"]
    context = tiny.context(into / "apply", checkpoint=first, step=merged["step-mean"], moments=merged["moments"])
    return apply.compute(ApplyOrder(steps=STEPS, encoding="fp32"), context).outputs["checkpoint"]


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_a_family_goes_through_a_method_and_loads_elsewhere_with_the_same_logits(
    kind: str, method: str, base_of: BaseOf, train: Path, held_out: Path, tmp_path: Path
) -> None:
    base, (how, changes) = base_of(kind), METHODS[method]
    tuning = tiny.tuning(how, **changes)
    rows = train
    if method == "pretrain":
        rows = tiny.write_train(tmp_path / "packed", tiny.packed(24), rows_per_file=8)
    checkpoint = one_round(base, tuning, rows, held_out, tmp_path)
    order: PublishOrder = tiny.publish_order(tuning=tuning, recipe="pretrain" if method == "pretrain" else "sft")
    context = tiny.context(tmp_path / "publish", base=base, checkpoint=checkpoint)
    folder = TorchTrainer("cpu").publish(order, context).outputs["model"]
    ours = build(base, tuning, from_scratch=False, seed=tiny.SEED, device=torch.device("cpu"))
    load_weights(ours, checkpoint)
    assert sum(value.numel() for value in ours.trainable.values()) == trained_params(inspect_model(base), tuning)
    expected, untouched = probe(ours.model), probe(AutoModelForCausalLM.from_pretrained(base, local_files_only=True))
    if how == "lora":
        plain: Any = AutoModelForCausalLM.from_pretrained(base, local_files_only=True)
        plain = PeftModel.from_pretrained(plain, folder)
    else:
        plain = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    assert torch.equal(probe(plain.eval()), expected)
    assert not torch.equal(expected, untouched)
