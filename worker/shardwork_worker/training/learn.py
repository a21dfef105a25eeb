# pyright: standard
"""Phase `learn`: one shard's inner steps from checkpoint to delta.

A pure function of the order, the checkpoint and the rows. Order and seed fix everything; what is left to the machine
is its arithmetic (device, thread count).
"""

from __future__ import annotations

import math
from contextlib import nullcontext

from shardwork.errors import InvalidInput
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import LearnOrder

from .batches import TrainRows
from .checkpoints import load_moments, load_weights, write_shard_delta
from .loop import make_optimizer, moments_of, run_steps
from .model import Built, check_length


def learn(order: LearnOrder, context: Context, built: Built) -> Computed:
    """Inputs checkpoint, train -> output delta; metrics loss_first, loss_last, train_loss, tokens.

    `built` is the order's model; its learning weights are overwritten by the checkpoint's. Losses are in nats a label;
    tokens counts what was read, padding not included.
    Raises InvalidInput "trainer.diverged" when a loss is not finite.
    """
    check_length(built, order.max_length)
    checkpoint = context.inputs["checkpoint"]
    load_weights(built, checkpoint)
    moments = load_moments(checkpoint)
    rows = TrainRows(context.inputs["train"], order.max_length, built.vocabulary)
    optimizer = make_optimizer(built, order.optimizer, moments)
    losses: list[float] = []
    tokens = 0
    with built.dropping.during(context.seed) if built.dropping else nullcontext():
        for loss, read in run_steps(built, order, optimizer, rows.row, rows.pad_token_id):
            losses.append(_checked(loss, len(losses), order))
            tokens += read
            if built.dropping:
                built.dropping.step = len(losses)
            context.progress(len(losses) / order.steps, loss=loss)
    folder = context.output("delta")
    after = moments_of(optimizer, built, moments.step + order.steps)
    write_shard_delta(folder, checkpoint, built, after, order=order)
    return Computed(
        outputs={"delta": folder},
        metrics={
            "loss_first": losses[0],
            "loss_last": losses[-1],
            "train_loss": sum(losses) / len(losses),
            "tokens": float(tokens),
        },
    )


def _checked(loss: float, step: int, order: LearnOrder) -> float:
    """Stops a shard that has diverged: its delta would be screened out anyway, and would hide why."""
    if math.isfinite(loss):
        return loss
    raise InvalidInput(
        "trainer.diverged",
        "The training loss is no longer a finite number.",
        next_step="Lower the learning rate, or lengthen the warm-up.",
        step=order.start_step + step,
        learning_rate=order.schedule.learning_rate,
    )
