# pyright: standard
"""Phase `learn`: one shard's inner steps from checkpoint to delta.

A pure function of the order, the checkpoint and the rows. Order and seed fix everything; what is left to the machine
is its arithmetic (device, thread count).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from shardwork.errors import InvalidInput
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.checks import WORST_LOSS, most_loss
from shardwork.recipes.orders import LearnOrder

from .batches import TrainRows
from .checkpoints import load_moments, load_weights, write_shard_delta
from .loop import Moments, NextToken, Taken, make_optimizer, moments_of, run_steps
from .micro import MicroBatch
from .model import Built, check_length
from .objectives.choice import objective_of
from .objectives.objective import Objective, added, means
from .packed import check_packed
from .recompute import recomputing
from .team.team import ALONE, Team


def learn(order: LearnOrder, context: Context, built: Built, micro: MicroBatch, team: Team = ALONE) -> Computed:
    """Inputs checkpoint, train -> output delta; metrics loss_first, loss_last, train_loss, tokens, and the objective's.

    `built` is the order's model; its learning weights are overwritten by the checkpoint's. Losses are in nats a label,
    or the objective's own; tokens counts what the steps read, padding not included. A shard that ran out of memory on
    the way also tells micro_batch_before and micro_batch_size, the rows it began with and those that fitted, and
    memory_halvings.
    Raises InvalidInput "trainer.diverged" when a loss is beyond all bounds, LimitExceeded "trainer.out_of_memory".
    """
    checkpoint = context.inputs["checkpoint"]
    steps: list[Taken] = []
    with inner_loop(order, context, built) as loop:
        for taken in loop.steps(micro, team):
            _checked(taken.loss, len(steps), order)
            steps.append(taken)
            context.progress(len(steps) / order.steps, loss=taken.loss)
        measured = loop.measured(steps)
    losses = [taken.loss for taken in steps]
    train_loss = sum(losses) / len(losses)
    if abs(train_loss) >= most_loss(order.objective) or max(abs(losses[0]), abs(losses[-1])) >= WORST_LOSS:
        # the coordinator would refuse such figures as those of a liar
        raise _diverged(f"The training loss rose to {max(losses):,.4g} nats a token.", len(losses) - 1, order)
    folder = context.output("delta")
    after = moments_of(loop.optimizer, built, loop.moments.step + order.steps)
    write_shard_delta(folder, checkpoint, built, after, order=order)
    metrics = {
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "train_loss": train_loss,
        "tokens": float(sum(taken.tokens for taken in steps)),
        **measured,
    }
    if micro.halvings:
        metrics |= {"micro_batch_before": float(micro.before), "micro_batch_size": float(micro.size)}
        metrics["memory_halvings"] = float(micro.halvings)
    return Computed(outputs={"delta": folder}, metrics=metrics)


def follow(order: LearnOrder, context: Given, built: Built, micro: MicroBatch, team: Team) -> None:
    """Takes the same steps as rank 0 of the team, on this rank's rows, and writes nothing."""
    with inner_loop(order, context, built) as loop:
        for step, taken in enumerate(loop.steps(micro, team)):
            _checked(taken.loss, step, order)


class Given(Protocol):
    """What the steps need of a shard's context."""

    @property
    def inputs(self) -> Mapping[str, Path]: ...
    @property
    def seed(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class InnerLoop:
    """A model at its checkpoint, about to take an order's steps."""

    built: Built
    order: LearnOrder
    objective: Objective
    moments: Moments
    optimizer: torch.optim.AdamW

    def steps(self, micro: MicroBatch, team: Team) -> Iterator[Taken]:
        """One item a step."""
        micro.fitting(self.objective.prepare, self.built.zero_grad, team.any)
        for number, taken in enumerate(run_steps(self.built, self.order, self.optimizer, self.objective, micro, team)):
            if self.built.dropping:
                self.built.dropping.step = number + 1
            yield taken

    def measured(self, steps: Sequence[Taken]) -> dict[str, float]:
        """The objective's own metrics: means over the steps, and what was known before the first."""
        seen = added([taken.tally for taken in steps], self.objective.measures)
        return {**means(seen), **self.objective.found()}


@contextmanager
def inner_loop(order: LearnOrder, context: Given, built: Built) -> Iterator[InnerLoop]:
    """Loads the checkpoint, and inside the block dropout and gradient checkpointing are as the order says."""
    check_length(built, order.max_length)
    load_weights(built, context.inputs["checkpoint"])
    if order.packed:
        check_packed(built)
    moments = load_moments(context.inputs["checkpoint"])
    objective = _objective(order, context, built)
    optimizer = make_optimizer(built, order.optimizer, moments)
    dropping = built.dropping.during(context.seed) if built.dropping else nullcontext()
    with dropping, recomputing(built.model, order.gradient_checkpointing):
        yield InnerLoop(built, order, objective, moments, optimizer)


def _objective(order: LearnOrder, context: Given, built: Built) -> Objective:
    if order.objective is not None:
        return objective_of(order, context.inputs, context.seed, built)
    rows = TrainRows(context.inputs["train"], order.max_length, built.vocabulary, packed=order.packed)
    return NextToken(built, order, rows)


def _checked(loss: float, step: int, order: LearnOrder) -> None:
    """Stops a shard that has diverged: its delta would be screened out anyway, and would hide why."""
    if math.isfinite(loss):
        return
    raise _diverged("The training loss is no longer a finite number.", step, order)


def _diverged(sentence: str, step: int, order: LearnOrder) -> InvalidInput:
    return InvalidInput(
        "trainer.diverged",
        sentence,
        next_step="Lower the learning rate, or lengthen the warm-up.",
        step=order.start_step + step,
        learning_rate=order.schedule.learning_rate,
    )
