"""Continuing: what the init phase tells of the checkpoint that a stage begins at, and how that is said.

Which checkpoint a name means is the coordinator's (`rpc.continuing`), comparing tensors the worker's (`training.init`),
keeping a tokenizer `prepare`'s. Pure; called by `learning`, the client and the machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..jobs.spec import StageSpec, is_local
from .base import Reported

#: what init tells of the checkpoint that it began with: whether Adam's moments go on, and from which step
CONTINUED_MOMENTS, CONTINUED_STEP = "continued_moments", "continued_step"
MOST_STEPS = 2**53


def parent_name(stage: StageSpec) -> str:
    """What the stage continues from as everybody may read it: of a folder its last name; empty when it begins anew."""
    named = stage.continue_from or ""
    return named.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] if is_local(named) else named


def told(stage: StageSpec, numbers: Mapping[str, float]) -> str:
    """ "3f2a.tune.checkpoint (weights and Adam's moments after 50 steps)"; without the brackets before it began."""
    name = parent_name(stage)
    if not name or CONTINUED_MOMENTS not in numbers:
        return name
    if not numbers[CONTINUED_MOMENTS]:
        return f"{name} (weights only)"
    return f"{name} (weights and Adam's moments after {int(numbers[CONTINUED_STEP]):,} steps)"


def odd_metric(reported: Reported) -> str:
    """The metric of init that cannot be; empty when all can."""
    if reported.metrics.get(CONTINUED_MOMENTS, 0) not in (0, 1):
        return CONTINUED_MOMENTS
    return "" if 0 <= reported.metrics.get(CONTINUED_STEP, 0) < MOST_STEPS else CONTINUED_STEP
