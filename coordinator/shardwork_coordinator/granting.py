"""Granting: gives ready replicas to idle workers, in one transaction a round of matching, and sends the signed offers.

Owns the loop and what an offer says; who gets what is `scheduler`, what a grant means is `machine`. Runs in `app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from shardwork import work
from shardwork.identity.envelope import seal
from shardwork.identity.keys import SigningKey
from shardwork.ids import LeaseId, ShardId, sha256_hex
from shardwork.recipes.abilities import needed
from shardwork.recipes.base import PEOPLE_PHASES
from shardwork.v1 import types_pb2, work_pb2
from shardwork.why import Why

from .engine import Engine, advance, slice_of_job, slice_of_replica
from .events import JobPaused, LeaseGranted, Push, ReserveExtended, World
from .machine import audits
from .machine.endings import BUDGET_SPENT
from .machine.states import LIVE
from .money import ledger
from .money.movements import round_account, worker_account
from .queueing import standing
from .queueing.fairness import cost
from .queueing.history import history_of
from .queueing.line import KnownJobs, Line
from .records import Account, Attachment, Job, JobState, Lease, Party, Purpose, Replica, ReplicaState, Shard
from .scheduler import Match, ReadyReplica, Worker, pick
from .settings import Settings
from .store.base import Transaction
from .telemetry.logs import Log

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
#: for so long nobody gets a shard whose leasing raised
SET_ASIDE_S = 60.0
#: jobs that may be looked at in vain in one round of matching, and how long such a job is passed over
MOST_MISSES, MISS_MS = 8, 5_000
#: replicas of a job whose pay its reserve does not cover, in one round
MOST_UNCOVERED = 8
REST_CHECK_S = 5.0

_log = Log("granting")


@dataclass(slots=True, kw_only=True)
class _Round:
    """One round of matching, in one transaction."""

    tx: Transaction
    world: World
    line: Line
    idle: list[Worker]
    everyone: list[Worker]
    #: what waits of each job that was looked at
    ready: dict[str, list[ReadyReplica]] = field(default_factory=dict[str, list[ReadyReplica]])
    pushes: list[Push] = field(default_factory=list[Push])
    #: jobs of which nobody idle could take anything
    misses: list[str] = field(default_factory=list[str])

    def given(self, job: str, found: Match) -> None:
        """The worker is busy now, and may not get another copy of the same shard."""
        shard, worker = found.replica.shard_id, found.worker
        self.idle.remove(worker)
        self.ready[job] = [
            replace(one, excluded=one.excluded | {worker.id}) if one.shard_id == shard else one
            for one in self.ready[job]
            if one != found.replica
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Miss:
    """Nobody of these could take anything of a job when so much of it waited."""

    workers: frozenset[str]
    waiting: int
    at_ms: int


class Granting:
    """The matching loop of this coordinator's attached workers."""

    def __init__(self, engine: Engine, key: SigningKey, settings: Settings) -> None:
        self._engine, self._key, self._settings = engine, key, settings
        #: the replica that is being leased, and those whose leasing raised, with the steady time until which they wait
        self._at: tuple[str, int] | None = None
        self._set_aside: dict[tuple[str, int], float] = {}
        self._known = KnownJobs()
        self._missed: dict[str, _Miss] = {}
        #: when to look again although nothing was heard of: somebody rests, or not every job was looked at
        self._again_s: float | None = None

    def obey(self, settings: Settings) -> None:
        """Other rules of the house, from the next round of matching on."""
        self._settings = settings
        self._engine.work_ready.set()

    @property
    def is_half_done(self) -> bool:
        """Whether the last round of matching left jobs for another one that is due at once."""
        return self._again_s == 0.0

    async def run(self) -> None:
        """Grants whenever work or a worker became ready. Ends by cancellation."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._again_s):
                    await self._engine.work_ready.wait()
            self._engine.work_ready.clear()
            try:
                await self.grant()
            except Exception:
                self._part_with_what_failed()
                await asyncio.sleep(RETRY_S)
                self._engine.work_ready.set()

    def _part_with_what_failed(self) -> None:
        """One shard that can't be leased must not keep all others from being leased; a database that is away says
        nothing of any shard, and one that fails meanwhile may have failed for that, so nothing waits for ever."""
        _log.error("granting.failed", at=self._at)
        if self._at is not None:
            self._set_aside[self._at] = self._engine.clock.monotonic() + SET_ASIDE_S

    async def grant(self) -> int:
        """One round of matching; the number of leases granted."""
        links, world = self._engine.links, self._engine.world()
        here, everyone = {worker.id for worker in links.accepting_here()}, links.accepting()
        if not here:
            return 0
        self._at = None
        now_s = self._engine.clock.monotonic()
        self._set_aside = {one: until_s for one, until_s in self._set_aside.items() if until_s > now_s}

        def work_(tx: Transaction) -> list[Push]:
            return self._grant(tx, attached_here(tx, here, links.coordinator), everyone, world)

        pushes = await self._engine.store.write(work_)
        for push in pushes:
            if (link := self._engine.links.get(push.worker_id)) is not None:
                link.idle_since_ms = world.now_ms
        if pushes:
            self._engine.after_commit(pushes)
        return len(pushes)

    def _grant(self, tx: Transaction, here: set[str], everyone: Sequence[Worker], world: World) -> list[Push]:
        busy = tx.count(Replica, "worker_id", state=[str(state) for state in LIVE])
        self._again_s = SET_ASIDE_S if self._set_aside else None
        free = here - busy.keys()
        if not free:
            return []
        everyone = [with_history(tx, one, world) if one.id in free else one for one in with_standing(tx, everyone)]
        idle = [worker for worker in everyone if worker.id in free and not worker.rests]
        if any(worker.id in free and worker.rests for worker in everyone):
            self._again_s = REST_CHECK_S
        line = Line(tx, self._known, most_running=self._settings.max_running_shards)
        round_ = _Round(tx=tx, world=world, line=line, idle=idle, everyone=everyone)
        self._pass_over(round_)
        while round_.idle and (job := line.head()) is not None:
            self._serve(job, round_)
            if len(round_.misses) >= MOST_MISSES:
                # the others' turn comes in the next round, so that nobody waits long for this transaction
                self._remember(round_)
                self._again_s = 0.0
                break
        return round_.pushes

    def _pass_over(self, round_: _Round) -> None:
        """Jobs of which nobody idle could take anything a moment ago need not be read again."""
        idle, now_ms = {worker.id for worker in round_.idle}, round_.world.now_ms
        fresh = {job: miss for job, miss in self._missed.items() if now_ms - miss.at_ms < MISS_MS}
        self._missed = {job: miss for job, miss in fresh.items() if miss.waiting == round_.line.waiting.get(job)}
        for job, miss in self._missed.items():
            if idle <= miss.workers:
                round_.line.drop(job)
        if self._missed:
            self._again_s = MISS_MS / 1000

    def _remember(self, round_: _Round) -> None:
        """Only where there are too many jobs to look at each of them every time."""
        workers = frozenset(worker.id for worker in round_.idle)
        for job in round_.misses:
            waiting = round_.line.waiting[job]
            self._missed[job] = _Miss(workers=workers, waiting=waiting, at_ms=round_.world.now_ms)

    def _serve(self, job: str, round_: _Round) -> None:
        """Leases one shard of the job whose turn it is, or drops the job from this round."""
        for _ in range(MOST_UNCOVERED):
            found = self._match(job, round_)
            if found is None:
                break
            self._at = (found.replica.shard_id, found.replica.number)
            leased = self._lease(round_.tx, found, round_.world)
            self._at = None
            if leased:
                round_.pushes += leased
                round_.line.charge(job, cost(found.replica.work_units, found.worker.units_per_s))
                round_.given(job, found)
                return
            round_.ready[job].remove(found.replica)
        round_.line.drop(job)
        round_.misses.append(job)

    def _match(self, job: str, round_: _Round) -> Match | None:
        """Looks at a few replicas, and at many when nobody fits those."""
        known = round_.ready.get(job)
        if known is not None and (found := pick(known, round_.idle, round_.everyone)) is not None:
            return found
        row = round_.tx.get(Job, job)
        if row is None or known == []:
            return None
        device = round_.line.facts(job).device
        for limit in (FIRST_READY + 2 * len(round_.idle), MOST_READY) if known is None else (MOST_READY,):
            ready = ready_replicas(round_.tx, row, limit=limit, device=device)
            usable = [one for one in ready if (one.shard_id, one.number) not in self._set_aside]
            round_.ready[job] = usable
            found = pick(usable, round_.idle, round_.everyone)
            if found is not None or len(ready) < limit:
                return found
        return None

    def _lease(self, tx: Transaction, found: Match, world: World) -> list[Push]:
        replica = tx.get(Replica, found.replica.shard_id, found.replica.number)
        shard = tx.get(Shard, found.replica.shard_id)
        donated = found.worker.donates
        if replica is None or shard is None:
            return []
        if not (donated or _cover(tx, shard, replica, world)):
            return _pause_without_money(tx, shard, replica, world)
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
            donated=donated,
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
            price_msat=0 if worker.donates else shard.price_msat,
            deadline_unix_ms=deadline_ms,
            worker_id=worker.id,
            work_units=shard.work_units,
        )
        return seal(self._key, work.LEASE_TYPE, offer.SerializeToString(deterministic=True))


def attached_here(tx: Transaction, workers: set[str], coordinator: str) -> set[str]:
    """Those that have not gone to another coordinator meanwhile, whose own stream would never see the offer."""
    if not coordinator:
        return workers
    return {one.worker_id for one in tx.find(Attachment, worker_id=sorted(workers), coordinator=coordinator)}


def with_standing(tx: Transaction, workers: Sequence[Worker]) -> list[Worker]:
    """The workers that the operator lets take work, with whether each has earned anything here."""
    revoked = {one.id for one in tx.find(Party, id=[worker.id for worker in workers], revoked=True)}
    # links learn it within a second; here nothing may be granted a moment too late
    barred = revoked | standing.among(tx, standing.RESTRICTED)
    workers = [worker for worker in workers if worker.id not in barred]
    accounts = tx.find(Account, id=[worker_account(worker.id) for worker in workers])
    earners = {account.id for account in accounts if account.credits_posted > 0}
    return [replace(one, proven=one.reference or worker_account(one.id) in earners) for one in workers]


def with_history(tx: Transaction, worker: Worker, world: World) -> Worker:
    """The worker with how fast it is here, and whether it must rest."""
    found = history_of(tx, worker.id)
    until_ms = found.rests_until_ms()
    rests = ""
    if until_ms > world.now_ms and not worker.reference:
        left_s = (until_ms - world.now_ms) // 1000
        rests = f"rests for {left_s} s more, because its last {found.failures_in_a_row} leases came to nothing"
    return replace(worker, units_per_s=found.units_per_s, proven=worker.proven or found.accepted > 0, rests=rests)


def ready_replicas(tx: Transaction, job: Job, *, limit: int = MOST_READY, device: str = "any") -> list[ReadyReplica]:
    """What waits for a worker in a job that runs, longest waiting first."""
    if job.state is not JobState.RUNNING:
        return []
    waiting = tx.find(Replica, job_id=job.id, state=ReplicaState.READY, order="created_ms", limit=limit)
    ids = sorted({one.shard_id for one in waiting})
    shards = {shard.id: shard for shard in tx.find(Shard, id=ids)}
    holders, failures = _holders(tx, ids), _failures(tx, ids)
    found: list[ReadyReplica] = []
    for replica in waiting:
        if (shard := shards.get(replica.shard_id)) is None or shard.phase in PEOPLE_PHASES:
            continue
        others = {worker for number, worker in holders[shard.id] if number != replica.number} | _audited(tx, shard)
        found.append(
            replace(
                ready_replica(shard, rank=(job.created_ms, shard.position, replica.number), device=device),
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


def _audited(tx: Transaction, shard: Shard) -> set[str]:
    """Who made the result that an audit is about: nobody checks his own."""
    if not shard.audits:
        return set()
    result = tx.get(Replica, *audits.target(shard))
    return {result.worker_id} if result else set()


def _failures(tx: Transaction, shards: list[str]) -> dict[str, set[str]]:
    """Shard -> workers that lost it or whose result was refused."""
    found: dict[str, set[str]] = defaultdict(set)
    for lease in tx.find(Lease, shard_id=shards, state=[ReplicaState.EXPIRED, ReplicaState.REJECTED]):
        found[lease.shard_id].add(lease.worker_id)
    return found


def ready_replica(shard: Shard, *, rank: tuple[int, int, int], device: str = "any") -> ReadyReplica:
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
        work_units=shard.work_units,
        inputs=_inputs(shard),
        device=device,
        needs=needed(shard.phase, shard.order_json),
    )


def _inputs(shard: Shard) -> frozenset[str]:
    """What it reads; a row that can't be read says so when it is leased, where it keeps only itself from being done."""
    names: object = json.loads(shard.inputs_json)
    return frozenset(cast("dict[str, str]", names).values()) if isinstance(names, dict) else frozenset()


def _pause_without_money(tx: Transaction, shard: Shard, replica: Replica, world: World) -> list[Push]:
    """A job that has nothing under way and can't pay for what it needs would wait for ever: it pauses and says so."""
    under_way = tx.find(Replica, job_id=shard.job_id, state=[str(one) for one in LIVE], limit=1)
    job = tx.get(Job, shard.job_id)
    if replica.purpose is Purpose.BACKUP or under_way or job is None or job.state is not JobState.RUNNING:
        return []
    why = Why(
        code=BUDGET_SPENT,
        sentence=f"What was reserved for the {shard.phase} phase is spent: results had to be checked or made again.",
        evidence={"shard": shard.id, "needed_msat": str(shard.price_msat + shard.fee_msat)},
        next_step="`shardwork job topup ID SATS` adds to it, and the job goes on by itself; `job cancel` refunds it.",
    )
    return advance(tx, slice_of_job(tx, job), JobPaused(why=why), world)


def _cover(tx: Transaction, shard: Shard, replica: Replica, world: World) -> bool:
    """The round's reserve holds this lease's pay and fee, or what the job's owner added makes up for what is missing;
    a spare copy leaves what those that wait will need."""
    needed = shard.price_msat + shard.fee_msat
    if replica.purpose is Purpose.BACKUP:
        waiting = tx.find(Replica, state=ReplicaState.READY, job_id=shard.job_id)
        owed = {one.shard_id for one in waiting if one.purpose is not Purpose.BACKUP and one.round == shard.round}
        needed += sum(one.price_msat + one.fee_msat for one in tx.find(Shard, id=sorted(owed)))
    missing = needed - ledger.available(tx, round_account(shard.job_id, shard.stage, shard.round))
    if missing <= 0:
        return True
    job = tx.get(Job, shard.job_id)
    if job is None or job.extra_msat < missing:
        return False
    event = ReserveExtended(shard_id=shard.id, number=replica.number, msat=missing)
    advance(tx, slice_of_replica(tx, replica), event, world)
    return True
