"""Continuing: what a stage that begins at an earlier checkpoint must agree with, and how that is said.

Owns which stages may continue and what the init phase tells of it. Which checkpoint a name means is the coordinator's
(`rpc.continuing`), comparing tensors the worker's (`training.init`). Pure; called by `learning`, the client and the
machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInput
from ..jobs.spec import StageSpec, is_local
from .base import Reported

#: what init tells of the checkpoint that it began with: whether Adam's moments go on, and from which step
CONTINUED_MOMENTS, CONTINUED_STEP = "continued_moments", "continued_step"
MOST_STEPS = 2**53


def check_continues(stage: StageSpec, params: Mapping[str, Any]) -> None:
    """Refuses a stage whose checkpoint would mean something else than it did. Raises InvalidInput "continue.*"."""
    if stage.continue_from is None:
        return
    if stage.base_model is None:
        raise InvalidInput(
            "continue.needs_base",
            f"Stage {stage.name!r} continues from a checkpoint, but makes a new tokenizer, whose ids would be others.",
            next_step="Set base_model to the model that the earlier stage published, and leave params.preset out.",
            stage=stage.name,
            key="continue_from",
        )
    if params.get("merge") == "ffa":
        raise InvalidInput(
            "continue.frozen_a",
            f"Stage {stage.name!r} freezes an A that is drawn for it alone, and the checkpoint's B knows another.",
            next_step="Use merge: mean, or leave continue_from out.",
            stage=stage.name,
            key="continue_from",
        )


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
