"""Views of jobs: what a job waits for and what came back, also when many others are there."""

from __future__ import annotations

from dataclasses import replace

from shardwork_coordinator import granting, views
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import Move, MoveAll, escrow_account, user_account
from shardwork_coordinator.records import (
    Job,
    JobState,
    Replica,
    ReplicaState,
    Round,
    RoundState,
    Shard,
    ShardState,
    Stage,
)
from shardwork_coordinator.store.base import Transaction

from .web.scene import BUDGET_MSAT, OWNER, Scene


async def test_a_job_behind_a_long_queue_still_says_that_it_waits_for_a_worker() -> None:
    scene = Scene()
    first = await scene.job("first", JobState.RUNNING)
    second = await scene.job("second", JobState.RUNNING)
    worker = await scene.worker(1, "w")
    for job in (first, second):
        await scene.learning(job, worker, number=1, position=0, progress=0.0)

    def queue(tx: Transaction) -> None:
        (of_first,) = tx.find(Shard, job_id=first)
        (held,) = tx.find(Replica, job_id=first)
        for position in range(granting.MOST_READY + 1):
            name = f"{first}/pretrain/r1/learn/s{position}"
            tx.put(replace(of_first, id=name, position=position, state=ShardState.READY))
            tx.put(replace(held, shard_id=name, state=ReplicaState.READY, created_ms=position))
        (of_second,) = tx.find(Replica, job_id=second)
        tx.put(replace(of_second, state=ReplicaState.READY, created_ms=10_000))

    def why(tx: Transaction) -> str:
        job = tx.get(Job, second)
        assert job is not None
        return views.job_why(tx, job, tx.find(Stage, job_id=second), []).code

    await scene.put(queue)
    code = await scene.store.read(why)
    assert code.startswith("shard.")
    scene.store.close()


async def test_results_that_differ_are_told_as_such_and_not_as_one_that_waits() -> None:
    scene = Scene()
    job_id = await scene.job("undecided", JobState.RUNNING)
    await scene.learning(job_id, await scene.worker(1, "w"), number=1, position=0, progress=1.0)

    def hand_in(tx: Transaction) -> None:
        (held,) = tx.find(Replica, job_id=job_id)
        tx.put(replace(held, state=ReplicaState.SUBMITTED))
        tx.put(replace(held, number=1, worker_id="other", state=ReplicaState.SUBMITTED))
        tx.put(replace(held, number=2, worker_id="", state=ReplicaState.READY))

    def why(tx: Transaction) -> str:
        job = tx.get(Job, job_id)
        assert job is not None
        return views.job_why(tx, job, tx.find(Stage, job_id=job_id), []).sentence

    await scene.put(hand_in)
    assert await scene.store.read(why) == "2 workers gave different results for the learn phase; one more must decide."
    scene.store.close()


async def test_refunds_are_what_left_escrow_for_the_requester() -> None:
    scene = Scene()
    job_id = await scene.job("short", JobState.SUCCEEDED)

    def end(tx: Transaction) -> None:
        pay = Move(
            id="pay", debit=escrow_account(job_id), credit="worker:w", msat=1_000, reason="shard", reference=job_id
        )
        rest = MoveAll(
            id="rest",
            debit=escrow_account(job_id),
            credit=user_account(OWNER),
            reason="refund",
            reference=job_id,
        )
        for movement in (pay, rest):
            ledger.apply(tx, movement, 0)

    def money(tx: Transaction) -> dict[str, int]:
        job = tx.get(Job, job_id)
        assert job is not None
        paid = Round(
            job_id=job_id, stage="pretrain", number=1, kind="learn", state=RoundState.MERGED, phase="", started_ms=0
        )
        return views.job_money(tx, job, [replace(paid, paid_msat=980, fees_msat=20)])

    await scene.put(end)
    assert await scene.store.read(money) == {"reserved": 0, "refunded": BUDGET_MSAT - 1_000, "spent": 1_000}
    scene.store.close()
