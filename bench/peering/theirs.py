# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""One update of TRL's own `PPOTrainer.train` on given rollouts, overheard: advantages, losses, gradients.

Nothing of its update is written again here. What is put in the trainer's place is where answers come from (the given
ones instead of drawn ones), how good they are, and the order of minibatches. The critic reads the policy's own last
layer, as ours does, because the trainer takes any value model; by itself it would have a network of its own.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers.trainer_callback import PrinterCallback

from shardwork.recipes.objectives import PolicyObjective
from shardwork_worker.training.objectives.policy_losses import pass_order
from tests.worker.training import tiny

from .rollouts import MOST_NEW, PAD, Row

#: of AdamW on both sides; a large epsilon, or Adam would make whole steps out of rounding
RATE, EPS = 2e-3, 1e-4


@dataclass(frozen=True, slots=True)
class Taken:
    """A step: its loss, and the gradients that moved the weights."""

    loss: float
    gradients: Mapping[str, Tensor]


@dataclass(slots=True)
class Overheard:
    #: by row: tokens' advantages before and after they were whitened
    advantages: list[Tensor] = field(default_factory=list[Tensor])
    whitened: list[Tensor] = field(default_factory=list[Tensor])
    steps: list[Taken] = field(default_factory=list[Taken])
    #: as the trainer met them
    rows: list[Row] = field(default_factory=list[Row])


@dataclass(frozen=True, slots=True)
class Start:
    """What both sides begin with; copied, never changed."""

    policy: Any
    head: nn.Linear
    reference: Any


@dataclass(frozen=True, slots=True)
class Passes:
    """So many passes over the rows, each in so many minibatches."""

    passes: int
    minibatches: int


class Critic(nn.Module):
    """A value model of the form that the trainer asks for, on the policy's own layers."""

    base_model_prefix = "backbone"

    def __init__(self, policy: Any, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.score = policy.get_decoder(), head


class Scores(nn.Module):
    """A reward model of the same form that knows each row's score by its prompt."""

    base_model_prefix = "backbone"

    def __init__(self, these: Mapping[tuple[int, ...], Row], context: int) -> None:
        super().__init__()
        self._rows, self._context = these, context

    def backbone(self, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=[torch.where(attention_mask.bool(), input_ids, PAD)])

    def score(self, tokens: Tensor) -> Tensor:
        told = [self._rows[_prompt(one[: self._context])].score for one in tokens]
        return torch.tensor(told)[:, None, None].expand(*tokens.shape, 1)


def _prompt(padded: Tensor) -> tuple[int, ...]:
    return tuple(token for token in padded.tolist() if token != PAD)


def _config(these: Sequence[Row], wanted: PolicyObjective, how: Passes, folder: Path) -> Any:
    from trl.experimental.ppo import PPOConfig  # pyright: ignore[reportMissingImports]

    return PPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=len(these),
        num_mini_batches=how.minibatches,
        num_ppo_epochs=how.passes,
        total_episodes=len(these),
        response_length=MOST_NEW,
        stop_token="eos",
        temperature=wanted.temperature,
        kl_coef=wanted.kl_coefficient,
        gamma=wanted.gamma,
        lam=wanted.lam,
        vf_coef=wanted.value_coefficient,
        cliprange=wanted.clip_low,
        cliprange_value=wanted.value_clip,
        **quiet(),
    )


def update(start: Start, these: Sequence[Row], wanted: PolicyObjective, how: Passes, folder: Path) -> Overheard:
    """What the trainer does with these rows."""
    from trl.experimental.ppo import PPOTrainer, ppo_trainer  # pyright: ignore[reportMissingImports]

    policy, head = copy.deepcopy(start.policy), copy.deepcopy(start.head)
    known = {row.prompt: row for row in these}
    tokenizer = tiny.tokenizer()
    tokenizer.padding_side = "left"
    critic = Critic(policy, head)
    named = {**dict(policy.named_parameters()), "value_head.weight": head.weight}
    optimizer = torch.optim.AdamW(list(named.values()), lr=RATE, betas=(0.9, 0.95), eps=EPS, weight_decay=0.0)
    data = Dataset.from_dict({"input_ids": [list(row.prompt) for row in these]})
    trainer = PPOTrainer(
        args=_config(these, wanted, how, folder),
        processing_class=tokenizer,
        model=policy,
        ref_model=copy.deepcopy(start.reference),
        reward_model=Scores(known, max(len(row.prompt) for row in these)),
        value_model=critic,
        train_dataset=data,
        eval_dataset=data,
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
    )
    found = Overheard()
    _overhear(trainer, optimizer, named, found)

    def given(model: Any, queries: Tensor, _size: int, pad: int, _config: Any) -> tuple[Tensor, Tensor]:
        found.rows = [known[_prompt(query)] for query in queries]
        answers = [[*row.answer, *[PAD] * (MOST_NEW - len(row.answer))] for row in found.rows]
        both = torch.cat([queries, torch.tensor(answers)], dim=1)
        logits = ppo_trainer.forward(model, both, pad).logits[:, queries.shape[1] - 1 : -1]
        return both, logits / (wanted.temperature + 1e-7)

    whiten, number = ppo_trainer.masked_whiten, itertools.count()

    def whitened(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
        made = whiten(values, mask, shift_mean)
        found.advantages = [one[kept] for one, kept in zip(values, mask, strict=True)]
        found.whitened = [one[kept] for one, kept in zip(made, mask, strict=True)]
        return made

    order = SimpleNamespace(random=SimpleNamespace(permutation=lambda size: pass_order(tiny.SEED, next(number), size)))
    with patch.multiple(ppo_trainer, batch_generation=given, masked_whiten=whitened, np=order):
        quieted(trainer).train()
    return found


def quiet() -> dict[str, Any]:
    """In fp32 on the CPU, writing nothing."""
    return {
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "num_sample_generations": 0,
        "disable_tqdm": True,
        "logging_strategy": "no",
    }


def quieted(trainer: Any) -> Any:
    """It prints each update's figures otherwise."""
    trainer.remove_callback(PrinterCallback)
    return trainer


def _overhear(
    trainer: Any, optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], found: Overheard
) -> None:
    losses: list[float] = []
    backward = trainer.accelerator.backward

    def heard(loss: Tensor, **more: Any) -> None:
        losses.append(float(loss.detach()))
        backward(loss, **more)

    def before_step(*_: Any) -> None:
        gradients = {
            name: torch.zeros_like(one) if one.grad is None else one.grad.clone() for name, one in named.items()
        }
        found.steps.append(Taken(losses[-1], gradients))

    trainer.accelerator.backward = heard
    optimizer.register_step_pre_hook(before_step)
