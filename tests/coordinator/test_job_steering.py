"""Pause, resume, cancel and top up as a requester asks for them: with what each costs, and again when an answer was
lost."""

from __future__ import annotations

import pytest

from shardwork.errors import Conflict, InvalidInput, NotEnoughFunds, NotFound
from shardwork.identity.role import Role
from shardwork.v1 import jobs_pb2
from shardwork.why import Why
from shardwork_coordinator.engine import advance, slice_of_replica
from shardwork_coordinator.events import BackupWanted
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import user_account
from shardwork_coordinator.records import Purpose, Replica
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.steering import cancel_job, pause_job, preview_job_control, resume_job, top_up_job
from shardwork_coordinator.store.base import Transaction

from .simulation import OWNER, Simulation, count_job
from .unruly import Unruly

ME = Caller(party_id=OWNER, public_key=b"", role=Role.REQUESTER)
OTHER = Caller(party_id="other00000000000", public_key=b"", role=Role.REQUESTER)
#: price and fee of a small shard
SHARD = 1_020


async def balance(simulation: Simulation) -> int:
    return await simulation.store.read(lambda tx: ledger.available(tx, user_account(OWNER)))


async def preview(
    simulation: Simulation, action: str, *, msat: int = 0, caller: Caller = ME
) -> jobs_pb2.PreviewJobControlResponse:
    request = jobs_pb2.PreviewJobControlRequest(job_id="job000000001", action=action, msat=msat)
    return await preview_job_control(request, caller, simulation.engine)


async def top_up(simulation: Simulation, msat: int, key: str = "key-00001") -> jobs_pb2.JobView:
    request = jobs_pb2.TopUpJobRequest(job_id="job000000001", msat=msat, idempotency_key=key)
    return (await top_up_job(request, ME, simulation.engine)).job


async def copy_again(simulation: Simulation) -> None:
    """Another spare copy, whether or not the reserve covers it."""
    event = BackupWanted(shard_id=(await simulation.held())[0].shard_id, why=Why(code="shard.straggler", sentence="s."))

    def work(tx: Transaction) -> None:
        advance(tx, slice_of_replica(tx, tx.find(Replica, limit=1)[0]), event, simulation.engine.world())

    await simulation.store.write(work)


async def test_each_command_may_be_given_twice_and_does_its_work_once() -> None:
    simulation = Simulation()
    job_id = await simulation.submit(count_job())
    for _ in range(2):
        paused = await pause_job(jobs_pb2.PauseJobRequest(job_id=job_id), ME, simulation.engine)
        assert paused.job.state == "paused"
    for _ in range(2):
        resumed = await resume_job(jobs_pb2.ResumeJobRequest(job_id=job_id), ME, simulation.engine)
        assert resumed.job.state == "running"
    for _ in range(2):
        cancelled = await cancel_job(jobs_pb2.CancelJobRequest(job_id=job_id), ME, simulation.engine)
        assert cancelled.job.state == "cancelled"
        assert cancelled.job.refunded_msat == cancelled.job.budget_msat
    with pytest.raises(Conflict, match="has ended already: cancelled"):
        await resume_job(jobs_pb2.ResumeJobRequest(job_id=job_id), ME, simulation.engine)
    await simulation.check_books()


async def test_a_preview_says_what_then_happens() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=4))
    first, second = await simulation.grant_all()
    await simulation.finish(first)
    pause = await preview(simulation, "pause")
    assert (pause.running_shards, pause.running_msat, pause.running_paid) == (1, SHARD, True)
    assert pause.refund_msat == 0 and "1 shard" in pause.why.sentence and pause.why.next_step
    cancel = await preview(simulation, "cancel")
    assert not cancel.running_paid and cancel.refund_msat == (await simulation.job()).budget_msat - SHARD
    assert "not paid" in cancel.why.sentence
    resume = await preview(simulation, "resume")
    assert resume.from_balance_msat == 0 and resume.why.code == "cost.resume"
    before = await balance(simulation)
    await cancel_job(jobs_pb2.CancelJobRequest(job_id="job000000001"), ME, simulation.engine)
    assert await balance(simulation) == before + cancel.refund_msat == cancel.balance_after_msat
    assert second.worker_id
    await simulation.check_books()


async def test_a_preview_of_a_pause_pays_what_runs_as_it_said() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=2))
    (held,) = await simulation.grant_all()
    said = await preview(simulation, "pause")
    await pause_job(jobs_pb2.PauseJobRequest(job_id="job000000001"), ME, simulation.engine)
    await simulation.finish(held)
    job = await top_up(simulation, 1)
    assert job.spent_msat == said.running_msat == SHARD
    assert job.reserved_msat == said.stays_reserved_msat - SHARD + 1


async def test_previews_are_only_of_what_may_be_done() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    with pytest.raises(InvalidInput, match="no action 'stop'"):
        await preview(simulation, "stop")
    with pytest.raises(NotFound):
        await preview(simulation, "pause", caller=OTHER)
    with pytest.raises(InvalidInput, match="at least 1 msat"):
        await preview(simulation, "topup")
    with pytest.raises(NotEnoughFunds, match="Your balance is"):
        await preview(simulation, "topup", msat=10**12)
    await simulation.run_to_end()
    with pytest.raises(Conflict, match="ended already"):
        await preview(simulation, "pause")


async def test_a_top_up_raises_the_budget_once_and_what_is_not_used_comes_back() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    budget, before = (await simulation.job()).budget_msat, await balance(simulation)
    said = await preview(simulation, "topup", msat=5_000)
    assert said.balance_after_msat == before - 5_000
    for _ in range(2):
        job = await top_up(simulation, 5_000)
        assert (job.budget_msat, job.topped_up_msat) == (budget + 5_000, 5_000)
    assert await balance(simulation) == before - 5_000
    with pytest.raises(Conflict, match="another amount"):
        await top_up(simulation, 6_000)
    with pytest.raises(NotEnoughFunds):
        await top_up(simulation, 10**12, key="key-00002")
    await simulation.run_to_end()
    assert await balance(simulation) == before + budget - SHARD
    await simulation.check_books()


async def test_a_top_up_pays_for_a_spare_copy_that_the_plan_did_not_reserve() -> None:
    simulation = Unruly(workers=4)
    await simulation.submit(count_job(parts=1))
    await simulation.grant_all()
    assert await simulation.copy((await simulation.held())[0])
    await simulation.grant_all()
    # the plan reserved one spare, so the second copy waits
    await copy_again(simulation)
    assert len(await simulation.grant_all()) == 2
    await top_up(simulation, SHARD)
    held = await simulation.grant_all()
    assert sorted(one.purpose for one in held) == [Purpose.BACKUP, Purpose.BACKUP, Purpose.PRIMARY]
    for replica in held:
        await simulation.finish(replica)
    job = await simulation.run_to_end()
    assert job.extra_msat == 0
    paid = await simulation.store.read(lambda tx: sum(one.state == "accepted" for one in tx.find(Replica)))
    assert paid == 3
    await simulation.check_books()
