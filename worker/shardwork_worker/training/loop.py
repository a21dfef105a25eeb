# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The inner loop: AdamW steps over given batches, with the moments going in and coming out.

Gives what `transformers.Trainer` gives on the same batches (tests compare the two): fused AdamW, decay on everything
but biases and norms, gradients clipped by their global norm, and a batch's loss normalised by the labels of the whole
batch, however it is cut into micro-batches. Knows no folders; `learn` reads and writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from shardwork.recipes.orders import LearnOrder, Optimizer, Schedule

from .batches import IGNORE, Batch, Row, collate
from .device import autocast
from .micro import MicroBatch
from .model import Built
from .team.team import ALONE, Team

#: the rule of transformers' Trainer: these names, and everything inside a LayerNorm, do not decay
NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


class RowSource(Protocol):
    """Rows by number, and what they are padded with."""

    pad_token_id: int

    def row(self, number: int) -> Row: ...


#: share of the steps after warm-up over which "wsd" falls
WSD_DECAY = 0.2


@dataclass(frozen=True, slots=True)
class Moments:
    """Adam's first and second moment by parameter name, and the number of steps behind them."""

    m: Mapping[str, Tensor]
    v: Mapping[str, Tensor]
    step: int


def rate_at(schedule: Schedule, step: int) -> float:
    """The learning rate of global step `step` (0-based): linear warm-up that starts above zero, then the shape."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    if schedule.kind == "constant":
        return schedule.learning_rate
    span = max(1, schedule.total_steps - schedule.warmup_steps)
    done = min(1.0, (step - schedule.warmup_steps) / span)
    match schedule.kind:
        case "cosine":
            left = 0.5 * (1 + math.cos(math.pi * done))
        case "wsd":
            left = min(1.0, (1 - done) / WSD_DECAY)
        case _:
            left = 1 - done
    return schedule.learning_rate * (schedule.min_ratio + (1 - schedule.min_ratio) * left)


def token_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy of each next token in nats, fp32 [rows, length]; zero where there is no label."""
    return _cross_entropy(model, batch, "none").view(batch.labels.shape)


def batch_loss(model: nn.Module, batch: Batch, labels: int) -> Tensor:
    """Summed cross entropy over `labels`, the number of labels in the whole batch that this is a part of."""
    return _cross_entropy(model, batch, "sum") / max(1, labels)


def _cross_entropy(model: nn.Module, batch: Batch, reduction: str) -> Tensor:
    logits = model(**batch.inputs(), use_cache=False).logits.float()
    targets = nn.functional.pad(batch.labels, (0, 1), value=IGNORE)[:, 1:].contiguous()
    return nn.functional.cross_entropy(
        logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=IGNORE, reduction=reduction
    )


def make_optimizer(built: Built, settings: Optimizer, moments: Moments) -> torch.optim.AdamW:
    """AdamW whose state continues from `moments`; with none it starts fresh."""
    decaying = decay_names(built)
    groups = [
        {
            "params": [parameter for name, parameter in built.trainable.items() if (name in decaying) is decays],
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=True)
    for name, parameter in built.trainable.items():
        if name in moments.m:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(moments.step), dtype=torch.float32, device=built.device),
                "exp_avg": moments.m[name].to(built.device, copy=True),
                "exp_avg_sq": moments.v[name].to(built.device, copy=True),
            }
    return optimizer


def moments_of(optimizer: torch.optim.AdamW, built: Built, step: int) -> Moments:
    """The optimiser's state by name; zeros for a parameter that never had a gradient."""
    state = optimizer.state
    return Moments(
        m={name: state[p]["exp_avg"] if p in state else torch.zeros_like(p) for name, p in built.trainable.items()},
        v={name: state[p]["exp_avg_sq"] if p in state else torch.zeros_like(p) for name, p in built.trainable.items()},
        step=step,
    )


def decay_names(built: Built) -> set[str]:
    """Names of the learning parameters that weight decay applies to."""
    in_layer_norm = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in built.model.named_modules()
        if isinstance(module, nn.LayerNorm)
        for name, _ in module.named_parameters()
    }
    return {name for name in built.trainable if name not in in_layer_norm and not NO_DECAY.search(name.lower())}


def run_steps(
    built: Built,
    order: LearnOrder,
    optimizer: torch.optim.AdamW,
    rows: RowSource,
    micro: MicroBatch,
    team: Team = ALONE,
) -> Iterator[tuple[float, int]]:
    """Takes the order's steps, one per item: (loss in nats a label, tokens read). `micro` shrinks where it must."""
    for step in range(order.steps):
        first = order.first_row + step * order.batch_size
        batch = [rows.row(number) for number in range(first, first + order.batch_size)]
        take = partial(_accumulate, built, order, batch, rows.pad_token_id, team)
        loss = micro.fitting(take, built.model.zero_grad, team.any)
        loss = team.add(list(built.trainable.values()), loss)
        parameters = list(built.trainable.values())
        if order.optimizer.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, order.optimizer.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(order.schedule, order.start_step + step)
        optimizer.step()
        optimizer.zero_grad()
        yield loss, sum(len(row.tokens) for row in batch)


def _accumulate(
    built: Built, order: LearnOrder, rows: Sequence[Row], pad_token_id: int, team: Team, size: int
) -> float:
    """Adds this rank's part of the batch's gradient, `size` rows at a time; the last may be fewer. Returns its loss."""
    labels = sum(row.label_count for row in rows)
    mine = team.share(rows)
    total = 0.0
    for start in range(0, len(mine), size):
        batch = collate(mine[start : start + size], pad_token_id, built.device)
        if built.dropping:
            built.dropping.look_at(batch.input_ids, batch.attention_mask)
        with autocast(built.device, order.precision):
            loss = batch_loss(built.model, batch, labels)
        loss.backward()
        total += float(loss.detach())
    return total
