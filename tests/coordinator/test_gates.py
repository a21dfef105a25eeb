"""A stage that waits for what an earlier one taught, and one that ends when it no longer improves: states and money."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from shardwork.jobs.spec import JobSpec, RunIf
from shardwork.recipes.base import StageFacts
from shardwork.why import Why
from shardwork_coordinator.money.movements import escrow_account
from shardwork_coordinator.money.pricing import RateCard, quote
from shardwork_coordinator.records import Account, JobState, Round, RoundState, Stage, StageState

from .simulation import FACTS, Simulation, sft_job


def gated(improved_by: float, **third: Any) -> JobSpec:
    """LoRA in one round, full tuning behind the gate, and a third stage where asked for."""
    lora = sft_job(rounds=1).stages[0].model_copy(update={"name": "lora"})
    gate = RunIf(stage="lora", improved_by=improved_by)
    full = lora.model_copy(update={"name": "full", "run_if": gate, "params": {"method": "full"}})
    stages = [lora, full]
    if third:
        stages.append(lora.model_copy(update={"name": "third", **third}))
    job = sft_job().model_copy(update={"stages": stages})
    return JobSpec.model_validate_json(job.canonical_json())


async def stages_of(simulation: Simulation) -> dict[str, Stage]:
    found = await simulation.store.read(lambda tx: tx.find(Stage, order="position"))
    return {stage.name: stage for stage in found}


async def learned(simulation: Simulation) -> list[Round]:
    found = await simulation.store.read(lambda tx: tx.find(Round, order="number"))
    return [one for one in found if one.kind == "learn"]


async def escrow_left(simulation: Simulation) -> int:
    account = await simulation.store.read(lambda tx: tx.get(Account, escrow_account("job000000001")))
    assert account is not None
    return account.credits_posted - account.debits_posted


async def test_a_gate_opens_when_held_out_loss_fell_far_enough() -> None:
    simulation = Simulation(workers=2)
    # the simulated loss goes from 3.0 to 2.9: by 3.3 %
    await simulation.submit(gated(0.03))
    job = await simulation.run_to_end()
    assert job.state is JobState.SUCCEEDED
    stages = await stages_of(simulation)
    assert [stage.state for stage in stages.values()] == [StageState.DONE, StageState.DONE]
    assert "full.model" in stages["full"].outputs_json
    await simulation.check_books()


async def test_a_shut_gate_skips_the_stage_says_why_and_gives_its_escrow_back() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(gated(0.04))
    job = await simulation.run_to_end()
    assert job.state is JobState.SUCCEEDED
    full = (await stages_of(simulation))["full"]
    assert full.state is StageState.SKIPPED and full.outputs_json == "{}"
    why = Why.from_json(full.why_json)
    assert why.code == "stage.gate_shut"
    assert "3.33 %" in why.sentence and "4 %" in why.sentence
    assert not await simulation.store.read(lambda tx: tx.find(Round, stage="full"))
    assert await escrow_left(simulation) == 0
    await simulation.check_books()


async def test_what_reads_a_skipped_stage_is_skipped_with_it_and_the_rest_goes_on() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(gated(0.9, base_model="full.model"))
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    third = (await stages_of(simulation))["third"]
    assert third.state is StageState.SKIPPED
    assert Why.from_json(third.why_json).code == "stage.input_skipped"
    independent = Simulation(workers=2)
    await independent.submit(gated(0.9, base_model="lora.model"))
    await independent.run_to_end()
    assert (await stages_of(independent))["third"].state is StageState.DONE


async def test_a_gate_on_a_skipped_stage_stays_shut() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(gated(0.9, run_if=RunIf(stage="full", improved_by=0.0)))
    await simulation.run_to_end()
    third = (await stages_of(simulation))["third"]
    assert Why.from_json(third.why_json).code == "stage.gate_skipped"


def test_a_gate_without_held_out_rows_or_without_its_stage_is_refused() -> None:
    job = json.loads(gated(0.1).canonical_json())
    job["stages"][0]["eval_fraction"] = None
    with pytest.raises(ValidationError, match="holds no rows out"):
        JobSpec.model_validate(job)
    job["stages"] = job["stages"][1:]
    with pytest.raises(ValidationError, match="no stage that comes before"):
        JobSpec.model_validate(job)


def test_the_low_estimate_leaves_out_what_may_not_be_needed_and_the_reserve_does_not() -> None:
    facts: dict[str, StageFacts] = {}
    facts |= {"lora": FACTS, "full": FACTS}
    both, one = quote(gated(0.1), facts, RateCard()), quote(sft_job(rounds=1), {"tune": FACTS}, RateCard())
    assert both.low_msat == one.low_msat
    assert both.reserve_msat > one.reserve_msat + both.gated_msat


async def with_patience(patience: int, losses: dict[int, float]) -> Simulation:
    simulation = Simulation(workers=2)
    simulation.losses = losses
    job = sft_job(rounds=6)
    stage = job.stages[0].model_copy(update={"params": {"patience": patience}})
    await simulation.submit(job.model_copy(update={"stages": [stage]}))
    await simulation.run_to_end()
    return simulation


async def test_a_stage_ends_with_its_best_checkpoint_when_its_patience_is_used_up() -> None:
    # round 3 is within what chance explains, so it is kept; round 2 stays the best
    simulation = await with_patience(1, {1: 2.9, 2: 2.8, 3: 2.81})
    rounds = await learned(simulation)
    assert [one.number for one in rounds] == [1, 2, 3]
    assert {one.state for one in rounds} == {RoundState.MERGED}
    stage = (await stages_of(simulation))["tune"]
    why = Why.from_json(stage.why_json)
    assert (stage.state, why.code) == (StageState.DONE, "stage.stopped_early")
    numbers, outputs = json.loads(stage.numbers_json), json.loads(stage.outputs_json)
    assert numbers["best_round"] == 2.0
    assert outputs["tune.checkpoint"]["artifact_id"] == json.loads(stage.artifacts_json)["best_checkpoint"]
    assert (await simulation.job()).state is JobState.SUCCEEDED
    assert await escrow_left(simulation) == 0
    await simulation.check_books()


async def test_patience_starts_anew_with_each_better_round() -> None:
    simulation = await with_patience(2, {1: 2.9, 2: 2.905, 3: 2.79, 4: 2.705, 5: 2.59, 6: 2.4})
    rounds = await learned(simulation)
    assert len(rounds) == 6
    assert (await stages_of(simulation))["tune"].why_json == ""


async def test_a_round_that_was_rolled_back_uses_patience_too() -> None:
    simulation = await with_patience(2, {1: 2.9, 2: 9.0, 3: 2.91})
    stage = (await stages_of(simulation))["tune"]
    assert json.loads(stage.numbers_json)["best_round"] == 1.0
    assert Why.from_json(stage.why_json).code == "stage.stopped_early"
