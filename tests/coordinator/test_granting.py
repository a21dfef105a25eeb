"""Granting: signed offers for what is ready and covered, one a worker, and no shard that stops the others."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from shardwork import work
from shardwork.identity.envelope import open_envelope
from shardwork.identity.keys import SigningKey
from shardwork.ids import sha256_hex
from shardwork.v1 import types_pb2, work_pb2
from shardwork_coordinator.granting import SHORTEST_DEADLINE_S, ready_replicas
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, escrow_account, round_account
from shardwork_coordinator.records import Replica, Shard
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
    ready = await simulation.store.read(ready_replicas)
    assert [one.shunned for one in ready] == [frozenset({held.worker_id})]
    await simulation.pause()
    assert await simulation.store.read(ready_replicas) == []
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


async def test_a_shard_that_can_not_be_leased_is_set_aside_and_the_others_go_on() -> None:
    simulation = Unruly(workers=2)
    await simulation.submit(count_job(parts=2))
    await simulation.run_effects()
    bad, good = sorted(await simulation.shards(), key=lambda shard: shard.position)

    def poison(tx: Transaction) -> None:
        row = tx.get(Shard, bad.id)
        assert row is not None
        tx.put(replace(row, inputs_json="[]"))

    await simulation.store.write(poison)
    loop = asyncio.create_task(simulation.granting.run())
    simulation.engine.work_ready.set()
    async with asyncio.timeout(10):
        while not (held := await simulation.held()):
            await asyncio.sleep(0.05)
    loop.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await loop
    assert [one.shard_id for one in held] == [good.id]
