"""Observing: what a recipe makes of the numbers that a phase reported, for the stage and for its round.

Owns where they are kept: the stage's numbers feed later plans, the round's measures are shown, alarms are kept with the
stage and told once. A recipe that measures its checkpoints itself (a policy, by its reward) says here which was the
best, and when the stage has had enough. Pure; called by `phases`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from shardwork.recipes import recipe
from shardwork.recipes.base import Observed, RoundKind
from shardwork.why import Why

from ..events import Change, Note, Slice
from ..records import Stage
from .moves import name
from .planning import dump, spec_of

#: among a stage's numbers: its recipe says which checkpoint is the best
IS_MEASURED = "is_measured"
#: what a note of an alarm is called
ALARM = "stage.alarm"


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
    if not (seen.numbers or seen.measures or seen.is_best or seen.stop or seen.alarms):
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
    stage = replace(rung(stage, seen.alarms, change), numbers_json=json.dumps(numbers, sort_keys=True))
    change.rows += [stage, round_]
    return replace(state, stage=stage, round=round_)


def rung(stage: Stage, alarms: Sequence[Why], change: Change) -> Stage:
    """The stage with those of the alarms that it did not have yet, and a note of each."""
    kept = alarms_of(stage)
    for why in alarms:
        if all(why.code != one.code for one in kept):
            kept.append(why)
            change.notes.append(Note.because(ALARM, name(stage), why))
    return replace(stage, alarms_json=json.dumps([json.loads(one.to_json()) for one in kept], sort_keys=True))


def alarms_of(stage: Stage) -> list[Why]:
    return [Why(**one) for one in json.loads(stage.alarms_json)]
