"""Granting: gives ready replicas to idle workers, in one transaction a round of matching, and sends the signed offers.

Owns the loop and what an offer says; who gets what is `scheduler`, what a grant means is `machine`. Runs in `app`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from shardwork import work
from shardwork.identity.envelope import seal
from shardwork.identity.keys import SigningKey
from shardwork.ids import LeaseId, ShardId, sha256_hex
from shardwork.money import Msat
from shardwork.v1 import types_pb2, work_pb2

from .engine import Engine, advance, slice_of_replica
from .events import LeaseGranted, Push, World
from .machine.states import LIVE
from .money import ledger
from .money.movements import round_account
from .records import Job, JobState, Lease, Replica, ReplicaState, Shard
from .scheduler import Match, ReadyReplica, Worker, match
from .settings import Settings
from .store.base import Transaction

#: replicas considered at once; the rest wait for the next round of matching
MOST_READY = 500
#: a valid result is paid this long after its grant, at least
SHORTEST_DEADLINE_S = 15 * 60
#: and this much time for each work unit: a slow CPU does some 10^9 a second
UNITS_PER_SECOND_AT_LEAST = 10**9 // 4
RECIPES_WITHOUT_TORCH = frozenset({"count"})
RETRY_S = 0.5

_log = logging.getLogger(__name__)


class Granting:
    """The matching loop of this coordinator's attached workers."""

    def __init__(self, engine: Engine, key: SigningKey, settings: Settings) -> None:
        self._engine, self._key, self._settings = engine, key, settings
        #: the replica that is being leased, and those whose leasing raised
        self._at: tuple[str, int] = ("", 0)
        self._set_aside: set[tuple[str, int]] = set()

    async def run(self) -> None:
        """Grants whenever work or a worker became ready. Ends by cancellation."""
        while True:
            await self._engine.work_ready.wait()
            self._engine.work_ready.clear()
            try:
                await self.grant()
            except Exception:
                # one shard that can't be leased must not keep all others from being leased
                _log.exception("granting failed at %s, which is set aside until a restart", self._at)
                self._set_aside.add(self._at)
                await asyncio.sleep(RETRY_S)
                self._engine.work_ready.set()

    async def grant(self) -> int:
        """One round of matching; the number of leases granted."""
        everyone, world = self._engine.links.accepting(), self._engine.world()
        if not everyone:
            return 0

        def work_(tx: Transaction) -> list[Push]:
            return self._grant(tx, everyone, world)

        pushes = await self._engine.store.write(work_)
        if pushes:
            self._engine.after_commit(pushes)
        return len(pushes)

    def _grant(self, tx: Transaction, everyone: Sequence[Worker], world: World) -> list[Push]:
        busy = {one.worker_id for one in tx.find(Replica, state=[str(state) for state in LIVE])}
        idle = [worker for worker in everyone if worker.id not in busy]
        if not idle:
            return []
        pushes: list[Push] = []
        ready = [one for one in ready_replicas(tx) if (one.shard_id, one.number) not in self._set_aside]
        for found in match(ready, idle, everyone):
            self._at = (found.replica.shard_id, found.replica.number)
            pushes += self._lease(tx, found, world)
        return pushes

    def _lease(self, tx: Transaction, found: Match, world: World) -> list[Push]:
        replica = tx.get(Replica, found.replica.shard_id, found.replica.number)
        shard = tx.get(Shard, found.replica.shard_id)
        if replica is None or shard is None or not _is_covered(tx, shard):
            return []
        deadline_s = max(SHORTEST_DEADLINE_S, shard.work_units // UNITS_PER_SECOND_AT_LEAST)
        deadline_ms = world.now_ms + deadline_s * 1000
        envelope = self._offer(shard, replica, found.worker, deadline_ms)
        event = LeaseGranted(
            shard_id=shard.id,
            number=replica.number,
            worker_id=found.worker.id,
            offer=envelope.SerializeToString(deterministic=True),
            offer_sha256=sha256_hex(envelope.payload),
            expires_ms=world.now_ms + self._settings.lease_ttl_s * 1000,
            deadline_ms=deadline_ms,
        )
        return advance(tx, slice_of_replica(tx, replica), event, world)

    def _offer(self, shard: Shard, replica: Replica, worker: Worker, deadline_ms: int) -> types_pb2.Envelope:
        """Ed25519 signs deterministically, so a replayed transaction makes the same bytes again."""
        offer = work_pb2.LeaseOffer(
            lease_id=str(LeaseId(ShardId(shard.id), replica.number, replica.epoch + 1)),
            job_id=shard.job_id,
            stage=shard.stage,
            round=shard.round,
            phase=shard.phase,
            recipe=shard.recipe,
            shard_id=shard.id,
            replica=replica.number,
            epoch=replica.epoch + 1,
            params_json=shard.order_json,
            inputs=[
                types_pb2.NamedArtifact(name=name, artifact_id=artifact)
                for name, artifact in sorted(json.loads(shard.inputs_json).items())
            ],
            seed=shard.seed,
            price_msat=shard.price_msat,
            deadline_unix_ms=deadline_ms,
            worker_id=worker.id,
            work_units=shard.work_units,
        )
        return seal(self._key, work.LEASE_TYPE, offer.SerializeToString(deterministic=True))


def ready_replicas(tx: Transaction, *, job_id: str = "", limit: int = MOST_READY) -> list[ReadyReplica]:
    """What waits for a worker, in jobs that run or in this one, longest waiting first."""
    if job_id:
        waiting = tx.find(Replica, job_id=job_id, state=ReplicaState.READY, order="created_ms", limit=limit)
    else:
        waiting = tx.find(Replica, state=ReplicaState.READY, order="created_ms", limit=limit)
    jobs = {job.id: job for job in tx.find(Job, state=JobState.RUNNING)} if waiting else {}
    found: list[ReadyReplica] = []
    for replica in waiting:
        job = jobs.get(replica.job_id)
        shard = tx.get(Shard, replica.shard_id) if job else None
        if job is None or shard is None:
            continue
        siblings = tx.find(Replica, shard_id=shard.id)
        failed = tx.find(Lease, shard_id=shard.id, state=[ReplicaState.EXPIRED, ReplicaState.REJECTED])
        found.append(
            replace(
                ready_replica(shard, rank=(job.created_ms, shard.position, replica.number)),
                number=replica.number,
                excluded=frozenset(one.worker_id for one in siblings if one.worker_id and one.number != replica.number),
                shunned=frozenset(lease.worker_id for lease in failed),
            )
        )
    return found


def ready_replica(shard: Shard, *, rank: tuple[int, int, int]) -> ReadyReplica:
    """What a worker must be able to do to take this shard, whoever had it before."""
    return ReadyReplica(
        shard_id=shard.id,
        number=0,
        recipe=shard.recipe,
        rank=rank,
        memory_bytes=shard.memory_bytes,
        price_msat=shard.price_msat,
        reference_only=shard.reference_only,
        needs_training=shard.recipe not in RECIPES_WITHOUT_TORCH,
    )


def _is_covered(tx: Transaction, shard: Shard) -> bool:
    """The round's reserve still holds this lease's pay and fee."""
    reserve = round_account(shard.job_id, shard.stage, shard.round)
    return ledger.available(tx, reserve) >= Msat(shard.price_msat + shard.fee_msat)
