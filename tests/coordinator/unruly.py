"""The simulation with everything that may go wrong at any time: control, copies, shrunk quorums, executor failures.

Each deed is carried out as its real caller does it: the jobs RPC, the sweeper and the outbox. Used by the tests of the
machine and of the coordinator's loops.
"""

from __future__ import annotations

import json
from dataclasses import replace

from shardwork.errors import Conflict
from shardwork.why import Why
from shardwork_coordinator.engine import advance, slice_of_job, slice_of_replica, slice_of_round
from shardwork_coordinator.events import (
    BackupWanted,
    ExecutorFailed,
    JobCancelled,
    JobPaused,
    JobResumed,
    MachineEvent,
    Push,
    QuorumShrunk,
    ReferenceGone,
    ResultCommitted,
)
from shardwork_coordinator.machine.states import ENDED, FINAL_JOB, LIVE
from shardwork_coordinator.money import ledger
from shardwork_coordinator.money.movements import FEES, escrow_account, round_account
from shardwork_coordinator.queueing.history import LONGEST_REST_S
from shardwork_coordinator.records import (
    Job,
    JobState,
    Lease,
    Outbox,
    OutboxState,
    Purpose,
    Replica,
    ReplicaState,
    Round,
    Shard,
    ShardState,
    Transfer,
    TransferKind,
)
from shardwork_coordinator.store.base import Transaction

from .simulation import Simulation

STEPS = 400
REFUSED = Why(code="check.loss_range", sentence="The reported loss is not plausible.")


class Unruly(Simulation):
    async def control(self, event: MachineEvent, job_id: str = "job000000001") -> None:
        """As `rpc.jobs.control` does it."""

        def work(tx: Transaction) -> list[Push]:
            job = tx.get(Job, job_id)
            assert job is not None
            if job.state in FINAL_JOB:
                raise Conflict("job.final", "The job is over.")
            return advance(tx, slice_of_job(tx, job), event, self.engine.world())

        await self.store.write(work)

    async def pause(self) -> None:
        await self.control(JobPaused(why=Why(code="job.paused_by_requester", sentence="Paused.")))

    async def resume(self) -> None:
        await self.control(JobResumed())

    async def cancel(self) -> None:
        await self.control(JobCancelled())

    async def fail_executor(self, code: str = "data.bad") -> bool:
        """The first pending effect can't be carried out; False when none is pending."""

        def work(tx: Transaction) -> bool:
            pending = tx.find(Outbox, state=OutboxState.PENDING, limit=1)
            if not pending:
                return False
            tx.put(replace(pending[0], state=OutboxState.DONE))
            payload = json.loads(pending[0].payload_json)
            round_ = tx.get(Round, payload["job_id"], payload["stage"], payload["round"])
            assert round_ is not None
            event = ExecutorFailed(phase=payload["phase"], why=Why(code=code, sentence="It can't be done."))
            advance(tx, slice_of_round(tx, round_), event, self.engine.world())
            return True

        return await self.store.write(work)

    async def work_until(self, phase: str) -> None:
        """Honest work until the executor has this phase to do."""
        for _ in range(STEPS):
            if any(f'"phase": "{phase}"' in one.payload_json for one in await self.pending()):
                return
            await self.grant_all()
            for replica in (await self.held())[:1]:
                await self.finish(replica)
        raise AssertionError(f"{phase} never came")

    async def pending(self) -> list[Outbox]:
        return await self.store.read(lambda tx: tx.find(Outbox, state=OutboxState.PENDING))

    async def copy(self, replica: Replica) -> bool:
        """A second copy of the replica's shard, under the sweeper's conditions; False when they are not given."""

        def work(tx: Transaction) -> bool:
            state = slice_of_replica(tx, replica)
            shard = state.shard(replica.shard_id)
            reserve = round_account(shard.job_id, shard.stage, shard.round)
            covered = ledger.available(tx, reserve) >= shard.price_msat + shard.fee_msat
            copies = [one for one in state.replicas_of(shard.id) if one.purpose is Purpose.BACKUP]
            copied = any(one.state not in ENDED for one in copies)
            ready = any(one.state is ReplicaState.READY for one in state.replicas)
            running = state.job.state is JobState.RUNNING and state.round.phase == shard.phase
            if copied or ready or not covered or not running or shard.quorum != 1 or shard.state is ShardState.DONE:
                return False
            event = BackupWanted(shard_id=shard.id, why=Why(code="shard.straggler", sentence="it lags."))
            advance(tx, state, event, self.engine.world())
            return True

        return await self.store.write(work)

    async def commit(self, replica: Replica) -> None:
        """Bound to a result that never comes."""

        def work(tx: Transaction) -> list[Push]:
            event = ResultCommitted(shard_id=replica.shard_id, number=replica.number, output_root="00" * 32)
            return advance(tx, slice_of_replica(tx, replica), event, self.engine.world())

        await self.store.write(work)

    async def shrink(self) -> int:
        """Every shard of a running job that waits for a second key goes on with one."""

        def work(tx: Transaction) -> int:
            shards = tx.find(Shard, state=[ShardState.READY, ShardState.RUNNING], quorum=2)
            audits = tx.find(Shard, state=[ShardState.READY, ShardState.RUNNING], phase="audit")
            held = {one.shard_id for one in tx.find(Replica, phase="audit") if one.state in LIVE}
            shards += [one for one in audits if one.id not in held]
            running = {job.id for job in tx.find(Job, state=JobState.RUNNING)}
            for shard in shards:
                replica = tx.get(Replica, shard.id, 0)
                if replica is not None and shard.job_id in running:
                    event = QuorumShrunk(shard_id=shard.id)
                    advance(tx, slice_of_replica(tx, replica), event, self.engine.world())
            return len(shards)

        return await self.store.write(work)

    async def replace_references(self) -> int:
        """Every shard that waits for a reference worker is given to two others."""

        def work(tx: Transaction) -> int:
            shards = tx.find(Shard, state=ShardState.READY, reference_only=True)
            running = {job.id for job in tx.find(Job, state=JobState.RUNNING)}
            for shard in shards:
                replica = tx.get(Replica, shard.id, 0)
                if replica is not None and shard.job_id in running:
                    event = ReferenceGone(shard_id=shard.id)
                    advance(tx, slice_of_replica(tx, replica), event, self.engine.world())
            return len(shards)

        return await self.store.write(work)

    async def grant_all(self) -> list[Replica]:
        await self.run_effects()
        await self.granting.grant()
        return await self.held()

    async def shards(self) -> list[Shard]:
        return await self.store.read(lambda tx: tx.find(Shard))

    async def available(self, account: str) -> int:
        return await self.store.read(lambda tx: ledger.available(tx, account))

    async def check_ending(self, job_id: str = "job000000001") -> None:
        """A final job without live leases keeps nothing: what was not spent went back."""
        job = await self.job(job_id)
        assert job.state in FINAL_JOB
        assert await self.held() == []

        def look(tx: Transaction) -> tuple[dict[str, int], int, int, int]:
            accounts = [escrow_account(job_id)]
            accounts += [round_account(job_id, one.stage, one.number) for one in tx.find(Round, job_id=job_id)]
            left = {name: int(ledger.balance(tx, name)) for name in accounts if ledger.balance(tx, name)}
            refunds = [
                one for one in tx.find(Transfer, reference=job_id, reason="refund") if one.kind is TransferKind.POSTED
            ]
            leases = tx.find(Lease, job_id=job_id, state=ReplicaState.ACCEPTED)
            fees = int(ledger.available(tx, FEES))
            return left, sum(one.msat for one in refunds), sum(one.paid_msat for one in leases), fees

        left, refunded, paid, fees = await self.store.read(look)
        assert left == {}
        assert refunded + paid + fees == job.budget_msat

    async def run_unruly(self) -> JobState:
        """Up to STEPS random deeds, then peace: a paused job is resumed until the job is over."""
        for _ in range(STEPS):
            self.clock.advance(0.5)
            await self._any_deed()
            if (await self.job()).state in FINAL_JOB:
                break
        for _ in range(STEPS):
            job = await self.job()
            if job.state in FINAL_JOB:
                break
            if job.state is JobState.PAUSED:
                await self.resume()
            self.clock.advance(0.5)
            held = await self.grant_all()
            for replica in held[:1]:
                await self.finish(replica)
            if not held:
                # workers whose last leases all came to nothing rest
                self.clock.advance(LONGEST_REST_S)
        for replica in await self.held():
            await self.finish(replica) if self.random.random() < 0.5 else await self.lose(replica)
        return (await self.job()).state

    async def _any_deed(self) -> None:
        roll = self.random.random()
        state = (await self.job()).state
        if roll < 0.004:
            await self.cancel()
        elif roll < 0.008:
            await self.fail_executor()
        elif roll < 0.03:
            await self.pause()
        elif roll < 0.04 or (state is JobState.PAUSED and roll < 0.5):
            await self.resume()
        elif roll < 0.06:
            await self.shrink()
            await self.replace_references()
        else:
            await self._work(self.random.random())

    async def _work(self, roll: float) -> None:
        held = await self.grant_all()
        if not held:
            return
        replica = self.random.choice(held)
        if roll < 0.08:
            if roll < 0.04:
                await self.commit(replica)
            await self.lose(replica)
        elif roll < 0.14:
            await self.finish(replica, refused=REFUSED)
        elif roll < 0.2:
            await self.lose(replica, costs_an_attempt=False)
        elif roll < 0.35:
            await self.copy(replica)
        else:
            await self.finish(replica, honest=roll > 0.45)
