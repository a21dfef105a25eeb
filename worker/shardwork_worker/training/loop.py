# pyright: standard
# mypy: disable-error-code="no-untyped-call"
"""The inner loop: AdamW steps over given batches, with the moments going in and coming out.

Gives what `transformers.Trainer` gives on the same batches (tests compare the two): fused AdamW, decay on everything
but biases and norms, gradients clipped by their global norm, and a batch's loss normalised by the labels of the whole
batch, however it is cut into micro-batches. What is minimised is an `Objective`'s; the next token's is here. Knows no
folders; `learn` reads and writes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from shardwork.recipes.orders import LearnOrder, Optimizer, Schedule

from .batches import IGNORE, Batch, Row, collate
from .device import autocast
from .micro import MicroBatch
from .model import Built
from .objectives.objective import Objective, Part, Tally, added
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


class NextToken:
    """The objective of text: cross entropy of each label, normalised by the labels of the whole batch."""

    measures: tuple[str, ...] = ()

    def __init__(self, built: Built, order: LearnOrder, rows: RowSource) -> None:
        self._built, self._order, self._rows = built, order, rows

    def prepare(self, size: int) -> None:
        """Nothing."""

    def batch(self, step: int) -> list[Row]:
        first = self._order.first_row + step * self._order.batch_size
        return [self._rows.row(number) for number in range(first, first + self._order.batch_size)]

    def whole(self, batch: Sequence[Row], size: int) -> int:
        return sum(row.label_count for row in batch)

    def part(self, items: Sequence[Row], whole: int) -> Part:
        built = self._built
        batch = collate(items, self._rows.pad_token_id, built.device)
        if built.dropping:
            built.dropping.look_at(batch.input_ids, batch.attention_mask)
        with autocast(built.device, self._order.precision):
            return Part(batch_loss(built.model, batch, whole))

    def tokens(self, items: Sequence[Row]) -> int:
        return sum(len(row.tokens) for row in items)

    def found(self) -> Mapping[str, float]:
        return {}


@dataclass(frozen=True, slots=True)
class Taken:
    """One step: its loss in nats, tokens read, and what the objective saw."""

    loss: float
    tokens: int
    tally: Tally


def run_steps(
    built: Built,
    order: LearnOrder,
    optimizer: torch.optim.AdamW,
    objective: Objective,
    micro: MicroBatch,
    team: Team = ALONE,
) -> Iterator[Taken]:
    """Takes the order's steps, one per item. `micro` shrinks where it must."""
    parameters = list(built.trainable.values())
    for step in range(order.steps):
        batch = objective.batch(step)
        taken = micro.fitting(partial(_accumulate, objective, batch, team), built.zero_grad, team.any)
        loss = team.add(parameters, taken.loss)
        tally = dict(zip(taken.tally, team.totals(list(taken.tally.values())), strict=True))
        if order.optimizer.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(parameters, order.optimizer.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(order.schedule, order.start_step + step)
        optimizer.step()
        optimizer.zero_grad()
        yield Taken(loss, taken.tokens, tally)


def _accumulate(objective: Objective, batch: Sequence[Any], team: Team, size: int) -> Taken:
    """Adds this rank's part of the batch's gradient, `size` items at a time; the last may be fewer."""
    whole = objective.whole(batch, size)
    mine = team.share(batch)
    total = 0.0
    tallies: list[Mapping[str, tuple[float, float]]] = []
    for start in range(0, len(mine), size):
        part = objective.part(mine[start : start + size], whole)
        part.loss.backward()
        total += float(part.loss.detach())
        tallies.append(part.tally)
    return Taken(total, objective.tokens(batch), added(tallies, objective.measures))
