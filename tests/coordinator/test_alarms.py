"""Alarms of a stage: kept with it, told once a kind, and seen by who looks at the job."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from shardwork_coordinator import views
from shardwork_coordinator.machine.observing import alarms_of
from shardwork_coordinator.records import Event, Job, JobState, Stage
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.telemetry.verdicts import Verdicts

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
