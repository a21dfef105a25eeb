"""Phase "apply": the chosen step and the averaged moments make the next checkpoint, exactly as decoded."""

from __future__ import annotations

from shardwork.errors import Conflict
from shardwork.recipes.base import Computed, Context
from shardwork.recipes.orders import ApplyOrder
from shardwork.tensors.checkpoint import STEP_FORMAT, apply_update, open_checkpoint, read_update


def compute(order: ApplyOrder, context: Context) -> Computed:
    """Inputs checkpoint, step, moments; output checkpoint. Raises Conflict "apply.order" for another step."""
    update = read_update(context.inputs["step"], STEP_FORMAT)
    if update.encoding != order.encoding or update.steps != order.steps:
        raise Conflict(
            "apply.order",
            "The chosen step is not the one that was planned.",
            planned=f"{order.steps} steps in {order.encoding}",
            found=f"{update.steps} steps in {update.encoding}",
        )
    folder = context.output("checkpoint")
    apply_update(context.inputs["checkpoint"], context.inputs["step"], context.inputs["moments"], folder)
    with open_checkpoint(folder) as after:
        metrics = {"adam_step": float(after.adam_step), "round": float(after.round)}
    return Computed(outputs={"checkpoint": folder}, metrics=metrics)
