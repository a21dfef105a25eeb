"""What time brings: silent leases, stragglers and keys that never come; and one trouble does not hide the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shardwork.errors import StaleLease
from shardwork_coordinator.machine.planning import ATTEMPTS
from shardwork_coordinator.records import Job, JobState, Purpose, Replica, ReplicaState, ShardState
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.sweeper import REFERENCE_PATIENCE, Sweeper

from .simulation import Simulation, count_job, sft_job
from .unruly import Unruly


class Swept:
    """A simulation with its sweeper, which counts what it did for the money."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.paid = 0
        self.sweeper = Sweeper(simulation.engine, simulation.settings, self._pay)

    async def _pay(self) -> None:
        self.paid += 1

    async def after(self, seconds: float, *, awake: bool = True) -> None:
        """Time passes, workers that are awake are heard, and the sweeper looks."""
        self.simulation.clock.advance(seconds)
        for link in self.simulation.links.all():
            if awake:
                link.last_seen_ms = self.simulation.clock.now_ms()
        await self.sweeper.sweep()


async def beat(simulation: Simulation, replica: Replica, *, progress: float, expires_in_s: float = 10**6) -> None:
    """What a heartbeat writes."""

    def work(tx: Transaction) -> None:
        row = tx.get(Replica, replica.shard_id, replica.number)
        assert row is not None
        expires_ms = simulation.clock.now_ms() + int(expires_in_s * 1000)
        tx.put(replace(row, progress=progress, expires_ms=expires_ms, deadline_ms=expires_ms))

    await simulation.store.write(work)


async def test_a_silent_lease_is_taken_back_and_a_live_one_is_not() -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=2))
    silent, live = await simulation.grant_all()
    await beat(simulation, live, progress=0.1)
    await swept.after(simulation.settings.lease_ttl_s + 1)
    assert [one.worker_id for one in await simulation.held()] == [live.worker_id]
    with pytest.raises(StaleLease):
        await simulation.finish(silent)
    await simulation.check_books()


async def test_a_lease_past_its_deadline_is_taken_back_however_lively_its_worker() -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    await beat(simulation, held, progress=0.9, expires_in_s=30)

    def late(tx: Transaction) -> None:
        row = tx.get(Replica, held.shard_id, 0)
        assert row is not None
        tx.put(replace(row, expires_ms=row.expires_ms + 10**6))

    await simulation.store.write(late)
    await swept.after(31)
    assert await simulation.held() == []
    shard = (await simulation.shards())[0]
    assert "lease.past_deadline" in shard.why_json


async def learning(simulation: Unruly, *, shards: int) -> list[Replica]:
    """The held learn leases of a job's first round."""
    await simulation.submit(sft_job(rounds=1, shards=shards))
    for replica in await simulation.grant_all():
        await simulation.finish(replica)
    return await simulation.grant_all()


@pytest.mark.parametrize(
    ("progress", "after_s", "copied"),
    [(0.01, 30, True), (0.9, 30, False), (0.5, 30, True), (0.2, 60, True), (0.99, 30, False), (0.99, 200, True)],
)
async def test_a_straggler_gets_a_copy_and_saying_nearly_done_helps_only_for_a_while(
    progress: float, after_s: float, copied: bool
) -> None:
    simulation = Unruly(workers=3)
    swept = Swept(simulation)
    slow, *others = await learning(simulation, shards=3)
    simulation.clock.advance(20)
    for replica in (slow, *others):
        await beat(simulation, replica, progress=progress)
    for replica in others:
        await simulation.finish(replica)
    await swept.after(after_s - 20)
    shards = [one for one in await simulation.grant_all() if one.shard_id == slow.shard_id]
    assert (len(shards) == 2) is copied
    assert {one.purpose for one in shards[1:]} <= {Purpose.BACKUP}
    await simulation.check_books()


async def test_without_a_second_key_a_job_goes_on_and_says_so() -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await simulation.submit(sft_job(rounds=1))
    (first,) = await simulation.grant_all()
    await beat(simulation, first, progress=0.5)
    await simulation.finish(first)
    await swept.after(1)
    assert not (await simulation.job()).self_evaluated
    await swept.after(simulation.settings.agreement_grace_s + 1)
    assert (await simulation.job()).self_evaluated
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_ending()


async def test_a_worker_that_is_there_but_takes_nothing_is_no_second_key() -> None:
    simulation = Unruly(workers=1)
    simulation.attach("idler00000000000", minimum_msat=2**63)
    swept = Swept(simulation)
    await simulation.submit(sft_job(rounds=1))
    (first,) = await simulation.grant_all()
    await simulation.finish(first)
    await swept.after(1)
    await swept.after(simulation.settings.agreement_grace_s + 1)
    assert (await simulation.job()).self_evaluated


async def test_two_able_workers_are_waited_for_and_a_job_that_is_over_is_not_marked() -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    await simulation.submit(sft_job(rounds=1))
    first, second = await simulation.grant_all()
    await simulation.finish(first)
    await beat(simulation, second, progress=0.5)
    for _ in range(3):
        await swept.after(simulation.settings.agreement_grace_s + 1)
    assert not (await simulation.job()).self_evaluated
    await simulation.cancel()
    simulation.detach(second.worker_id)
    for _ in range(3):
        await swept.after(simulation.settings.agreement_grace_s + 1)
    assert not (await simulation.job()).self_evaluated
    await simulation.check_ending()


async def test_a_phase_kept_for_a_reference_worker_that_left_goes_to_two_other_keys() -> None:
    simulation = Unruly(workers=2)
    simulation.attach("reference0000000", reference=True)
    swept = Swept(simulation)
    await simulation.submit(sft_job(rounds=1))
    (held,) = await simulation.grant_all()
    assert held.worker_id == "reference0000000"
    simulation.detach(held.worker_id)
    await simulation.lose(held)
    await swept.after(1)
    await swept.after(simulation.settings.agreement_grace_s + 1)
    assert await simulation.grant_all() == []
    await swept.after(REFERENCE_PATIENCE * simulation.settings.agreement_grace_s)
    first, second = await simulation.grant_all()
    assert first.shard_id == second.shard_id == held.shard_id
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    assert not (await simulation.job()).self_evaluated
    await simulation.check_books()
    await simulation.check_ending()


async def test_a_reference_worker_that_comes_back_in_time_is_the_one() -> None:
    simulation = Unruly(workers=2)
    simulation.attach("reference0000000", reference=True)
    swept = Swept(simulation)
    await simulation.submit(sft_job(rounds=1))
    (held,) = await simulation.grant_all()
    simulation.detach(held.worker_id)
    await simulation.lose(held)
    await swept.after(REFERENCE_PATIENCE * simulation.settings.agreement_grace_s - 1)
    simulation.attach("reference0000000", reference=True)
    await swept.after(2)
    simulation.detach(held.worker_id)
    await swept.after(2)
    simulation.attach("reference0000000", reference=True)
    (again,) = await simulation.grant_all()
    assert again.worker_id == "reference0000000"


async def test_a_poisoned_row_keeps_neither_other_leases_nor_money_waiting() -> None:
    simulation = Unruly(workers=2)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=2))
    poisoned, healthy = await simulation.grant_all()

    def poison(tx: Transaction) -> None:
        replica = tx.get(Replica, poisoned.shard_id, poisoned.number)
        assert replica is not None
        # a lease that nothing was ever held for: taking it back would free money that is not there
        tx.put(replace(replica, epoch=replica.epoch + 1))

    await simulation.store.write(poison)
    await swept.after(simulation.settings.lease_ttl_s + 1)
    assert [one.shard_id for one in await simulation.held()] == [poisoned.shard_id]
    assert healthy.state is ReplicaState.LEASED
    assert swept.paid == 1


async def test_leases_live_on_for_a_whole_time_after_a_restart() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    simulation.clock.advance(3600)
    restarted = Swept(simulation)
    await restarted.sweeper.revive()
    await beat(simulation, held, progress=0.0, expires_in_s=simulation.settings.lease_ttl_s)
    await restarted.after(simulation.settings.lease_ttl_s - 1)
    assert len(await simulation.held()) == 1
    jobs = await simulation.store.read(lambda tx: tx.find(Job))
    assert [job.state for job in jobs] == [JobState.RUNNING]


@pytest.mark.parametrize("hours", [5, -5])
async def test_a_clock_that_is_set_takes_no_lease_away_and_lets_none_live_for_ever(hours: int) -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    simulation.clock.set_by(hours * 3600)
    await swept.after(0.5)
    assert [one.worker_id for one in await simulation.held()] == [held.worker_id]
    await swept.after(simulation.settings.lease_ttl_s)
    assert await simulation.held() == []


async def test_what_was_finished_while_the_coordinator_was_away_can_be_handed_in() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    simulation.clock.advance(24 * 3600)
    restarted = Swept(simulation)
    await restarted.sweeper.revive()
    await restarted.after(1)
    await simulation.finish(held)
    assert [one.state for one in await simulation.shards()] == [ShardState.DONE]
    await simulation.check_books()


async def test_a_worker_that_fell_asleep_is_parted_from_and_given_nothing_until_it_comes_back() -> None:
    simulation = Unruly(workers=1)
    swept = Swept(simulation)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    for _ in range(4):
        await swept.after(simulation.settings.lease_ttl_s + 1, awake=False)
        assert await simulation.grant_all() == []
    (shard,) = [one for one in await simulation.shards() if one.phase == "map"]
    assert shard.attempts_left == ATTEMPTS - 1
    simulation.attach(held.worker_id)
    assert [one.worker_id for one in await simulation.grant_all()] == [held.worker_id]
