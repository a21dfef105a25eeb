"""Verdicts and waits: counted once, under few labels, and the oldest of each kind."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from shardwork.why import Why
from shardwork_coordinator.records import JobState, Payout, PayoutState
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.telemetry.reasons import KNOWN, label_of
from shardwork_coordinator.telemetry.verdicts import Verdicts
from shardwork_coordinator.telemetry.waiting import Waits, waits

from ..simulation import Simulation, answers_job, sft_job

JOB = "job000000001"


def counts(registry: CollectorRegistry) -> dict[tuple[str, ...], float]:
    """(sample, label values) -> number, of those that are not zero."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.value and sample.name.endswith("_total")
    }


async def waiting(simulation: Simulation) -> Waits:
    now_ms = simulation.clock.now_ms()
    return await simulation.store.read(lambda tx: waits(tx, (JOB,), now_ms))


async def to_learning(simulation: Simulation, *, shards: int = 2) -> None:
    """The job's first learn phase is open and its shards are held."""
    await simulation.submit(sft_job(shards=shards))
    await simulation.run_effects()
    await simulation.granting.grant()
    for replica in await simulation.held():
        await simulation.finish(replica)
    await simulation.granting.grant()


async def test_what_happened_since_the_first_look_is_counted_once() -> None:
    simulation, registry = Simulation(), CollectorRegistry()
    verdicts = Verdicts(registry)
    await to_learning(simulation)
    await simulation.store.read(verdicts.look)
    assert counts(registry) == {}
    first, second = await simulation.held()
    await simulation.finish(first)
    await simulation.finish(second, refused=Why(code="check.tokens", sentence="They do not fit."))
    await simulation.granting.grant()
    await simulation.lose((await simulation.held())[0])
    for _ in range(2):
        await simulation.store.read(verdicts.look)
    found = counts(registry)
    assert found.pop(("shardwork_tokens_accepted_total", "learn")) > 0
    assert found == {
        ("shardwork_shards_accepted_total", "learn"): 1,
        ("shardwork_shards_rejected_total", "learn", "check.tokens"): 1,
        ("shardwork_shards_expired_total", "learn", "lease.silent"): 1,
    }
    simulation.store.close()


async def test_audits_are_counted_by_what_they_said_of_the_result() -> None:
    simulation, registry = Simulation(workers=4), CollectorRegistry()
    verdicts = Verdicts(registry)
    await simulation.submit(answers_job())
    await simulation.run_effects()
    await simulation.store.read(verdicts.look)
    first = True
    while (await simulation.job()).state is not JobState.SUCCEEDED:
        await simulation.run_effects()
        await simulation.granting.grant()
        for replica in await simulation.held():
            # the first result is made up, and two who repeat a part of it say so
            lies, first = first and replica.phase == "map", False
            await simulation.finish(replica, honest=not lies)
    await simulation.store.read(verdicts.look)
    found = counts(registry)
    assert found["shardwork_audits_total", "passed"] == found["shardwork_shards_accepted_total", "map"]
    assert found["shardwork_audits_total", "failed"] == 1
    assert ("shardwork_audits_total", "impossible") not in found
    simulation.store.close()


def test_whatever_a_worker_says_makes_no_new_label() -> None:
    said = ["worker.my_own_words", "trainer.0123456789abcdef", "zzz.anything", "", "check.made_up"]
    assert {label_of(code) for code in said} == {"worker", "other"}
    assert all(label_of(code) == code for code in KNOWN)


async def test_the_oldest_work_that_no_worker_has_is_told_and_a_paused_jobs_is_not() -> None:
    simulation = Simulation(workers=0)
    await simulation.submit(sft_job())
    assert (await waiting(simulation)).outbox_s == 0
    simulation.clock.advance(3)
    assert (await waiting(simulation)).outbox_s == 3
    await simulation.run_effects()
    simulation.clock.advance(90)
    found = await waiting(simulation)
    assert (found.queue_s, found.outbox_s) == (90, 0)
    assert found.round_s == found.checkpoint_s == 93
    now_ms = simulation.clock.now_ms()
    assert (await simulation.store.read(lambda tx: waits(tx, (), now_ms))).queue_s == 0
    simulation.store.close()


async def test_a_kept_round_makes_the_checkpoint_young_again() -> None:
    simulation = Simulation()
    await simulation.submit(sft_job(rounds=3))
    for _ in range(200):
        simulation.clock.advance(1)
        await simulation.run_effects()
        await simulation.granting.grant()
        held = await simulation.held()
        if held and "/r2/" in held[0].shard_id:
            break
        for replica in held:
            await simulation.finish(replica)
    assert (await simulation.job()).state is JobState.RUNNING
    before = await waiting(simulation)
    simulation.clock.advance(50)
    after = await waiting(simulation)
    assert before.checkpoint_s < 10
    assert after.checkpoint_s == before.checkpoint_s + 50
    assert after.round_s == before.round_s + 50
    simulation.store.close()


async def test_a_payment_counts_until_it_has_ended() -> None:
    simulation = Simulation()

    def put(tx: Transaction, state: PayoutState = PayoutState.UNKNOWN) -> None:
        payout = Payout(
            id="payout:1", owner="w", address="a@b", msat=1, fee_limit_msat=1, state=state, created_ms=0, updated_ms=0
        )
        tx.put(payout)

    await simulation.store.write(put)
    assert (await waiting(simulation)).payment_s == simulation.clock.now_ms() / 1000
    await simulation.store.write(lambda tx: put(tx, PayoutState.SETTLED))
    assert (await waiting(simulation)).payment_s == 0
    simulation.store.close()
