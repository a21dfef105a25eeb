"""Observing: what a recipe makes of the numbers that a phase reported, for the stage and for its round.

Owns where they are kept: the stage's numbers feed later plans, the round's measures are shown. A recipe that measures
its checkpoints itself (a policy, by its reward) says here which was the best, and when the stage has had enough. Pure;
called by `phases`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardwork.recipes import recipe
from shardwork.recipes.base import Observed, RoundKind

from ..events import Change, Note, Slice
from .moves import name
from .planning import dump, spec_of

#: among a stage's numbers: its recipe says which checkpoint is the best
IS_MEASURED = "is_measured"


def observed(state: Slice, metrics: Sequence[Mapping[str, float]], change: Change) -> Slice:
    """The slice after its recipe looked at the numbers of the phase that just ended, a mapping for each shard."""
    numbers = json.loads(state.stage.numbers_json)
    seen = recipe(state.stage.recipe).observe(
        Observed(
            stage=spec_of(state),
            round_number=state.round.number,
            kind=RoundKind(state.round.kind),
            phase=state.round.phase,
            metrics=metrics,
            numbers=numbers,
        )
    )
    if not (seen.numbers or seen.measures or seen.is_best or seen.stop):
        return state
    numbers |= dict(seen.numbers)
    stage, round_ = state.stage, state.round
    if seen.is_best:
        artifacts = json.loads(stage.artifacts_json)
        stage = replace(stage, artifacts_json=dump({**artifacts, "best_checkpoint": artifacts["checkpoint"]}))
    if seen.stop is not None:
        numbers["stopped"] = 1.0
        stage = replace(stage, why_json=seen.stop.to_json())
        change.notes.append(Note.because("stage.stopped_early", name(stage), seen.stop))
    if seen.measures:
        measures = json.loads(round_.measures_json) | dict(seen.measures)
        round_ = replace(round_, measures_json=json.dumps(measures, sort_keys=True))
    stage = replace(stage, numbers_json=json.dumps(numbers, sort_keys=True))
    change.rows += [stage, round_]
    return replace(state, stage=stage, round=round_)
