"""Continuing a job: which stored checkpoint `JOB.stage.checkpoint` or `…@ROUND` means, for its owner alone.

Owns the access to it (a job's checkpoints are its owner's, somebody else's job is as unknown as none) and refusing what
the two stages' own words show to be unlike, before a sat moves. Tensors are compared by the worker that begins. Called
by `proposal`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from shardwork.errors import InvalidInput, NotFound
from shardwork.identity.role import Role
from shardwork.jobs.spec import JOB_CHECKPOINT, STAGE_OUTPUT, JobSpec, StageSpec
from shardwork.problem import suggest
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts
from shardwork.recipes.learning import LearningRecipe
from shardwork.recipes.orders import Method, Tuning

from ..artifacts.retention import HOUSE
from ..records import Artifact, ArtifactState, Job, Round, Stage
from ..store.base import Transaction
from .auth import Caller
from .steering import own_job


def parents(tx: Transaction, spec: JobSpec, facts: Mapping[str, StageFacts], caller: Caller) -> dict[str, str]:
    """{"<stage>.continue_from": artifact id} of every stage that continues from an earlier job of the caller's.

    Raises NotFound "job.not_found", "continue.no_stage", InvalidInput "continue.no_checkpoint", "continue.no_round",
    "continue.unlike".
    """
    found: dict[str, str] = {}
    before: dict[str, StageSpec] = {}
    for stage in spec.stages:
        continues, measured = stage.continue_from or "", facts.get(stage.name, StageFacts())
        before[stage.name] = stage
        if STAGE_OUTPUT.match(continues):
            name = continues.partition(".")[0]
            _check_like(stage, measured, before[name], facts.get(name, StageFacts()))
        named = JOB_CHECKPOINT.match(continues)
        if named is None:
            continue
        # an operator may look at everybody's jobs, and own none of them
        job = own_job(tx, named["job"], replace(caller, role=Role.REQUESTER))
        earlier = _stage(tx, job, named["stage"])
        found[f"{stage.name}.continue_from"] = (
            _kept(tx, job, earlier, stage)
            if named["round"] is None
            else _of_round(tx, job, earlier, int(named["round"]), stage)
        )
        _check_like(stage, measured, StageSpec.model_validate_json(earlier.spec_json), _facts(job, earlier))
    return found


def _stage(tx: Transaction, job: Job, name: str) -> Stage:
    stage = tx.get(Stage, job.id, name)
    if stage is not None:
        return stage
    names = [one.name for one in tx.find(Stage, job_id=job.id)]
    raise NotFound(
        "continue.no_stage",
        f"Job {job.id} has no stage {name!r}.",
        next_step=suggest(name, names, what="stages"),
        key="continue_from",
    )


def _kept(tx: Transaction, job: Job, earlier: Stage, stage: StageSpec) -> str:
    """The id of the stage's best checkpoint, which its owner still has."""
    output = json.loads(earlier.outputs_json).get(f"{earlier.name}.checkpoint")
    row = tx.get(Artifact, output["artifact_id"], job.owner) if output else None
    if row is not None and row.state is ArtifactState.STORED:
        return row.id
    why = "was deleted, by you or by age" if output else f"is not there: the stage is {earlier.state}"
    raise InvalidInput(
        "continue.no_checkpoint",
        f"The checkpoint of stage {earlier.name!r} of job {job.id} {why}.",
        next_step=f"`shardwork job show {job.id}` lists what a job kept; a stage gives its checkpoint when it ends.",
        stage=stage.name,
        key="continue_from",
    )


def _of_round(tx: Transaction, job: Job, earlier: Stage, number: int, stage: StageSpec) -> str:
    """The id of what one round was merged into; kept as long as the job lives and for some days after."""
    made: dict[int, str] = {
        one.number: json.loads(one.results_json).get("new_checkpoint", "")
        for one in tx.find(Round, job_id=job.id, stage=earlier.name)
    }
    rows = tx.find(Artifact, id=[one for one in made.values() if one], owner=HOUSE, state=ArtifactState.STORED)
    stored = {row.id for row in rows}
    if made.get(number) in stored:
        return made[number]
    there = [str(one) for one in sorted(made) if made[one] in stored]
    kept = f"Kept are those of rounds {', '.join(there)}." if there else "Without @ROUND the stage's best is taken."
    raise InvalidInput(
        "continue.no_round",
        f"Round {number} of stage {earlier.name!r} of job {job.id} has no checkpoint: not merged, or deleted by age.",
        next_step=kept,
        stage=stage.name,
        key="continue_from",
    )


def _facts(job: Job, stage: Stage) -> StageFacts:
    return StageFacts(**json.loads(job.facts_json).get(stage.name, {}))


def _check_like(stage: StageSpec, facts: StageFacts, earlier: StageSpec, before: StageFacts) -> None:
    """Refuses what would surely fail at init, or would load and mean another model."""
    new, old = _tuning(stage, facts), _tuning(earlier, before)
    unlike = ""
    if facts.trained_params and before.trained_params and facts.trained_params != before.trained_params:
        unlike = f"{before.trained_params:,} parameters learned there, and {facts.trained_params:,} would here"
    elif new is not None and old is not None and _scale(new) != _scale(old):
        unlike = f"its adapter counts {_words(old)}, and here {_words(new)}"
    if unlike:
        raise InvalidInput(
            "continue.unlike",
            f"Stage {stage.name!r} can't continue from {stage.continue_from!r}: {unlike}.",
            next_step="Use the earlier stage's base_model, method and adapter settings (rank, alpha, modules, layers).",
            stage=stage.name,
            key="continue_from",
        )


def _tuning(stage: StageSpec, facts: StageFacts) -> Tuning | None:
    kind = recipe(stage.recipe)
    return kind.tuning(kind.freeze(stage, facts).params) if isinstance(kind, LearningRecipe) else None


def _scale(tuning: Tuning) -> tuple[object, ...]:
    """What an adapter's weights are multiplied by, which its tensors do not show; and whether its A is among them."""
    if tuning.method is not Method.LORA:
        return ()
    return (tuning.rank, tuning.alpha, tuning.rslora, bool(tuning.frozen_a_seed))


def _words(tuning: Tuning) -> str:
    if tuning.method is not Method.LORA:
        return "nothing"
    frozen = " with A frozen" if tuning.frozen_a_seed else ""
    return f"alpha {tuning.alpha} at rank {tuning.rank}{' by rsLoRA' if tuning.rslora else ''}{frozen}"
