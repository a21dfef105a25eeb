"""Alarms of a stage: kept with it, told once a kind, and seen by who looks at the job."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from shardwork_coordinator import views
from shardwork_coordinator.engine import found, start_next_stage
from shardwork_coordinator.events import Push
from shardwork_coordinator.machine.observing import alarms_of
from shardwork_coordinator.records import Event, Job, JobState, Stage, StageState
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.telemetry.verdicts import Verdicts

from .machine.test_versions import ROSE, stages, wins
from .machine.test_versions import job as looped_job
from .simulation import Simulation, policy_job
from .test_audits import work


async def test_an_alarm_is_kept_and_told_once() -> None:
    simulation = Simulation(workers=3)
    simulation.learned = {number: {"kl": 3.0 * number, "left_out": 0.0} for number in (1, 2, 3)}
    await simulation.submit(policy_job(kl_budget=10.0))
    registry = CollectorRegistry()
    counted = Verdicts(registry)
    await simulation.store.read(counted.look)
    assert (await work(simulation, {})).state is JobState.SUCCEEDED
    [stage] = await simulation.store.read(lambda tx: tx.find(Stage))
    [why] = alarms_of(stage)
    assert (why.code, why.evidence) == ("alarm.kl", {"round": "2", "kl": "6.0000", "budget": "10"})
    [told] = await simulation.store.read(lambda tx: tx.find(Event, kind="stage.alarm"))
    assert (told.sentence, told.subject) == (why.sentence, "job000000001/policy")
    await simulation.store.read(counted.look)
    assert registry.get_sample_value("shardwork_stage_alarms_total", {"code": "alarm.kl"}) == 1.0


async def test_alarms_are_in_the_view_of_the_job() -> None:
    simulation = Simulation(workers=3)
    simulation.learned = {1: {"kl": 6.0, "left_out": 8.0}}
    await simulation.submit(policy_job(kl_budget=10.0))
    await work(simulation, {})

    def look(tx: Transaction) -> list[str]:
        job = tx.get(Job, "job000000001")
        assert job is not None
        return [one.code for one in views.job_view(tx, job, []).stages[0].alarms]

    assert await simulation.store.read(look) == ["alarm.kl", "alarm.left_out"]


async def test_a_published_policy_that_refuses_less_than_its_base_rings() -> None:
    simulation = Simulation(workers=3)
    simulation.published |= {"safety.harmful.refused_before": 7.0, "safety.harmful.refused_after": 1.0}
    await simulation.submit(policy_job(rounds=1))
    await work(simulation, {})

    def look(tx: Transaction) -> tuple[list[str], dict[str, float]]:
        job = tx.get(Job, "job000000001")
        assert job is not None
        stage = views.job_view(tx, job, []).stages[0]
        return [one.code for one in stage.alarms], dict(stage.safety)

    rang, safety = await simulation.store.read(look)
    assert rang == ["alarm.refuses_less"]
    assert (safety["harmful.asked"], safety["harmful.refused_before"], safety["harmful.refused_after"]) == (7, 7, 1)
    assert len(safety) == 9


async def test_votes_that_ended_are_compared_before_the_next_stage_begins() -> None:
    simulation = Simulation(workers=3)
    job_id = await simulation.submit(policy_job(rounds=1))

    def rise(tx: Transaction) -> list[Push]:
        [draft] = tx.find(Job)
        for row in stages("blend", blend=wins("before", "policy", 0.9), improve_2=ROSE):
            tx.put(replace(row, job_id=job_id))
        for row in tx.find(Stage, name="policy"):
            tx.put(replace(row, state=StageState.DONE, position=-1))
        tx.put(replace(draft, spec_json=looped_job().canonical_json()))
        return start_next_stage(tx, job_id, simulation.engine.world())

    await simulation.store.write(rise)

    def look(tx: Transaction) -> tuple[list[str], float, list[int]]:
        view = views.job_view(tx, found(tx.get(Job, job_id), "job", job_id), [])
        improved = next(one for one in view.stages if one.name == "improve-2")
        return [one.code for one in improved.alarms], improved.win_rate.value, [one.iteration for one in view.stages]

    rang, rate, times = await simulation.store.read(look)
    assert rang == ["alarm.reward_hacking"]
    assert rate == pytest.approx(0.1)
    assert times == [0, 1, 1, 1, 2, 2, 2, 0, 0, 0]
    assert len(await simulation.store.read(lambda tx: tx.find(Event, kind="stage.alarm"))) == 1
