"""Patience: a learning stage ends early when held-out loss no longer improves. Pure; called by `phases`.

Owns the count of rounds without a new best. The stage then publishes its best checkpoint, and what the rounds that are
not run would have cost stays in escrow, for the next stage or its owner.
"""

from __future__ import annotations

import json
from dataclasses import replace

from shardwork.jobs.spec import StageSpec
from shardwork.why import Why

from ..events import Note
from ..records import Stage
from .moves import name


def count_patience(stage: Stage, spec: StageSpec, *, improved: bool) -> tuple[Stage, list[Note]]:
    """The stage after one more judged round, and a note when it was the last that it had patience for.

    `improved`: the round was kept and its held-out loss lies below the best before, or the start's.
    """
    patience = spec.params.get("patience")
    if patience is None:
        return stage, []
    numbers = json.loads(stage.numbers_json)
    waited = 0 if improved else int(numbers.get("rounds_without_best", 0)) + 1
    numbers["rounds_without_best"] = float(waited)
    if waited < patience:
        return replace(stage, numbers_json=json.dumps(numbers, sort_keys=True)), []
    numbers["stopped"] = 1.0
    best = int(numbers.get("best_round", 0))
    why = Why(
        code="stage.stopped_early",
        sentence=f"Stage {stage.name} ends early: held-out loss did not improve for {waited} "
        f"{'round' if waited == 1 else 'rounds'}.",
        evidence={"patience": str(patience), "best_round": str(best)},
    )
    note = Note.because("stage.stopped_early", name(stage), why)
    return replace(stage, numbers_json=json.dumps(numbers, sort_keys=True), why_json=why.to_json()), [note]
