"""Stragglers: judged by their siblings, by what is known of their worker, and by who could do it instead."""

from __future__ import annotations

from dataclasses import replace

from shardwork_coordinator.engine import slice_of_replica, slice_of_round
from shardwork_coordinator.events import Slice
from shardwork_coordinator.queueing.stragglers import Speeds, speeds_of, stragglers
from shardwork_coordinator.records import JobState, Replica, Round
from shardwork_coordinator.store.base import Transaction

from ..test_sweeper import beat, learning
from ..unruly import Unruly


async def slow_ones(simulation: Unruly, held: Replica, *, idle: int = 0, own: int = 0) -> list[str]:
    """Ids of what would be copied, with speeds as given; 0: unknown."""

    def look(tx: Transaction) -> list[str]:
        state = slice_of_replica(tx, held)
        speeds = Speeds(tx, idle, {held.worker_id: own})
        return [shard.id for shard, _ in stragglers(state, simulation.engine.world(), simulation.settings, speeds)]

    return await simulation.store.read(look)


async def alone(simulation: Unruly) -> tuple[Replica, int]:
    """A learn lease without siblings, and its work units."""
    (held,) = await learning(simulation, shards=1)
    return held, next(shard.work_units for shard in await simulation.shards() if shard.id == held.shard_id)


async def test_without_siblings_and_records_nobody_is_slow() -> None:
    simulation = Unruly(workers=2)
    held, _ = await alone(simulation)
    simulation.clock.advance(10**5)
    assert await slow_ones(simulation, held) == []


async def test_a_lone_shard_is_slow_when_an_idle_worker_would_be_much_faster() -> None:
    simulation = Unruly(workers=2)
    held, units = await alone(simulation)
    simulation.clock.advance(30)
    fast, slow = units // 10, units // 300
    # ten seconds there; here it shows nothing, and its record says five minutes
    assert await slow_ones(simulation, held, idle=fast, own=slow) == [held.shard_id]
    # as fast itself, and on its way
    assert await slow_ones(simulation, held, idle=units // 40, own=units // 40) == []
    # nearly done: a copy would come later
    await beat(simulation, held, progress=0.9)
    assert await slow_ones(simulation, held, idle=fast, own=slow) == []


async def test_a_slow_worker_that_is_on_its_way_is_no_straggler_by_its_own_record() -> None:
    simulation = Unruly(workers=2)
    held, units = await alone(simulation)
    simulation.clock.advance(30)
    assert await slow_ones(simulation, held, idle=units // 30, own=units // 50) == []
    assert await slow_ones(simulation, held, idle=units // 30) == []
    simulation.clock.advance(40)
    assert await slow_ones(simulation, held, idle=units // 30) == [held.shard_id]


async def test_a_copy_is_not_made_where_the_idle_ones_are_slower_still() -> None:
    simulation = Unruly(workers=3)
    slow, other = await learning(simulation, shards=2)
    simulation.clock.advance(20)
    await simulation.finish(other)
    await beat(simulation, slow, progress=0.3)
    simulation.clock.advance(30)
    units = next(shard.work_units for shard in await simulation.shards() if shard.id == slow.shard_id)

    def look(tx: Transaction, idle: int) -> list[str]:
        round_ = tx.get(Round, slow.job_id, slow.stage, slow.round)
        assert round_ is not None
        state: Slice = slice_of_round(tx, round_)
        speeds = Speeds(tx, idle, {})
        return [shard.id for shard, _ in stragglers(state, simulation.engine.world(), simulation.settings, speeds)]

    assert await simulation.store.read(lambda tx: look(tx, units // 20)) == [slow.shard_id]
    assert await simulation.store.read(lambda tx: look(tx, units // 500)) == []


async def test_a_paused_job_has_no_stragglers_and_records_come_from_leases() -> None:
    simulation = Unruly(workers=2)
    held, units = await alone(simulation)
    simulation.clock.advance(100)
    await simulation.finish(held)
    found = await simulation.store.read(lambda tx: speeds_of(tx, {held.worker_id}))
    assert found.idle == found.of(held.worker_id) > 0
    assert found.idle <= units

    def paused(tx: Transaction) -> list[object]:
        state = slice_of_replica(tx, held)
        state = replace(state, job=replace(state.job, state=JobState.PAUSED))
        return list(stragglers(state, simulation.engine.world(), simulation.settings, Speeds(tx, 10**15, {})))

    assert await simulation.store.read(paused) == []
