# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The oracle: our loop gives TRL's SFTTrainer's and transformers' Trainer's losses and weights over ten steps.

Same rows in the same order, same start, same AdamW, clip and constant rate; one thread, fp32. transformers runs the
same operations, so it is compared bitwise; TRL sums the loss in chunks of its own, so it is compared within 1e-6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardwork.recipes.orders import LearnOrder, Method
from shardwork.tensors.file import read_tensors
from shardwork_worker.training.device import settle, use_threads
from shardwork_worker.training.model import build
from shardwork_worker.training.trainer import TorchTrainer

from . import tiny

BaseOf = Callable[[str], Path]
STEPS = 10
RATE = 2e-3
#: what is the same for both reference trainers
SETTINGS: Mapping[str, Any] = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 4,
    "learning_rate": RATE,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.95,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.1,
    "max_grad_norm": 1.0,
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "report_to": "none",
    "logging_steps": 1,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
    "seed": 1,
    "train_sampling_strategy": "sequential",
}
QUIET = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning")
pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]


def order(method: str, **changes: Any) -> LearnOrder:
    made = tiny.learn_order(method, steps=STEPS, **changes)
    return made.model_copy(update={"schedule": made.schedule.model_copy(update={"learning_rate": RATE})})


#: adapters beside the plain one
KINDS_OF_LORA: Mapping[str, Mapping[str, object]] = {
    "dora": {"dora": True},
    "rslora": {"rslora": True, "layers": "top:1"},
    "ffa": {"frozen_a_seed": "17" * 32},
}


def ours(this: LearnOrder, base: Path, train: Path, into: Path) -> tuple[list[float], dict[str, np.ndarray]]:
    """Our losses and final weights by parameter name, through the phases as a worker runs them."""
    losses: list[float] = []
    trainer = TorchTrainer("cpu")
    changes = this.tuning.model_dump(exclude={"method"})
    checkpoint = tiny.first_checkpoint(trainer, base, into / "init", this.tuning.method.value, **changes)
    context = tiny.context(into / "learn", base=base, checkpoint=checkpoint, train=train)
    context = replace(context, tell=lambda _fraction, loss: losses.append(loss or 0.0))
    done = trainer.learn(this, context)
    return losses, read_tensors(done.outputs["delta"] / "delta.safetensors")


def same_start(this: LearnOrder, base: Path) -> Any:
    """The model that our shard starts from, for the reference trainer; without dropout, as ours learns."""
    settle("cpu")
    use_threads(1)
    model = build(base, this.tuning, from_scratch=False, seed=tiny.SEED, device=torch.device("cpu")).model
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters() if p.requires_grad}


def losses_of(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def relative(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """L2 of the difference over L2 of the whole.

    Biases of attention's keys are left out: softmax cancels them, so their gradient is zero but for rounding, and Adam
    makes steps of full size out of the rounding.
    """
    assert one.keys() == other.keys()
    one, other = without_key_bias(one), without_key_bias(other)
    apart = sum(float(((one[name].ravel() - other[name].ravel()) ** 2).sum()) for name in one)
    whole = sum(float((array**2).sum()) for array in other.values())
    return float((apart / whole) ** 0.5)


def without_key_bias(named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """gpt2 keeps the biases of query, key and value in one vector."""
    return {
        name: np.delete(array.ravel(), np.s_[array.size // 3 : 2 * array.size // 3])
        if name.endswith("c_attn.bias")
        else array
        for name, array in named.items()
    }


@pytest.mark.parametrize("micro", [4, 2])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_pretrain_equals_transformers_trainer_bitwise(kind: str, micro: int, base_of: BaseOf, tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    rows = tiny.packed(48)
    train = tiny.write_train(tmp_path / "train", rows, rows_per_file=16)
    this = order("full", micro_batch_size=micro)
    losses, final = ours(this, base_of(kind), train, tmp_path)
    model = same_start(this, base_of(kind))
    settings = {
        **SETTINGS,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": 4 // micro,
        "output_dir": str(tmp_path / "hf"),
    }
    # for some architectures Trainer counts a row's first token, which nothing predicts, in the mean
    dataset: Any = [{"input_ids": row.tokens, "labels": [-100, *row.tokens[1:]]} for row in rows]
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=dataset,
    )
    trainer.train()
    theirs = weights(model)
    assert losses == pytest.approx(losses_of(trainer), rel=1e-6)
    assert final.keys() == theirs.keys()
    assert all(np.array_equal(final[name].ravel(), theirs[name].ravel()) for name in theirs)


@pytest.mark.parametrize("method", [*(method.value for method in Method), *KINDS_OF_LORA])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_sft_equals_trl(kind: str, method: str, base_of: BaseOf, train: Path, tmp_path: Path) -> None:
    from datasets import Dataset  # type: ignore[import-untyped]
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    this = order("lora" if method in KINDS_OF_LORA else method)
    this = this.model_copy(update={"tuning": this.tuning.model_copy(update=KINDS_OF_LORA.get(method, {}))})
    losses, final = ours(this, base_of(kind), train, tmp_path)
    model = same_start(this, base_of(kind))
    rows = tiny.rows(45)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**SETTINGS, output_dir=str(tmp_path / "trl"), max_length=64, completion_only_loss=True),
        train_dataset=Dataset.from_list([{"input_ids": row.tokens, "completion_mask": row.mask} for row in rows]),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert losses == pytest.approx(losses_of(trainer), rel=1e-6)
    assert relative(final, weights(model)) <= 1e-6
