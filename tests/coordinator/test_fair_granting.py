"""Granting in the fair order, over the real engine and store: shares, priority, quotas, prices, donated work."""

from __future__ import annotations

from collections import Counter

import pytest

from shardwork.errors import LimitExceeded
from shardwork.identity.role import Role
from shardwork.jobs.spec import JobSpec, ScheduleSection
from shardwork.recipes.base import PEOPLE_PHASES
from shardwork.v1 import jobs_pb2
from shardwork_coordinator import views
from shardwork_coordinator.money.movements import user_account, worker_account
from shardwork_coordinator.reasons import NO_WORK, reasons_of, why_idle
from shardwork_coordinator.records import JobState, Lease, Purpose, Replica, ReplicaState, Share
from shardwork_coordinator.rpc.auth import Caller
from shardwork_coordinator.rpc.jobs import JobsDesk, submit_job
from shardwork_coordinator.store.base import Transaction

from .simulation import OWNER, Simulation, count_job
from .unruly import Unruly

ANNA, BORIS = "anna000000000000", "boris00000000000"


def scheduled(spec: JobSpec, **schedule: object) -> JobSpec:
    return spec.model_copy(update={"schedule": ScheduleSection.model_validate(schedule)})


async def served(simulation: Simulation, shards: int) -> Counter[str]:
    """Shards given to each job while one after the other comes free."""
    given: Counter[str] = Counter()
    await simulation.run_effects()
    for _ in range(shards):
        await simulation.granting.grant()
        held = await simulation.held()
        for replica in held:
            given[replica.job_id] += 1
            await simulation.finish(replica)
    return given


async def test_a_requester_with_ten_jobs_gets_no_more_than_one_with_one() -> None:
    simulation = Simulation(workers=1)
    for number in range(10):
        await simulation.submit(count_job(parts=20), job_id=f"anna{number:08d}", owner=ANNA)
    await simulation.submit(count_job(parts=20), job_id="boris0000000", owner=BORIS)
    given = await served(simulation, 40)
    assert given["boris0000000"] == 20
    # and those of one requester share as equals
    assert {given[f"anna{number:08d}"] for number in range(10)} == {2}


async def test_who_comes_late_is_served_next_and_gets_no_arrears() -> None:
    simulation = Simulation(workers=1)
    await simulation.submit(count_job(parts=60), job_id="anna00000000", owner=ANNA)
    await served(simulation, 20)
    await simulation.submit(count_job(parts=30), job_id="boris0000000", owner=BORIS)
    given = await served(simulation, 20)
    assert abs(given["anna00000000"] - given["boris0000000"]) <= 1


async def test_a_restart_of_the_coordinator_forgets_nobodys_share() -> None:
    simulation = Simulation(workers=1)
    await simulation.submit(count_job(parts=30), job_id="anna00000000", owner=ANNA)
    await simulation.submit(count_job(parts=30), job_id="boris0000000", owner=BORIS)
    first = await served(simulation, 5)
    fresh = Simulation(workers=1)
    fresh.store = fresh.engine.store = simulation.store
    fresh.clock = fresh.engine.clock = simulation.clock
    second = await served(fresh, 5)
    assert (first + second)["anna00000000"] == (first + second)["boris0000000"] == 5


async def test_priority_orders_a_requesters_own_jobs_and_takes_nothing_from_others() -> None:
    simulation = Simulation(workers=1)
    plain, urgent = count_job(parts=40), scheduled(count_job(parts=40), priority="high")
    await simulation.submit(plain, job_id="anna-plain00", owner=ANNA)
    await simulation.submit(urgent, job_id="anna-urgent0", owner=ANNA)
    await simulation.submit(plain, job_id="boris0000000", owner=BORIS)
    given = await served(simulation, 40)
    assert given["boris0000000"] == 20
    assert given["anna-urgent0"] >= 18 and given["anna-plain00"] >= 1


async def test_shares_of_jobs_that_ended_are_closed() -> None:
    simulation = Simulation(workers=1)
    await simulation.submit(count_job(parts=1), job_id="anna-first00", owner=ANNA)
    await simulation.run_to_end("anna-first00")
    await simulation.submit(count_job(parts=1), job_id="anna-second0", owner=ANNA)
    await served(simulation, 1)
    shares = await simulation.store.read(lambda tx: tx.find(Share, owner=ANNA))
    assert {one.job_id: one.open for one in shares if one.job_id} == {"anna-first00": False, "anna-second0": True}


async def test_a_quota_of_running_shards_holds_and_is_told() -> None:
    simulation = Unruly(workers=4)
    simulation.settings = simulation.settings.model_copy(update={"max_running_shards": 2})
    simulation.granting.obey(simulation.settings)
    await simulation.submit(count_job(parts=10), job_id="anna00000000", owner=ANNA)
    assert len(await simulation.grant_all()) == 2
    await simulation.submit(count_job(parts=10), job_id="boris0000000", owner=BORIS)
    assert Counter(one.job_id for one in await simulation.grant_all()) == {"anna00000000": 2, "boris0000000": 2}
    job = await simulation.job("anna00000000")
    told = await simulation.store.read(lambda tx: reasons_of(tx, job, most_running=2))
    assert {"price.rate_card", "line.quota", "line.fair_share"} <= {why.code for why in told}
    assert all(why.next_step for why in told)


async def test_tasks_that_people_hold_are_no_part_of_the_quota() -> None:
    simulation = Unruly(workers=4)
    simulation.settings = simulation.settings.model_copy(update={"max_running_shards": 2})
    simulation.granting.obey(simulation.settings)
    await simulation.submit(count_job(parts=10), job_id="anna00000000", owner=ANNA)
    held = [
        Replica(
            shard_id=f"asked-{number}",
            number=1,
            job_id="anna00000000",
            stage="people",
            round=1,
            phase=phase,
            purpose=Purpose.PRIMARY,
            state=ReplicaState.LEASED,
        )
        for number, phase in enumerate(sorted(PEOPLE_PHASES))
    ]

    def give(tx: Transaction) -> None:
        for one in held:
            tx.put(one)

    await simulation.store.write(give)
    granted = [one for one in await simulation.grant_all() if one.phase not in PEOPLE_PHASES]
    assert len(granted) == 2
    job = await simulation.job("anna00000000")
    (line,) = (
        why
        for why in await simulation.store.read(lambda tx: reasons_of(tx, job, most_running=2))
        if why.code == "line.quota"
    )
    assert line.evidence["running"] == "2"


async def test_too_many_open_jobs_are_refused() -> None:
    simulation = Unruly(workers=0)
    await simulation.submit(count_job(parts=1))
    desk = JobsDesk(engine=simulation.engine, rates=simulation.rates, max_open_jobs=1)
    request = jobs_pb2.SubmitJobRequest(
        submission_id="submission", spec_json=count_job().canonical_json(), max_msat=10**9
    )
    with pytest.raises(LimitExceeded, match="1 jobs that have not ended"):
        await submit_job(request, Caller(OWNER, bytes(32), Role.REQUESTER), desk)


async def test_donated_work_costs_its_requester_nothing_and_is_counted() -> None:
    simulation = Unruly(workers=0)
    simulation.attach("giver00000000000", donates=True, minimum_msat=0)
    await simulation.submit(count_job(parts=3))
    before = await simulation.available(user_account(OWNER))
    job = await simulation.run_to_end()
    assert job.state is JobState.SUCCEEDED
    assert await simulation.available(user_account(OWNER)) == before + job.budget_msat
    assert await simulation.available(worker_account("giver00000000000")) == 0
    leases = await simulation.store.read(lambda tx: tx.find(Lease, state="accepted"))
    assert {(one.paid_msat, one.donated_msat) for one in leases} == {(0, 1_000)}
    report = await simulation.store.read(lambda tx: views.report_view(tx, job, []))
    assert (report.job.spent_msat, report.job.donated_msat) == (0, 3_000)
    assert [(one.donated, one.donated_msat, one.paid_msat) for one in report.workers] == [(3, 3_000, 0)]
    assert all(one.donated and one.msat == 0 for one in report.payments)
    await simulation.check_ending()
    await simulation.check_books()


async def test_donated_work_that_is_lost_or_refused_moves_nothing() -> None:
    simulation = Unruly(workers=0)
    simulation.attach("giver00000000000", donates=True)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    await simulation.lose(held)
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_an_idle_worker_is_told_why() -> None:
    simulation = Unruly(workers=1)
    (worker,) = simulation.links.accepting()
    assert why_idle(worker, []) == NO_WORK
    link = simulation.links.get(worker.id)
    assert link is not None
    for _ in range(2):
        link.tell(NO_WORK)
    # said once
    assert link.queue.qsize() == 1
    pushed = link.queue.get_nowait()
    assert pushed is not None and pushed.idle.why.code == "worker.no_work"
