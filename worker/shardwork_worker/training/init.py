# pyright: standard
"""Phase `init`: the first checkpoint of a job.

Full tuning of a base starts from the base's weights, pre-training from the seed, LoRA from an adapter whose A is
drawn from the seed and whose B is zero. There are no moments yet; the first learn shards start AdamW fresh.
"""

from __future__ import annotations

import torch

from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import InitOrder

from .checkpoints import write_first
from .model import build


def init(order: InitOrder, context: Context) -> Computed:
    """Inputs base -> output checkpoint (round 0, no moments). Runs on the CPU whatever the worker's device is."""
    cpu = torch.device("cpu")
    base = context.inputs["base"]
    # an adapter begins from the shapes of the base and, for DoRA, its norms: as it is, any worker can read it
    tuning = order.tuning.model_copy(update={"base_bits": None})
    built = build(base, tuning, from_scratch=order.from_scratch, seed=context.seed, device=cpu)
    context.progress(0.8)
    folder = context.output("checkpoint")
    write_first(folder, built)
    parameters = sum(parameter.numel() for parameter in built.trainable.values())
    return Computed(outputs={"checkpoint": folder}, metrics={"trained_params": float(parameters)})
