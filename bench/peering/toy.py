# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""One toy task learned by TRL's trainer and by ours: the task, first model and reward of `aligning`.

Both get the same model, reward, number of answers, and of steps of as many answers, AdamW's constants and learning rate
by step count, one thread. What stays theirs: how they draw, one state more behind an answer's end, no bound on the
gradient's norm, and a critic, by itself a network of its own, here also one that shares the policy's layers, as ours.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from aligning import cells, first, task
from aligning.measures import ANSWER, good
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

from shardwork.recipes.base import Computed, ShardPlan
from shardwork.recipes.orders import LearnOrder
from shardwork_worker.training.heads.value import value_head
from shardwork_worker.training.loop import rate_at

from .theirs import Critic, quiet, quieted

OURS, THEIRS, SHARED = "ours", "trl", "trl, shared critic"
SIDES = (OURS, THEIRS, SHARED)
#: answers to a prompt in a round
EACH = 2


@dataclass(slots=True)
class Listener:
    """Keeps our learn shards' orders, and changes nothing."""

    orders: list[LearnOrder] = field(default_factory=list[LearnOrder])

    def order(self, phase: str, order_json: str) -> str:
        if phase == "learn":
            self.orders.append(LearnOrder.model_validate_json(order_json))
        return order_json

    def result(self, phase: str, plan: ShardPlan, seed: bytes, computed: Computed) -> Computed:
        return computed


@dataclass(slots=True)
class Toy:
    """One seed's task, and who learned it how well."""

    folder: Path
    base: Path
    shared: cells.Seed
    heard: Listener = field(default_factory=Listener)

    def learned(self, side: str) -> dict[str, float]:
        """Shares of answers to held-out prompts that the reward likes, and CPU seconds of learning. Ours comes first:
        what it learns by, the others learn by, too."""
        begun = time.process_time()
        model = self._ours() if side == OURS else self._theirs(side)
        seconds = time.process_time() - begun
        taste = self.shared.taste
        after = good(taste, self.shared.said(model))
        return {"before": good(taste, self.shared.start), "after": after, "cpu_s": seconds}

    def _ours(self) -> Path:
        return self.shared.policy("ppo", 1, answers=EACH, meddler=self.heard).model

    def _theirs(self, side: str) -> Path:
        from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore[reportMissingImports]

        tokenizer = PreTrainedTokenizerFast.from_pretrained(self.base, padding_side="left")
        torch.manual_seed(self.shared.seed)
        policy, reference = (AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32) for _ in range(2))
        critic = Critic(policy, value_head(policy)) if side == SHARED else _critic(self.base)
        learning = nn.ModuleList([policy, critic])
        optimizer, scheduler = self._optimizer(learning)
        args = PPOConfig(
            output_dir=str(self.folder / "trl"),
            seed=self.shared.seed,
            per_device_train_batch_size=cells.ROLLOUTS,
            num_mini_batches=cells.INNER,
            num_ppo_epochs=1,
            total_episodes=cells.ROUNDS * cells.ROLLOUTS,
            local_rollout_forward_batch_size=cells.ROLLOUTS,
            response_length=ANSWER,
            stop_token="eos",
            temperature=1.0,
            **quiet(),
        )
        data = Dataset.from_dict({"input_ids": self._prompts(tokenizer)})
        trainer = PPOTrainer(
            args=args,
            processing_class=tokenizer,
            model=policy,
            ref_model=reference,
            reward_model=Exact(self.shared.taste, tokenizer),
            value_model=critic,
            train_dataset=data,
            eval_dataset=data,
            optimizers=(optimizer, scheduler),
        )
        quieted(trainer).train()
        made = self.shared.place.folder("trl-model")
        shutil.copytree(self.base, made)
        policy.save_pretrained(made)
        return made

    def _prompts(self, tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
        """Each one as often as it takes for a whole batch; the trainer shuffles them."""
        tokens = [tokenizer.encode(asked) for asked in task.prompts(held_out=False)]
        return tokens * -(-cells.ROLLOUTS * EACH // len(tokens))

    def _optimizer(self, learning: nn.Module) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
        """Our order's. The trainer moves the rate once an update, so its steps share that of the middle one."""
        order = self.heard.orders[0]
        wanted, schedule = order.optimizer, order.schedule
        optimizer = torch.optim.AdamW(
            list(learning.parameters()),
            lr=1.0,
            betas=(wanted.beta1, wanted.beta2),
            eps=wanted.eps,
            weight_decay=wanted.weight_decay,
        )
        middle = cells.INNER // 2
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda update: rate_at(schedule, update * cells.INNER + middle)
        )
        return optimizer, rate


class Exact(nn.Module):
    """The verifiable reward in the form of the trainer's reward models."""

    base_model_prefix = "backbone"

    def __init__(self, taste: task.Taste, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self._taste, self._tokenizer = taste, tokenizer

    def backbone(self, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        return SimpleNamespace(hidden_states=[torch.where(attention_mask.bool(), input_ids, first.PAD)])

    def score(self, tokens: Tensor) -> Tensor:
        told = [float(self._is_good(row)) for row in tokens.tolist()]
        return torch.tensor(told)[:, None, None].expand(*tokens.shape, 1)

    def _is_good(self, row: list[int]) -> bool:
        text = str(self._tokenizer.decode([token for token in row if token not in (first.PAD, first.EOS)]))
        asked, line, said = text.partition("\n")
        return self._taste.is_good(asked + line, said)


def _critic(base: Path) -> Any:
    """As TRL's own examples make it."""
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
