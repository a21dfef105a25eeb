"""A coordinator's store as the page may find it: jobs in every state, workers here and gone, hostile names, money.

Rows are put as they would stand, without the machine; nothing runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

from shardwork.clock import ManualClock
from shardwork.v1 import work_pb2
from shardwork.why import Why
from shardwork_coordinator.accounts import sessions
from shardwork_coordinator.engine import Engine
from shardwork_coordinator.links import Link, Links
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import (
    FEES,
    Move,
    escrow_account,
    external_account,
    user_account,
    worker_account,
)
from shardwork_coordinator.records import (
    Event,
    Job,
    JobState,
    Lease,
    Party,
    Purpose,
    Replica,
    ReplicaState,
    Round,
    RoundState,
    Shard,
    ShardState,
    Stage,
    StageState,
    WebRole,
    WebUser,
)
from shardwork_coordinator.store import MemoryStore
from shardwork_coordinator.store.base import Transaction
from shardwork_coordinator.web.alerts import Facts

OWNER = "0123456789abcdef"
#: of a site on no port
COOKIE = "shardwork_0"
HOSTILE_JOB = "<script>alert('job')</script> \"quoted\" & <img src=x onerror=alert(1)>"
HOSTILE_WORKER = "</td><script>alert('worker')</script>\"' onmouseover=\"alert(2)"
LONG_NAME = "a-very-long-name-without-any-place-to-break-it-" * 3
BUDGET_MSAT = 55_080


class Scene:
    """An engine over a memory store, filled step by step."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock, self.links, self.store = clock or ManualClock(), Links(), MemoryStore()
        self.store.start()
        self.engine = Engine(self.store, self.links, self.clock)
        self.jobs = 0

    async def put(self, work: Callable[[Transaction], object]) -> None:
        """Writes and wakes who watches."""
        await self.store.write(work)
        self.engine.after_commit(())

    async def job(
        self, name: str, state: JobState, *, rounds: int = 0, why: Why | None = None, losses: bool = True
    ) -> str:
        """A pretrain job of 6 rounds with `rounds` of them merged; the next one learns while it runs."""
        self.jobs += 1
        now_ms, job_id = self.clock.now_ms(), f"{self.jobs:012x}"
        ended = state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
        job = Job(
            id=job_id,
            owner=OWNER,
            submission_id=job_id,
            name=name,
            state=state,
            spec_json="{}",
            facts_json="{}",
            inputs_json="{}",
            quote_json="{}",
            rates_json="{}",
            budget_msat=BUDGET_MSAT,
            why_json=why.to_json() if why else "",
            created_ms=now_ms - 100_000 + self.jobs,
            ended_ms=now_ms - 5_000 if ended else 0,
        )
        await self.put(lambda tx: self._fill(tx, job, rounds, losses=losses))
        return job_id

    def _fill(self, tx: Transaction, job: Job, rounds: int, *, losses: bool) -> None:
        tx.put(job)
        stage = Stage(
            job_id=job.id,
            name="pretrain",
            position=0,
            recipe="pretrain",
            state=StageState.DONE if job.ended_ms else StageState.RUNNING,
            planned_rounds=6,
            spec_json="{}",
            numbers_json=json.dumps({"eval_loss_start": 7.645} if losses else {}),
        )
        tx.put(stage)
        for number in range(rounds + 1):
            tx.put(self._round(job, number, RoundState.MERGED, loss=6.5 - number / 10 if losses and number else None))
        if not job.ended_ms:
            tx.put(self._round(job, rounds + 1, RoundState.OPEN, loss=None))
        for move in (
            Move(
                id=f"{job.id}/in",
                debit=external_account("simulated"),
                credit=user_account(OWNER),
                msat=job.budget_msat,
                reason="deposit",
                reference=job.id,
            ),
            Move(
                id=f"{job.id}/escrow",
                debit=user_account(OWNER),
                credit=escrow_account(job.id),
                msat=job.budget_msat,
                reason="escrow",
                reference=job.id,
            ),
        ):
            ledger.apply(tx, move, job.created_ms)
        tx.insert(Event(job_id=job.id, at_ms=job.created_ms, kind="job.running", subject=job.id, sentence="It began."))

    def _round(self, job: Job, number: int, state: RoundState, *, loss: float | None) -> Round:
        return Round(
            job_id=job.id,
            stage="pretrain",
            number=number,
            kind="learn" if number else "setup",
            state=state,
            phase="learn" if number else "init",
            train_loss=None if loss is None else loss + 0.2,
            eval_loss=loss,
            started_ms=job.created_ms,
            ended_ms=0 if state is RoundState.OPEN else job.created_ms + 1_000,
        )

    async def worker(self, number: int, name: str, *, attached: bool = True, accepting: bool = True) -> str:
        worker_id, now_ms = f"{number:016x}", self.clock.now_ms()
        party = Party(
            id=worker_id,
            public_key=number.to_bytes(32, "big"),
            roles="worker",
            name=name,
            created_ms=now_ms - 200_000,
            last_seen_ms=now_ms - 180_000,
        )
        await self.put(lambda tx: tx.put(party))
        if attached:
            capability = work_pb2.Capability(recipes=["pretrain"], can_train=True, device_name="Some GPU")
            self.links.attach(
                Link(
                    worker_id=worker_id,
                    name=name,
                    capability=capability,
                    minimum_msat=0,
                    accepting=accepting,
                    reference=False,
                    since_ms=now_ms,
                    last_seen_ms=now_ms,
                )
            )
        return worker_id

    async def learning(self, job_id: str, worker_id: str, *, number: int, position: int, progress: float) -> None:
        """The worker holds a shard of the job's open round."""
        shard_id = f"{job_id}/pretrain/r{number}/learn/s{position}"
        shard = Shard(
            id=shard_id,
            job_id=job_id,
            stage="pretrain",
            round=number,
            phase="learn",
            position=position,
            recipe="pretrain",
            state=ShardState.RUNNING,
            order_json="{}",
            inputs_json="{}",
            seed=b"",
            work_units=1,
            price_msat=1_000,
            fee_msat=20,
            attempts_left=3,
            created_ms=self.clock.now_ms(),
        )
        replica = Replica(
            shard_id=shard_id,
            number=0,
            job_id=job_id,
            stage="pretrain",
            round=number,
            phase="learn",
            purpose=Purpose.PRIMARY,
            state=ReplicaState.LEASED,
            epoch=1,
            worker_id=worker_id,
            progress=progress,
        )

        def work(tx: Transaction) -> None:
            tx.put(shard)
            tx.put(replica)
            sentence = f"learn shard {position} went to worker {worker_id}."
            now_ms = self.clock.now_ms()
            tx.insert(Event(job_id=job_id, at_ms=now_ms, kind="shard.leased", subject=shard_id, sentence=sentence))

        await self.put(work)

    async def paid(self, job_id: str, worker_id: str, msat: int, *, fee_msat: int = 20) -> None:
        """The worker handed in a shard of the job and was paid for it."""

        def work(tx: Transaction) -> None:
            count = len(tx.find(Lease))
            tx.put(
                Lease(
                    id=f"{job_id}/{count}",
                    job_id=job_id,
                    shard_id=f"{job_id}/pretrain/r1/learn/s{count}",
                    replica=0,
                    epoch=1,
                    worker_id=worker_id,
                    phase="learn",
                    state=ReplicaState.ACCEPTED,
                    granted_ms=0,
                    ended_ms=1,
                    paid_msat=msat,
                )
            )
            for name, credit, amount in (("pay", worker_account(worker_id), msat), ("fee", FEES, fee_msat)):
                move = Move(
                    id=f"{job_id}/{count}/{name}",
                    debit=escrow_account(job_id),
                    credit=credit,
                    msat=amount,
                    reason="shard",
                    reference=job_id,
                )
                ledger.apply(tx, move, self.clock.now_ms())
            if (round_ := tx.get(Round, job_id, "pretrain", 1)) is not None:
                paid, fees = round_.paid_msat + msat, round_.fees_msat + fee_msat
                tx.put(replace(round_, accepted=round_.accepted + 1, paid_msat=paid, fees_msat=fees))

        await self.put(work)


async def everything(clock: ManualClock | None = None) -> Scene:
    """Jobs in every state, four workers, strangers' names."""
    scene = Scene(clock)
    running = await scene.job("news-7b-summaries", JobState.RUNNING, rounds=3)
    paused = Why(
        code="shard.exhausted",
        sentence="learn shard 2 failed on 4 workers, the last time with: The training child was killed for memory.",
        next_step="Lower params.batch_size and submit again, or `shardwork job resume` to try on other workers.",
    )
    await scene.job(LONG_NAME, JobState.PAUSED, rounds=1, why=paused)
    failed = Why(
        code="data.masked",
        sentence="Every label of all 500 rows is masked, so there is nothing to learn from.",
        next_step="Look at `shardwork data check train.jsonl`.",
    )
    await scene.job("masked rows", JobState.FAILED, rounds=0, why=failed, losses=False)
    await scene.job("support-chat", JobState.SUCCEEDED, rounds=6)
    await scene.job(
        "typo", JobState.CANCELLED, rounds=0, why=Why(code="job.cancelled", sentence="The requester cancelled the job.")
    )
    hostile = await scene.job(HOSTILE_JOB, JobState.RUNNING, rounds=2, losses=False)
    alice, bad = await scene.worker(1, "alice"), await scene.worker(2, HOSTILE_WORKER)
    await scene.worker(3, LONG_NAME[:64], attached=False)
    await scene.worker(4, "dora", accepting=False)
    await scene.learning(running, alice, number=4, position=0, progress=0.42)
    await scene.learning(hostile, bad, number=3, position=0, progress=0.07)
    await scene.paid(running, alice, 3_000)
    await scene.paid(running, bad, 1_500)
    return scene


async def closed(scene: Scene) -> None:
    """Lets what waits for a commit end, and the store with it."""
    await asyncio.sleep(0)
    scene.store.close()


async def signed_in(scene: Scene, role: WebRole = WebRole.OPERATOR, name: str = "ada") -> str:
    """The secret of a session of a new user, as the cookie holds it."""
    now_ms = scene.clock.now_ms()

    def begin(tx: Transaction) -> str:
        if tx.get(WebUser, name) is None:
            tx.insert(WebUser(name=name, role=role, password_hash="", created_ms=now_ms))
        return sessions.begin(tx, name, now_ms).text

    return await scene.store.write(begin)


def facts(scene: Scene, *, balanced: bool = True) -> Facts:
    """What a look at the store is told beside it."""
    links = scene.engine.links.everywhere()
    return Facts(now_ms=scene.clock.now_ms(), links=links, balanced=balanced, free_bytes=None)
