"""Shards that take bf16 or a base in few bits go to workers that say they can, and a job that none can take says so."""

from __future__ import annotations

import pytest

from shardwork.identity.role import Role
from shardwork.jobs.spec import JobSpec
from shardwork.recipes.abilities import needed
from shardwork.v1 import jobs_pb2, work_pb2
from shardwork_coordinator.granting import ready_replicas
from shardwork_coordinator.links import from_hello, to_hello
from shardwork_coordinator.records import Attachment, Job, JobState, Lease, Party, Round, Shard
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk, get_job
from shardwork_coordinator.rpc.said import shortened
from shardwork_coordinator.scheduler import refusal

from .simulation import OWNER, Simulation, sft_job
from .test_sweeper import Swept

JOB, ABLE = "job000000001", "able000000000000"
ME = Caller(OWNER, bytes(32), Role.REQUESTER)


def asking(**params: object) -> JobSpec:
    job = sft_job(rounds=1)
    return job.model_copy(update={"stages": [job.stages[0].model_copy(update={"params": params})]})


async def run_to_end(simulation: Simulation) -> Job:
    """As it goes with a sweeper: a phase for which no second key comes goes on after its grace."""
    swept = Swept(simulation)
    for _ in range(10):
        if (job := await simulation.run_to_end()).state is not JobState.RUNNING:
            return job
        await swept.after(simulation.settings.agreement_grace_s + 1)
    return await simulation.job()


@pytest.mark.parametrize(
    ("params", "ability"),
    [({"precision": "bf16"}, "bf16"), ({"base_bits": 4}, "base_4bit"), ({"base_bits": 8}, "base_8bit")],
)
async def test_only_workers_that_can_get_such_shards_and_the_others_are_no_second_key(
    params: dict[str, object], ability: str
) -> None:
    simulation = Simulation(workers=2)
    simulation.attach(ABLE, abilities=[ability])
    await simulation.submit(asking(**params))
    assert (await run_to_end(simulation)).state is JobState.SUCCEEDED
    shards = {one.id: one for one in await simulation.store.read(lambda tx: tx.find(Shard))}
    leases = await simulation.store.read(lambda tx: tx.find(Lease))
    needing = [lease for lease in leases if needed(lease.phase, shards[lease.shard_id].order_json)]
    assert {lease.worker_id for lease in needing} == {ABLE}
    assert {lease.phase for lease in needing} >= {"learn", "evaluate"}
    assert len({lease.worker_id for lease in leases if lease.phase == "init"}) == 2, "anybody can begin it"


async def test_without_such_a_worker_it_waits_behind_what_anybody_can_do_and_why_says_so() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(asking(base_bits=4))
    assert (await run_to_end(simulation)).state is JobState.RUNNING
    rounds = await simulation.store.read(lambda tx: tx.find(Round, order="number"))
    assert [(one.number, one.phase) for one in rounds] == [(0, "init"), (1, "learn")]
    ready = await simulation.store.read(lambda tx: ready_replicas(tx, tx.find(Job)[0]))
    bits = "read a base in 4 bits (that takes CUDA and bitsandbytes)"
    lacks = f"can't {bits}"
    assert {refusal(ready[0], worker) for worker in simulation.links.accepting()} == {lacks}
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    why = (await get_job(jobs_pb2.GetJobRequest(job_id=JOB), ME, desk)).job.why
    assert why.code == "shard.no_able_worker"
    assert why.sentence == f"No attached worker can {bits}."
    assert "no params.base_bits" in why.next_step and lacks in why.evidence.values()


async def test_a_worker_on_another_device_than_the_job_asks_for_is_no_second_key_either() -> None:
    simulation = Simulation(workers=2)
    simulation.attach(ABLE)
    gpu = simulation.links.get(ABLE)
    assert gpu is not None
    gpu.capability.device = "cuda:0"
    job = sft_job(rounds=1)
    asked = job.model_copy(update={"schedule": job.schedule.model_copy(update={"device": "gpu"})})
    await simulation.submit(asked)
    assert (await run_to_end(simulation)).state is JobState.SUCCEEDED
    leases = await simulation.store.read(lambda tx: tx.find(Lease))
    assert {lease.worker_id for lease in leases} == {ABLE}


async def test_why_knows_the_device_that_a_job_asks_for() -> None:
    simulation = Simulation(workers=1)
    job = sft_job(rounds=1)
    await simulation.submit(job.model_copy(update={"schedule": job.schedule.model_copy(update={"device": "gpu"})}))
    await simulation.run_to_end()
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates)
    why = (await get_job(jobs_pb2.GetJobRequest(job_id=JOB), ME, desk)).job.why
    assert why.code == "shard.no_fitting_worker"
    assert "computes on an unknown device (the job asks for gpu)" in why.evidence.values()


def test_what_a_worker_says_it_can_is_kept_as_far_as_it_means_something_and_told_to_other_coordinators() -> None:
    said = work_pb2.Capability(abilities=["bf16", "bf16", "x" * 1_000_000, "base_4bit"])
    kept = shortened(said)
    assert list(kept.abilities) == ["base_4bit", "bf16"]
    simulation = Simulation(workers=0)
    simulation.attach(ABLE, abilities=list(kept.abilities))
    link = simulation.links.get(ABLE)
    assert link is not None
    row = Attachment(worker_id=ABLE, coordinator="c", hello=to_hello(link), minimum_msat=0, accepting=True, since_ms=0)
    party = Party(id=ABLE, public_key=b"", roles="worker", name="", created_ms=0, last_seen_ms=0)
    assert from_hello(row, party, 0).as_worker().abilities == link.as_worker().abilities == {"bf16", "base_4bit"}
