"""Granting: gives ready replicas to idle workers, in one transaction a round of matching, and sends the signed offers.

Owns the loop and what an offer says; who gets what is `scheduler`, what a grant means is `machine`. Runs in `app`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
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
from .money.movements import round_account, worker_account
from .records import Account, Job, JobState, Lease, Party, Purpose, Replica, ReplicaState, Shard
from .scheduler import Match, ReadyReplica, Worker, match
from .settings import Settings
from .store.base import Transaction

#: replicas of one job considered at once; the rest wait for the next round of matching
MOST_READY = 500
#: of them first this many, and some for each idle worker: nearly always enough
FIRST_READY = 16
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
        if all(worker.id in busy for worker in everyone):
            return []
        everyone = with_standing(tx, everyone)
        idle = [worker for worker in everyone if worker.id not in busy]
        pushes: list[Push] = []
        for job in jobs_with_work(tx):
            for found in self._match(tx, job, idle, everyone):
                self._at = (found.replica.shard_id, found.replica.number)
                leased = self._lease(tx, found, world)
                pushes += leased
                if leased:
                    idle.remove(found.worker)
            if not idle:
                break
        return pushes

    def _match(self, tx: Transaction, job: Job, idle: Sequence[Worker], everyone: Sequence[Worker]) -> list[Match]:
        """Looks at a few replicas, and at many when nobody fits those."""
        found: list[Match] = []
        for limit in (FIRST_READY + 2 * len(idle), MOST_READY):
            ready = ready_replicas(tx, job, limit=limit)
            found = match([one for one in ready if (one.shard_id, one.number) not in self._set_aside], idle, everyone)
            if found or len(ready) < limit:
                break
        return found

    def _lease(self, tx: Transaction, found: Match, world: World) -> list[Push]:
        replica = tx.get(Replica, found.replica.shard_id, found.replica.number)
        shard = tx.get(Shard, found.replica.shard_id)
        if replica is None or shard is None or not _is_covered(tx, shard, replica):
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


def with_standing(tx: Transaction, workers: Sequence[Worker]) -> list[Worker]:
    """The workers whose keys are not revoked, with whether each has earned anything here."""
    revoked = {one.id for one in tx.find(Party, id=[worker.id for worker in workers], revoked=True)}
    workers = [worker for worker in workers if worker.id not in revoked]
    accounts = tx.find(Account, id=[worker_account(worker.id) for worker in workers])
    earners = {account.id for account in accounts if account.credits_posted > 0}
    return [replace(one, proven=one.reference or worker_account(one.id) in earners) for one in workers]


def jobs_with_work(tx: Transaction) -> list[Job]:
    """Running jobs in which something waits for a worker, oldest first."""
    waiting = tx.count(Replica, "job_id", state=ReplicaState.READY)
    if not waiting:
        return []
    return [job for job in tx.find(Job, state=JobState.RUNNING, order="created_ms") if job.id in waiting]


def ready_replicas(tx: Transaction, job: Job, *, limit: int = MOST_READY) -> list[ReadyReplica]:
    """What waits for a worker in a job that runs, longest waiting first."""
    if job.state is not JobState.RUNNING:
        return []
    waiting = tx.find(Replica, job_id=job.id, state=ReplicaState.READY, order="created_ms", limit=limit)
    ids = sorted({one.shard_id for one in waiting})
    shards = {shard.id: shard for shard in tx.find(Shard, id=ids)}
    holders, failures = _holders(tx, ids), _failures(tx, ids)
    found: list[ReadyReplica] = []
    for replica in waiting:
        if (shard := shards.get(replica.shard_id)) is None:
            continue
        others = {worker for number, worker in holders[shard.id] if number != replica.number}
        found.append(
            replace(
                ready_replica(shard, rank=(job.created_ms, shard.position, replica.number)),
                number=replica.number,
                excluded=frozenset(others),
                shunned=frozenset(failures[shard.id]),
            )
        )
    return found


def _holders(tx: Transaction, shards: list[str]) -> dict[str, set[tuple[int, str]]]:
    """Shard -> (replica, worker) of whoever holds or made a copy."""
    found: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for replica in tx.find(Replica, shard_id=shards):
        if replica.worker_id:
            found[replica.shard_id].add((replica.number, replica.worker_id))
    return found


def _failures(tx: Transaction, shards: list[str]) -> dict[str, set[str]]:
    """Shard -> workers that lost it or whose result was refused."""
    found: dict[str, set[str]] = defaultdict(set)
    for lease in tx.find(Lease, shard_id=shards, state=[ReplicaState.EXPIRED, ReplicaState.REJECTED]):
        found[lease.shard_id].add(lease.worker_id)
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
        agreed=shard.quorum > 1,
    )


def _is_covered(tx: Transaction, shard: Shard, replica: Replica) -> bool:
    """The round's reserve still holds this lease's pay and fee; a spare copy leaves what those that wait will need."""
    needed = shard.price_msat + shard.fee_msat
    if replica.purpose is Purpose.BACKUP:
        waiting = tx.find(Replica, state=ReplicaState.READY, job_id=shard.job_id)
        owed = {one.shard_id for one in waiting if one.purpose is not Purpose.BACKUP and one.round == shard.round}
        needed += sum(one.price_msat + one.fee_msat for one in tx.find(Shard, id=sorted(owed)))
    return ledger.available(tx, round_account(shard.job_id, shard.stage, shard.round)) >= Msat(needed)
