"""Time-outs of jobs and stages: valid work is paid, the rest refunded, the best checkpoint stays."""

from __future__ import annotations

import json

import pytest

from shardwork.errors import Internal
from shardwork.jobs.spec import JobSpec, ScheduleSection
from shardwork.why import Why
from shardwork_coordinator import sweeper
from shardwork_coordinator.engine import slice_of_job
from shardwork_coordinator.events import Slice
from shardwork_coordinator.machine.phases import HOUR_MS
from shardwork_coordinator.records import Artifact, Job, JobState, Stage
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.sweeper import timed_out

from .simulation import OWNER, Simulation, sft_job
from .test_sweeper import Swept
from .unruly import Unruly


def timed(spec: JobSpec, *, job: float | None = None, stage: float | None = None) -> JobSpec:
    stages = [one.model_copy(update={"timeout_hours": stage}) for one in spec.stages]
    return spec.model_copy(update={"stages": stages, "schedule": ScheduleSection(timeout_hours=job)})


async def best_of(simulation: Simulation) -> dict[str, dict[str, str]]:
    (stage,) = await simulation.store.read(lambda tx: tx.find(Stage))
    outputs: dict[str, dict[str, str]] = json.loads(stage.outputs_json)
    return outputs


async def test_a_job_that_takes_longer_than_its_time_ends_and_its_checkpoint_is_kept() -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    await simulation.submit(timed(sft_job(rounds=3), job=2.0))
    while (await simulation.job()).state is JobState.RUNNING and not any(
        one.round == 2 for one in await simulation.grant_all()
    ):
        for replica in await simulation.held():
            await simulation.finish(replica)
    await swept.after(2 * 3_600 - 60)
    assert (await simulation.job()).state is JobState.RUNNING
    await simulation.grant_all()
    await swept.after(61)
    job = await simulation.job()
    assert job.state is JobState.FAILED
    why = Why.from_json(job.why_json)
    assert why.code == "job.timed_out" and why.evidence["timeout_hours"] == "2" and why.next_step
    outputs = await best_of(simulation)
    assert list(outputs) == ["tune.checkpoint"]
    kept = outputs["tune.checkpoint"]["artifact_id"]
    mine = await simulation.store.read(lambda tx: tx.get(Artifact, kept, OWNER))
    assert mine is not None
    await simulation.check_ending()
    await simulation.check_books()


async def test_a_job_that_can_not_be_ended_keeps_no_other_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Unruly(workers=0)
    swept = Swept(simulation)
    for job_id in ("job000000001", "job000000002"):
        await simulation.submit(timed(sft_job(rounds=1), job=1.0), job_id=job_id)

    def broken(tx: Transaction, job: Job) -> Slice:
        if job.id == "job000000001":
            raise Internal("store.database", "A row of it is damaged.")
        return slice_of_job(tx, job)

    monkeypatch.setattr(sweeper, "slice_of_job", broken)
    await swept.after(3_601)
    states = [(await simulation.job(job_id)).state for job_id in ("job000000001", "job000000002")]
    assert states == [JobState.RUNNING, JobState.FAILED]


async def test_a_stages_time_begins_with_the_stage_and_runs_on_while_the_job_is_paused() -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await simulation.submit(timed(sft_job(rounds=1), stage=1.0))
    await simulation.pause()
    await swept.after(3_601)
    job = await simulation.job()
    assert job.state is JobState.FAILED
    assert Why.from_json(job.why_json).code == "stage.timed_out"
    assert await best_of(simulation) == {}
    await simulation.check_ending()


async def test_a_job_without_a_time_out_never_ends_by_itself() -> None:
    simulation = Unruly(workers=0)
    swept = Swept(simulation)
    await simulation.submit(sft_job(rounds=1))
    await swept.after(10**8)
    assert (await simulation.job()).state is JobState.RUNNING
    now_ms = simulation.clock.now_ms() + 10**6 * HOUR_MS
    assert await simulation.store.read(lambda tx: timed_out(tx, now_ms)) == []
