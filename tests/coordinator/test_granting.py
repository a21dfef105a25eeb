"""Granting: signed offers for what is ready and covered, one a worker, and no shard that stops the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from shardwork import work
from shardwork.errors import Unreachable
from shardwork.identity.envelope import open_envelope
from shardwork.identity.keys import SigningKey
from shardwork.ids import sha256_hex
from shardwork.v1 import types_pb2, work_pb2
from shardwork_coordinator import granting
from shardwork_coordinator.granting import FIRST_READY, SHORTEST_DEADLINE_S, ready_replicas
from shardwork_coordinator.machine.planning import ATTEMPTS
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, escrow_account, round_account
from shardwork_coordinator.queueing.history import LONGEST_REST_S
from shardwork_coordinator.records import JobState, Party, Purpose, Replica, Shard
from shardwork_coordinator.store.base import Transaction

from .simulation import Simulation, count_job, sft_job
from .unruly import Unruly


def offer_of(replica: Replica) -> work_pb2.LeaseOffer:
    envelope = types_pb2.Envelope.FromString(replica.offer)
    payload = open_envelope(envelope, work.LEASE_TYPE, expected_key=SigningKey(bytes(32)).public_key)
    assert sha256_hex(payload) == replica.offer_sha256
    return work_pb2.LeaseOffer.FromString(payload)


async def test_an_offer_is_signed_and_says_everything_the_lease_is_judged_by() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    offer, shard = offer_of(held), (await simulation.shards())[0]
    assert offer.lease_id == f"{shard.id}#0.1" and offer.worker_id == held.worker_id
    assert (offer.params_json, offer.seed, offer.price_msat) == (shard.order_json, shard.seed, shard.price_msat)
    assert [item.name for item in offer.inputs] == ["part"]
    assert offer.deadline_unix_ms == simulation.clock.now_ms() + SHORTEST_DEADLINE_S * 1000
    pushed = simulation.links.get(held.worker_id)
    assert pushed is not None and pushed.queue.qsize() == 1


async def test_each_worker_holds_one_lease_and_pauses_get_none() -> None:
    simulation = Unruly(workers=3)
    paused = simulation.links.get("worker0000000002")
    assert paused is not None
    paused.accepting = False
    await simulation.submit(count_job(parts=5))
    held = await simulation.grant_all()
    assert sorted(one.worker_id for one in held) == ["worker0000000000", "worker0000000001"]
    assert await simulation.granting.grant() == 0


async def test_a_paused_job_and_a_worker_that_failed_get_nothing_more() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    await simulation.lose(held)
    job = await simulation.job()
    ready = await simulation.store.read(lambda tx: ready_replicas(tx, job))
    assert [one.shunned for one in ready] == [frozenset({held.worker_id})]
    await simulation.pause()
    job = await simulation.job()
    assert await simulation.store.read(lambda tx: ready_replicas(tx, job)) == []
    assert await simulation.granting.grant() == 0


async def test_two_keys_of_one_shard_are_two_workers() -> None:
    simulation = Unruly(workers=3)
    await simulation.submit(sft_job(rounds=1))
    first, second = await simulation.grant_all()
    assert first.shard_id == second.shard_id and first.worker_id != second.worker_id
    await simulation.finish(first)
    assert await simulation.granting.grant() == 0


async def test_what_the_reserve_does_not_cover_is_not_offered() -> None:
    simulation = Simulation(workers=2)
    await simulation.submit(count_job(parts=2))
    await simulation.run_effects()

    def empty(tx: Transaction) -> None:
        reserve = round_account("job000000001", "words", 1)
        move = Move(
            id="test/empty",
            debit=reserve,
            credit=escrow_account("job000000001"),
            msat=ledger.available(tx, reserve) - 1_020,
            reason="release",
            reference="test",
        )
        ledger.apply(tx, move, 0)

    await simulation.store.write(empty)
    assert await simulation.granting.grant() == 1
    assert len(await simulation.held()) == 1


async def poisoned() -> tuple[Unruly, Shard]:
    """Two workers and a job of two shards, of which the first can't be leased; the other one."""
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=2))
    await simulation.run_effects()
    bad, good = sorted(await simulation.shards(), key=lambda shard: shard.position)

    def poison(tx: Transaction) -> None:
        row = tx.get(Shard, bad.id)
        assert row is not None
        tx.put(replace(row, inputs_json="[]"))

    await simulation.store.write(poison)
    return simulation, good


async def first_held(simulation: Simulation) -> list[Replica]:
    simulation.engine.work_ready.set()
    async with asyncio.timeout(10):
        while not (held := await simulation.held()):
            await asyncio.sleep(0.05)
    return held


async def test_a_shard_that_can_not_be_leased_is_set_aside_and_the_others_go_on() -> None:
    simulation, good = await poisoned()
    loop = asyncio.create_task(simulation.granting.run())
    held = await first_held(simulation)
    loop.cancel()
    await asyncio.wait([loop], timeout=5)
    assert [one.shard_id for one in held] == [good.id]


@pytest.mark.parametrize("turns", range(6))
async def test_a_stop_that_meets_new_work_is_not_lost(turns: int) -> None:
    """While it waits with a limit, as it does when something was set aside."""
    simulation, _ = await poisoned()
    loop = asyncio.create_task(simulation.granting.run())
    await first_held(simulation)
    await asyncio.sleep(0.2)
    simulation.engine.work_ready.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    loop.cancel()
    await asyncio.wait([loop], timeout=5)
    assert loop.cancelled()


async def test_a_database_that_was_away_sets_nothing_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last lease is lost in the outage, as leases are, and must be given again."""
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    away = asyncio.Event()

    async def refuse(work: Callable[[Transaction], object]) -> None:
        away.set()
        raise Unreachable("store.unreachable", "The database is away.")

    loop = asyncio.create_task(simulation.granting.run())
    with monkeypatch.context() as patched:
        patched.setattr(simulation.store, "write", refuse)
        simulation.engine.work_ready.set()
        async with asyncio.timeout(10):
            await away.wait()
            await asyncio.sleep(0)
    await simulation.lose(held)
    simulation.engine.work_ready.set()
    async with asyncio.timeout(10):
        while not (again := await simulation.held()):
            await asyncio.sleep(0.05)
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    assert (again[0].shard_id, again[0].epoch) == (held.shard_id, held.epoch + 1)


async def test_what_was_set_aside_is_tried_again_after_a_while_though_nothing_was_heard_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(granting, "SET_ASIDE_S", 1.0)
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=1))
    await simulation.run_effects()
    (shard,) = await simulation.shards()
    await simulation.store.write(lambda tx: tx.put(replace(shard, inputs_json="[]")))
    loop = asyncio.create_task(simulation.granting.run())
    simulation.engine.work_ready.set()
    await asyncio.sleep(0.2)
    await simulation.store.write(lambda tx: tx.put(shard))
    await asyncio.sleep(0.7)
    assert await simulation.held() == []
    simulation.clock.advance(2)
    async with asyncio.timeout(10):
        while not await simulation.held():
            await asyncio.sleep(0.05)
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop


async def test_a_job_that_nobody_can_take_does_not_stop_those_behind_it() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=FIRST_READY * 3), job_id="job-too-large")
    await simulation.run_effects()

    def enlarge(tx: Transaction) -> None:
        for shard in tx.find(Shard):
            tx.put(replace(shard, memory_bytes=1 << 50))

    await simulation.store.write(enlarge)
    simulation.clock.advance(1)
    await simulation.submit(count_job(parts=2), job_id="job-behind")
    (held,) = await simulation.grant_all()
    assert held.job_id == "job-behind"


async def test_a_worker_that_failed_at_the_first_shards_is_given_a_later_one() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=FIRST_READY * 3))
    await simulation.run_effects()
    simulation.attach("another000000000")
    other = simulation.links.get("another000000000")
    assert other is not None
    failed: set[str] = set()
    for _ in range(FIRST_READY + 10):
        await simulation.granting.grant()
        for held in await simulation.held():
            if held.worker_id == other.worker_id:
                failed.add(held.shard_id)
                await simulation.lose(held)
        # it rests longer and longer
        simulation.clock.advance(LONGEST_REST_S)
    # the first worker keeps one shard all the while, so what the other failed at waits for it
    assert len(failed) == FIRST_READY + 10


async def test_fresh_keys_can_not_use_up_the_attempts_of_a_shard() -> None:
    simulation = Unruly(workers=1)
    await simulation.submit(count_job(parts=3))
    (first,) = await simulation.grant_all()
    await simulation.finish(first)
    # somebody who has earned is at work; fresh keys come, take a shard each and fail
    await simulation.granting.grant()
    for number in range(8):
        simulation.attach(f"fresh{number:011d}")
        await simulation.granting.grant()
        for held in await simulation.held():
            if held.worker_id.startswith("fresh"):
                await simulation.lose(held)
    assert (await simulation.job()).state is JobState.RUNNING
    assert min(shard.attempts_left for shard in await simulation.shards()) == ATTEMPTS - 1
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_spare_copies_never_use_what_a_waiting_shard_will_need() -> None:
    simulation = Unruly(workers=3)
    await simulation.submit(count_job(parts=3))
    first, second, third = await simulation.grant_all()
    # the one spare that the reserve holds is promised twice, and then a shard is lost
    assert await simulation.copy(first) and await simulation.copy(second)
    await simulation.lose(third)
    for number in range(3):
        simulation.attach(f"fresh{number:011d}")
    held = await simulation.grant_all()
    assert sorted(one.purpose for one in held) == [Purpose.BACKUP, *[Purpose.PRIMARY] * 3]
    for replica in held:
        await simulation.finish(replica)
    assert (await simulation.run_to_end()).state is JobState.SUCCEEDED
    await simulation.check_books()


async def test_a_lost_copy_is_not_offered_again_and_costs_no_attempt() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=1))
    (held,) = await simulation.grant_all()
    assert await simulation.copy(held)
    await simulation.granting.grant()
    copy = next(one for one in await simulation.held() if one.purpose is Purpose.BACKUP)
    await simulation.lose(copy)
    (shard,) = [one for one in await simulation.shards() if one.phase == "map"]
    assert shard.attempts_left == ATTEMPTS
    assert [one.purpose for one in await simulation.grant_all()] == [Purpose.PRIMARY]
    # still slow: another copy may be made
    assert await simulation.copy(held)


async def test_a_revoked_key_is_given_nothing_although_its_stream_lives() -> None:
    simulation = Unruly(workers=2)
    party = Party(
        id="worker0000000000",
        public_key=bytes(32),
        roles="worker",
        name="",
        revoked=True,
        created_ms=0,
        last_seen_ms=0,
    )
    await simulation.store.write(lambda tx: tx.put(party))
    await simulation.submit(count_job(parts=3))
    assert [one.worker_id for one in await simulation.grant_all()] == ["worker0000000001"]
