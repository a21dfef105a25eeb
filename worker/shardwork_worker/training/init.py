# pyright: standard
"""Phase `init`: the first checkpoint of a job.

Full tuning of a base starts from the base's weights, pre-training from the seed, LoRA from an adapter whose A is
drawn from the seed and whose B is zero; then there are no moments yet, and the first learn shards start AdamW fresh. A
stage that continues starts from its parent, a checkpoint of an earlier stage, with its moments.
"""

from __future__ import annotations

import torch

from shardwork.recipes.base import Computed, Context
from shardwork.recipes.continuing import CONTINUED_MOMENTS, CONTINUED_STEP
from shardwork.recipes.orders import InitOrder

from .checkpoints import write_carried, write_continued, write_first
from .model import build


def init(order: InitOrder, context: Context) -> Computed:
    """Inputs base, parent? -> output checkpoint (round 0). Runs on the CPU whatever the worker's device is.

    Raises InvalidInput "continue.other_tensors" when the parent was made for other parameters.
    """
    cpu = torch.device("cpu")
    base = context.inputs["base"]
    # an adapter begins from the shapes of the base and, for DoRA, its norms: as it is, any worker can read it
    tuning = order.tuning.model_copy(update={"base_bits": None})
    built = build(base, tuning, from_scratch=order.from_scratch, seed=context.seed, device=cpu)
    context.progress(0.8)
    folder = context.output("checkpoint")
    metrics = {"trained_params": float(sum(parameter.numel() for parameter in built.trainable.values()))}
    if order.continues:
        step = write_continued(folder, built, context.inputs["parent"])
        metrics |= {CONTINUED_MOMENTS: float(step is not None), CONTINUED_STEP: float(step or 0)}
    else:
        write_first(folder, built)
    if order.carries:
        write_carried(folder, built, base, from_scratch=order.from_scratch)
    return Computed(outputs={"checkpoint": folder}, metrics=metrics)
