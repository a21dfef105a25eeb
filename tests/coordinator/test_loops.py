"""A loop on the coordinator: each time reads the last one's model, a time that is not needed is skipped, and behind the
loop a plain name is the latest that ran."""

from __future__ import annotations

import json

import pytest

from shardwork.jobs.spec import JobSpec, RepeatSection, RunIf
from shardwork.why import Why
from shardwork_coordinator.records import JobState, Shard, Stage, StageState

from .simulation import Simulation, sft_job
from .unruly import Unruly

WORSE = 9.0


def looped(improved_by: float | None) -> JobSpec:
    """Full tuning three times over, while held-out loss falls; then once more on the latest model."""
    tune = sft_job(rounds=1).stages[0].model_copy(update={"params": {"method": "full"}})
    times = [
        tune.model_copy(
            update={
                "name": f"tune-{time}",
                "base_model": f"tune-{time - 1}.model" if time > 1 else "./base",
                "run_if": RunIf(stage=f"tune-{time - 1}", improved_by=improved_by)
                if time > 1 and improved_by is not None
                else None,
            }
        )
        for time in (1, 2, 3)
    ]
    last = tune.model_copy(update={"name": "last", "base_model": "tune.model"})
    repeat = RepeatSection(stages=["tune"], times=3)
    job = sft_job().model_copy(update={"stages": [*times, last], "repeat": repeat})
    return JobSpec.model_validate_json(job.canonical_json())


async def ran(simulation: Simulation, gate: float | None = None) -> dict[str, Stage]:
    await simulation.submit(looped(gate))
    assert (await simulation.run_to_end(steps=2_000)).state is JobState.SUCCEEDED
    return {stage.name: stage for stage in await simulation.store.read(lambda tx: tx.find(Stage, order="position"))}


async def base_of(simulation: Simulation, stage: str) -> str:
    shards = await simulation.store.read(lambda tx: tx.find(Shard, stage=stage, phase="learn"))
    return str(json.loads(shards[0].inputs_json)["base"])


def model_of(stage: Stage) -> str:
    return str(json.loads(stage.outputs_json)[f"{stage.name}.model"]["artifact_id"])


async def test_each_time_reads_the_last_one_and_behind_the_loop_comes_the_latest() -> None:
    simulation = Simulation(workers=2)
    stages = await ran(simulation)
    assert [stage.state for stage in stages.values()] == [StageState.DONE] * 4
    assert await base_of(simulation, "tune-2") == model_of(stages["tune-1"])
    assert await base_of(simulation, "tune-3") == model_of(stages["tune-2"])
    assert await base_of(simulation, "last") == model_of(stages["tune-3"])
    await simulation.check_books()


@pytest.mark.parametrize(("gate", "states"), [(0.9, "done skipped skipped done"), (0.01, "done done done done")])
async def test_a_loop_ends_when_it_no_longer_gains_and_what_follows_reads_what_ran(gate: float, states: str) -> None:
    simulation = Simulation(workers=2)
    stages = await ran(simulation, gate)
    assert [str(stage.state) for stage in stages.values()] == states.split()
    latest = "tune-1" if gate == 0.9 else "tune-3"
    assert await base_of(simulation, "last") == model_of(stages[latest])
    if gate == 0.9:
        assert Why.from_json(stages["tune-3"].why_json).code in ("stage.gate_skipped", "stage.input_skipped")
    await simulation.check_books()


async def test_a_later_time_that_learns_nothing_ends_the_loop_and_the_job_goes_on_with_what_ran() -> None:
    simulation = Unruly()
    simulation.losses_of = {("tune-2", 1): WORSE}
    stages = await ran(simulation)
    assert [str(stage.state) for stage in stages.values()] == ["done", "skipped", "skipped", "done"]
    nothing, unread = (Why.from_json(stages[name].why_json) for name in ("tune-2", "tune-3"))
    assert nothing.code == "training.diverged" and "rose" in nothing.evidence["last_round"]
    assert unread.code == "stage.input_skipped"
    assert await base_of(simulation, "last") == model_of(stages["tune-1"])
    await simulation.check_books()
    await simulation.check_ending()


async def test_a_first_time_that_learns_nothing_fails_the_job() -> None:
    simulation = Unruly()
    simulation.losses_of = {("tune-1", 1): WORSE}
    await simulation.submit(looped(None))
    job = await simulation.run_to_end(steps=2_000)
    assert job.state is JobState.FAILED and "training.diverged" in job.why_json
    await simulation.check_ending()
