"""Reading and checking a job file before anything is measured, priced or sent. Needs no coordinator.

`shardwork.jobs.file` names every wrong key at once; here each recipe also says what it misses in its stage. Used by
`job validate`, `job plan` and `job submit`.
"""

from __future__ import annotations

from pathlib import Path

from shardwork.jobs.file import LoadedJob, load
from shardwork.jobs.spec import JobSpec
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts

from .views import Json


def validate(file: Path) -> LoadedJob:
    """The job, ready to be measured. Raises InvalidInput (JobFileInvalid carries all problems)."""
    loaded = load(file)
    for stage in loaded.spec.stages:
        recipe(stage.recipe).freeze(stage, StageFacts())
    return loaded


def summary(spec: JobSpec) -> str:
    """ "tutor: sft, 4 rounds of 4 shards" or "tutor: 2 stages (pretrain, sft)"."""
    if len(spec.stages) > 1:
        return f"{spec.name}: {len(spec.stages)} stages ({', '.join(stage.name for stage in spec.stages)})"
    stage = spec.stages[0]
    rounds, shards = recipe(stage.recipe).learn_rounds(stage), stage.plan.shards_per_round
    many = f"{rounds} round{'s' if rounds != 1 else ''} of {shards} shard{'s' if shards != 1 else ''}"
    return f"{spec.name}: {stage.recipe}, {many}"


def validation_json(loaded: LoadedJob) -> Json:
    spec = loaded.spec
    return {
        "valid": True,
        "name": spec.name,
        "stages": [{"name": stage.name, "recipe": stage.recipe} for stage in spec.stages],
        "budget_msat": spec.budget.max_sats * 1000,
        "errors": [],
        "warnings": [problem.to_json() for problem in loaded.warnings],
    }
