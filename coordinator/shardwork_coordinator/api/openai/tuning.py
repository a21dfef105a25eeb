"""From a client's words to a job: epochs, batch and a multiplied rate as rounds, shards and steps of a LoRA stage.

Pure. Owns what "auto" means here; the rates themselves are the recipe's. Called by `creating`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shardwork.jobs.spec import BudgetSection, JobSpec, PlanSection, StageSpec, TrustSection
from shardwork.models.hub import OFFERED
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts

from .asked import Asked, wrong

STAGE = "tune"
BATCH = 8
#: "auto": so many passes, more where that is too little to learn from, and not too many
EPOCHS, MOST_AUTO_EPOCHS, LEAST_AUTO_STEPS = 3, 10, 50
#: steps of a shard between two averages, and rounds at least, so that there are checkpoints to choose from
STEPS, LEAST_ROUNDS = 50, 3
MOST_SHARDS = 4
#: a shard with fewer steps is more waiting than work
LEAST_STEPS = 20
MOST_ROUNDS, MOST_STEPS = 10_000, 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What a job starts from."""

    #: of the offered model
    name: str
    chat_template: bool
    #: a checkpoint of an earlier job; empty: none
    continue_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """What "auto" became."""

    n_epochs: int
    batch_size: int
    learning_rate_multiplier: float


def first_spec(asked: Asked, base: Base, *, name: str, max_sats: int) -> JobSpec:
    """The job as it is measured, before anybody knows how many rows there are."""
    # a base without a template of its own gets one, or its rows could not be rendered
    params = {"method": "lora", **({} if base.chat_template else {"chat_template": "chatml"})}
    stage = StageSpec(
        name=STAGE,
        recipe="sft",
        base_model=OFFERED + base.name,
        data=["train.jsonl"],
        eval_data=["valid.jsonl"] if asked.validation_file else [],
        params=params,
        continue_from=base.continue_from or None,
    )
    return JobSpec(
        name=name,
        stages=[stage],
        trust=TrustSection(data_class="public"),
        budget=BudgetSection(max_sats=max_sats),
    )


def planned(spec: JobSpec, facts: StageFacts, asked: Asked, workers: int) -> tuple[JobSpec, Frozen]:
    """The job as it is priced, and what "auto" became."""
    frozen = frozen_of(asked, facts.rows)
    steps = max(round(facts.rows * frozen.n_epochs / frozen.batch_size), 1)
    plan = plan_of(steps, workers)
    stage = spec.stages[0]
    params = {**stage.params, "batch_size": frozen.batch_size}
    stage = stage.model_copy(update={"plan": plan, "params": params})
    if asked.hyperparameters.learning_rate_multiplier != "auto":
        auto = float(recipe(stage.recipe).freeze(stage, facts).params["learning_rate"])
        rate = float(f"{auto * frozen.learning_rate_multiplier:.6g}")
        if not 0 < rate <= 10:
            raise wrong("hyperparameters.learning_rate_multiplier", f"it makes a learning rate of {rate:g}.")
        stage = stage.model_copy(update={"params": {**params, "learning_rate": rate}})
    return spec.model_copy(update={"stages": [stage]}), frozen


def frozen_of(asked: Asked, rows: int) -> Frozen:
    wishes = asked.hyperparameters
    # a small file still has steps enough for the rate to rise and fall
    batch = wishes.batch_size if wishes.batch_size != "auto" else min(BATCH, max(rows // 8, 1))
    found = Frozen(
        n_epochs=EPOCHS,
        batch_size=int(batch),
        learning_rate_multiplier=(
            1.0 if wishes.learning_rate_multiplier == "auto" else float(wishes.learning_rate_multiplier)
        ),
    )
    if wishes.n_epochs != "auto":
        return replace(found, n_epochs=int(wishes.n_epochs))
    needed = -(-LEAST_AUTO_STEPS * found.batch_size // max(rows, 1))
    return replace(found, n_epochs=min(max(EPOCHS, needed), MOST_AUTO_EPOCHS))


def plan_of(steps: int, workers: int) -> PlanSection:
    """So many optimiser steps of all shards together, cut so that nobody waits for nothing."""
    shards = max(min(MOST_SHARDS, workers, steps // (LEAST_ROUNDS * LEAST_STEPS)), 1)
    each = max(steps // shards, 1)
    rounds = min(max(-(-each // STEPS), min(LEAST_ROUNDS, each)), MOST_ROUNDS)
    inner = min(max(round(each / rounds), 1), MOST_STEPS)
    return PlanSection(rounds=rounds, shards_per_round=shards, inner_steps=inner)
