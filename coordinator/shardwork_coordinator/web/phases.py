"""Phases: which of a round are its work, and in which order they follow each other. Called by whatever shows rounds."""

from __future__ import annotations

import json

from shardwork.recipes import recipe
from shardwork.recipes.base import ASK_PHASE, AUDIT_PHASE, AUDITED_PHASES, PEOPLE_PHASES, RoundKind, StageType

from ..records import Round, Stage

#: whose shards a round is there for; what workers check, and what tests people, is none
WORK = AUDITED_PHASES | {"learn", ASK_PHASE}
#: as they follow each other in a round
ORDER = (
    "split",
    "prepare",
    "init",
    "map",
    ASK_PHASE,
    *sorted(PEOPLE_PHASES - {ASK_PHASE}),
    "rollout",
    "score",
    "grade",
    "learn",
    "merge",
    "evaluate",
    "apply",
    "join",
    AUDIT_PHASE,
    "publish",
)


def place(phase: str) -> int:
    """By which phases are sorted; one that nobody knows comes last."""
    return ORDER.index(phase) if phase in ORDER else len(ORDER)


def rounds_around(stage: Stage) -> int:
    """Rounds beside the planned ones: that which sets up, and that which publishes."""
    return 2 if recipe(stage.recipe).stage_type is StageType.ROUNDS else 1


def done_before(stage: Stage, round_: Round) -> tuple[int, int]:
    """(phases of work that the round has behind it, all of them)."""
    names = recipe(stage.recipe).phases(RoundKind(round_.kind), json.loads(stage.artifacts_json))
    work = [one for one in names if one in WORK]
    behind = names[: names.index(round_.phase)] if round_.phase in names else names
    return sum(1 for one in behind if one in WORK), len(work)
