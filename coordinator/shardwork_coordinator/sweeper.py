"""The sweeper: what time brings. Leases that fell silent, shards that lag, keys that never come, payouts that wait.

Looks twice a second and turns what it sees into machine events; decides by the settings' few numbers. Runs in `app`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import replace
from typing import Any

from shardwork.jobs.spec import StageSpec
from shardwork.recipes.base import AGREED_PHASES, AUDIT_PHASE, PEOPLE_PHASES
from shardwork.why import Why

from .engine import Engine, advance, slice_of_job, slice_of_replica, slice_of_round
from .events import BackupWanted, LeaseLost, Push, QuorumShrunk, ReferenceGone, Slice, TimedOut, World
from .granting import ready_replica, ready_replicas, with_history
from .machine.audits import target
from .machine.phases import HOUR_MS
from .machine.states import FINAL_JOB, FINAL_ROUND, LIVE
from .money import ledger
from .money.movements import round_account
from .people.gathering import has_answers
from .people.giving import EXPIRES_MS
from .queueing import standing
from .queueing.line import JobFacts
from .queueing.stragglers import Speeds, speeds_of, stragglers
from .reasons import why_idle
from .records import Job, JobState, Replica, ReplicaState, Round, Shard, ShardState, Stage, StageState
from .scheduler import ReadyReplica, Worker, refusal
from .settings import Settings
from .store.base import Transaction
from .telemetry.logs import Log

TICK_S = 0.5
#: idle workers hear why they are idle every so many looks
TELL_EVERY = 4
#: jobs, and shards of each, that are looked at to say so
TELL_JOBS, TELL_SHARDS = 8, 2
#: jobs and stages whose time may end in one look
MOST_TIMED_OUT = 32
#: a reference worker may stay away so many times the time in which a second key must come
REFERENCE_PATIENCE = 4
#: a result may be handed in at least this long after the coordinator came back
HAND_IN_S = 5 * 60
#: ordinary corrections of a clock stay below this
CLOCK_JUMP_S = 2.0

_log = Log("sweeper")


class Sweeper:
    """One per coordinator process."""

    def __init__(self, engine: Engine, settings: Settings, money: Callable[[], Awaitable[object]]) -> None:
        self._engine, self._settings, self._money = engine, settings, money
        #: shards that wait for a second key, or for a reference worker, and since when
        self._lonely: dict[str, int] = {}
        self._unreferenced: dict[str, int] = {}
        self._looks = 0
        self._started_ms = engine.clock.now_ms()
        #: by how much the wall clock is ahead of the steady one
        self._lead_s = engine.clock.now_ms() / 1000 - engine.clock.monotonic()

    async def revive(self) -> None:
        """At start, and when the clock was set: leases live on for a full time, and results that were finished
        meanwhile can still be handed in, because it was the coordinator that was away."""
        now_ms = self._engine.clock.now_ms()
        expires_ms = now_ms + self._settings.lease_ttl_s * 1000
        soonest_ms = now_ms + HAND_IN_S * 1000

        def extend(tx: Transaction) -> None:
            for replica in tx.find(Replica, state=[str(state) for state in LIVE]):
                # nobody hears of people between two calls
                until_ms = now_ms + EXPIRES_MS if replica.phase in PEOPLE_PHASES else expires_ms
                deadline_ms = max(replica.deadline_ms, soonest_ms, until_ms)
                tx.put(replace(replica, expires_ms=until_ms, deadline_ms=deadline_ms))

        await self._engine.store.write(extend)
        for link in self._engine.links.all():
            link.last_seen_ms = now_ms

    async def run(self) -> None:
        """Sweeps until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(TICK_S)

    async def sweep(self) -> None:
        """One look at everything. What fails is logged and looked at again; it keeps nothing else from being done."""
        looks = (
            self._enforce_standings,
            self._expire,
            self._time_out,
            self._copy_stragglers,
            self._shrink_quorums,
            self._replace_references,
            self._tell_the_idle,
            self._money,
        )
        parts = (self.revive, *looks) if self._clock_was_set() else (self._part_from_sleepers, *looks)
        for part in parts:
            try:
                await part()
            except Exception:
                _log.error("sweep.part_failed", part=getattr(part, "__name__", ""))

    def _clock_was_set(self) -> bool:
        """Whether the wall clock moved by more than time passed since the last look: set by hand, or after a sleep."""
        clock = self._engine.clock
        lead_s = clock.now_ms() / 1000 - clock.monotonic()
        jumped, self._lead_s = abs(lead_s - self._lead_s) > CLOCK_JUMP_S, lead_s
        if jumped:
            _log.warning("sweep.clock_was_set")
        return jumped

    async def _part_from_sleepers(self) -> None:
        """The connection of a sleeping machine outlives it, and a lease given to it is an attempt lost. When it wakes,
        it comes back as after any broken stream."""
        silent_ms = self._engine.clock.now_ms() - self._settings.lease_ttl_s * 1000
        for link in self._engine.links.all():
            if link.last_seen_ms < silent_ms:
                self._engine.links.detach(link)
                link.end()

    # ---- what the operator decided of workers ------------------------------------------------------------------

    async def _enforce_standings(self) -> None:
        """Takes effect whoever decided it: another coordinator's dashboard, or a command beside this one. Links learn
        it, leases of those that are not trusted go to others, and streams of banned keys end."""
        engine, world = self._engine, self._engine.world()
        here = [one.worker_id for one in engine.links.everywhere()]
        restrictions, references, taken = await engine.store.read(
            lambda tx: (standing.restrictions(tx), standing.references(tx, here), _held_by_distrusted(tx))
        )
        engine.links.know_restrictions(restrictions)
        engine.links.know_references(references)
        for link in engine.links.all():
            if link.is_banned:
                engine.links.detach(link)
                link.end()
        for replica in taken:

            def work(tx: Transaction, replica: Replica = replica) -> list[Push]:
                row = tx.get(Replica, replica.shard_id, replica.number)
                if row is None or (row.epoch, row.worker_id) != (replica.epoch, replica.worker_id):
                    return []
                if row.state not in LIVE or row.worker_id not in standing.among(tx, standing.DISTRUSTED):
                    return []
                event = LeaseLost(
                    shard_id=row.shard_id, number=row.number, why=standing.why_taken_back(), costs_an_attempt=False
                )
                return advance(tx, slice_of_replica(tx, row), event, world)

            with _each_alone(replica.shard_id):
                engine.after_commit(await engine.store.write(work))

    # ---- expiry -----------------------------------------------------------------------------------------------

    async def _expire(self) -> None:
        world = self._engine.world()

        def due(tx: Transaction) -> list[Replica]:
            held = tx.find(Replica, state=[str(state) for state in LIVE])
            return [one for one in held if one.expires_ms <= world.now_ms or one.deadline_ms <= world.now_ms]

        for replica in await self._engine.store.read(due):

            def work(tx: Transaction, replica: Replica = replica) -> list[Push]:
                if tx.get(Replica, replica.shard_id, replica.number) != replica:
                    # its worker was heard of since
                    return []
                event = LeaseLost(shard_id=replica.shard_id, number=replica.number, why=_why_lost(replica, world))
                return advance(tx, slice_of_replica(tx, replica), event, world)

            with _each_alone(replica.shard_id):
                self._engine.after_commit(await self._engine.store.write(work))

    # ---- time-outs --------------------------------------------------------------------------------------------

    async def _time_out(self) -> None:
        """Ends jobs whose time, or whose running stage's, is over."""
        world = self._engine.world()
        for job_id, why in await self._engine.store.read(lambda tx: timed_out(tx, world.now_ms)):

            def work(tx: Transaction, job_id: str = job_id, why: Why = why) -> list[Push]:
                job = tx.get(Job, job_id)
                if job is None or job.state in FINAL_JOB:
                    return []
                return advance(tx, slice_of_job(tx, job), TimedOut(why=why), world)

            with _each_alone(job_id):
                self._engine.after_commit(await self._engine.store.write(work))

    # ---- stragglers -------------------------------------------------------------------------------------------

    async def _copy_stragglers(self) -> None:
        """A shard far slower than its siblings gets a second copy, when somebody is idle to take it."""
        world, idle = self._engine.world(), await self._idle_workers()
        if not idle:
            return

        def slow_ones(tx: Transaction, state: Slice, speeds: Speeds) -> list[tuple[Shard, Why]]:
            return stragglers(state, world, self._settings, speeds, self._started_ms)

        def work(tx: Transaction) -> list[Push]:
            speeds = speeds_of(tx, idle)
            for round_, phase in _open_phases(tx):
                state = slice_of_round(tx, round_, phase)
                slow = next((one for one in slow_ones(tx, state, speeds) if _can_pay(tx, one[0])), None)
                if slow is not None:
                    return advance(tx, state, BackupWanted(shard_id=slow[0].id, why=slow[1]), world)
            return []

        def look(tx: Transaction) -> bool:
            speeds = speeds_of(tx, idle)
            phases = _open_phases(tx)
            return any(slow_ones(tx, slice_of_round(tx, round_, phase), speeds) for round_, phase in phases)

        if await self._engine.store.read(look):
            self._engine.after_commit(await self._engine.store.write(work))

    async def _idle_workers(self) -> set[str]:
        accepting = {worker.id for worker in self._engine.links.accepting()}
        if not accepting:
            return set()

        def busy(tx: Transaction) -> set[str]:
            return {one.worker_id for one in tx.find(Replica, state=[str(state) for state in LIVE])}

        return accepting - await self._engine.store.read(busy)

    # ---- what idle workers are told ---------------------------------------------------------------------------

    async def _tell_the_idle(self) -> None:
        """Says to each worker that is given nothing why that is, when the reason changed."""
        self._looks += 1
        if self._looks % TELL_EVERY:
            return
        idle, links = await self._idle_workers(), self._engine.links
        for one in links.all():
            # also while it finishes what it holds: its owner should know
            if one.restriction is not None:
                one.tell(one.restriction.why)
        workers = [worker for worker in links.accepting() if worker.id in idle]
        if not workers:
            return
        world = self._engine.world()

        def look(tx: Transaction) -> list[tuple[str, Why]]:
            waiting = _some_that_wait(tx)
            return [(one.id, why_idle(with_history(tx, one, world), waiting)) for one in workers]

        for worker, why in await self._engine.store.read(look):
            if (link := self._engine.links.get(worker)) is not None:
                link.tell(why)

    # ---- agreement --------------------------------------------------------------------------------------------

    async def _shrink_quorums(self) -> None:
        """When no second key is there to agree for a while, the job goes on and says that it is self-evaluated."""
        world, everyone = self._engine.world(), self._engine.links.accepting()

        def lonely(tx: Transaction) -> list[Shard]:
            running = sorted(job.id for job in tx.find(Job, state=JobState.RUNNING))
            # by their phases: a stage that people answer may have tens of thousands of shards with two places each
            phases = sorted({*AGREED_PHASES, AUDIT_PHASE})
            open_: dict[str, Any] = {"job_id": running, "state": [ShardState.READY, ShardState.RUNNING]}
            waiting = tx.find(Shard, **open_, phase=phases) if running else []
            return [one for one in waiting if _is_lonely(tx, one, everyone)]

        waiting = await self._engine.store.read(lonely)
        self._lonely = {shard.id: self._lonely.get(shard.id, world.now_ms) for shard in waiting}
        ripe = _ripe(self._lonely, self._settings.agreement_grace_s, world)
        if not ripe:
            return

        def work(tx: Transaction) -> list[Push]:
            return _tell(tx, [QuorumShrunk(shard_id=one.id) for one in lonely(tx) if one.id in ripe], world)

        self._engine.after_commit(await self._engine.store.write(work))

    async def _replace_references(self) -> None:
        """When the reference worker that a phase was kept for stays away, two other keys may agree instead."""
        world = self._engine.world()
        waiting = await self._engine.store.read(_kept_for_a_reference) if world.references == 0 else []
        self._unreferenced = {shard.id: self._unreferenced.get(shard.id, world.now_ms) for shard in waiting}
        ripe = _ripe(self._unreferenced, REFERENCE_PATIENCE * self._settings.agreement_grace_s, world)
        if not ripe:
            return

        def work(tx: Transaction) -> list[Push]:
            gone = [ReferenceGone(shard_id=one.id) for one in _kept_for_a_reference(tx) if one.id in ripe]
            return _tell(tx, gone, world)

        self._engine.after_commit(await self._engine.store.write(work))


@contextlib.contextmanager
def _each_alone(about: str) -> Generator[None]:
    """One change of several: one that fails keeps none of the others from being made."""
    try:
        yield
    except Exception:
        _log.error("sweep.step_failed", about=about)


def _held_by_distrusted(tx: Transaction) -> list[Replica]:
    distrusted = sorted(standing.among(tx, standing.DISTRUSTED))
    return tx.find(Replica, worker_id=distrusted, state=[str(state) for state in LIVE]) if distrusted else []


def timed_out(tx: Transaction, now_ms: int) -> list[tuple[str, Why]]:
    """Jobs whose time is over, with the reason."""
    found: dict[str, Why] = {}
    for state in (JobState.RUNNING, JobState.PAUSED):
        for job in tx.find(Job, state=state, order="deadline_ms", after=0, limit=MOST_TIMED_OUT):
            if job.deadline_ms <= now_ms:
                found[job.id] = _why_timed_out("job.timed_out", "The job", job.deadline_ms - job.created_ms)
    for stage in tx.find(Stage, state=StageState.RUNNING, order="deadline_ms", after=0, limit=MOST_TIMED_OUT):
        # one that has people's answers goes on with them: `people.sweeping` ends it
        if stage.deadline_ms <= now_ms and not has_answers(tx, stage.job_id, stage.name):
            hours = StageSpec.model_validate_json(stage.spec_json).timeout_hours or 0
            why = _why_timed_out("stage.timed_out", f"Stage {stage.name}", int(hours * HOUR_MS))
            found.setdefault(stage.job_id, why)
    return list(found.items())


def _why_timed_out(code: str, what: str, after_ms: int) -> Why:
    return Why(
        code=code,
        sentence=f"{what} did not end within its {after_ms / HOUR_MS:.3g} hours.",
        evidence={"timeout_hours": f"{after_ms / HOUR_MS:.6g}"},
        next_step="What was valid is paid and the rest refunded. `shardwork job download` has its best checkpoint, if "
        "one was made; submit again with a longer timeout_hours, or go on from that checkpoint.",
    )


def _some_that_wait(tx: Transaction) -> list[ReadyReplica]:
    """The longest waiting shards of a few jobs."""
    waiting = tx.count(Replica, "job_id", state=ReplicaState.READY)
    found: list[ReadyReplica] = []
    for job_id in sorted(waiting)[:TELL_JOBS]:
        if (job := tx.get(Job, job_id)) is not None:
            found += ready_replicas(tx, job, limit=TELL_SHARDS, device=JobFacts.of(job).device)
    return found


def _kept_for_a_reference(tx: Transaction) -> list[Shard]:
    """What only a reference worker may take, and none has."""
    running = {job.id for job in tx.find(Job, state=JobState.RUNNING)}
    waiting = tx.find(Shard, state=ShardState.READY, reference_only=True) if running else []
    return [one for one in waiting if one.job_id in running]


def _ripe(since: dict[str, int], grace_s: float, world: World) -> set[str]:
    """What has waited long enough; with nobody there at all a job simply waits."""
    if world.workers == 0:
        return set()
    return {name for name, start in since.items() if world.now_ms - start >= int(grace_s * 1000)}


def _tell(tx: Transaction, events: Sequence[QuorumShrunk | ReferenceGone], world: World) -> list[Push]:
    pushes: list[Push] = []
    for event in events:
        replica = tx.get(Replica, event.shard_id, 0)
        if replica is not None:
            pushes += advance(tx, slice_of_replica(tx, replica), event, world)
    return pushes


def _keys(tx: Transaction, shard: Shard, everyone: Sequence[Worker]) -> set[str]:
    """Workers that hold or made a copy of the shard, and those attached that could take one. A worker that is merely
    there, asks for too much or runs other recipes, is no second key, or it could keep the job waiting for ever."""
    keys = {one.worker_id for one in tx.find(Replica, shard_id=shard.id) if one.worker_id}
    place = _place(tx, shard)
    return keys | {worker.id for worker in everyone if refusal(place, worker) is None}


def _is_lonely(tx: Transaction, shard: Shard, everyone: Sequence[Worker]) -> bool:
    """Whether a second key is asked for, and none is there."""
    if shard.phase == AUDIT_PHASE:
        return not _auditors(tx, shard, everyone)
    return shard.quorum == 2 and len(_keys(tx, shard, everyone)) < 2


def _auditors(tx: Transaction, audit: Shard, everyone: Sequence[Worker]) -> set[str]:
    """Workers that check a result, or could: neither its own nor one that has already said what it found."""
    places = tx.find(Replica, shard_id=audit.id)
    result = tx.get(Replica, *target(audit))
    heard = {one.worker_id for one in places} | ({result.worker_id} if result else set[str]())
    working = {one.worker_id for one in places if one.state in LIVE}
    return working | ({worker.id for worker in everyone if refusal(_place(tx, audit), worker) is None} - heard)


def _place(tx: Transaction, shard: Shard) -> ReadyReplica:
    job = tx.get(Job, shard.job_id)
    return ready_replica(shard, rank=(0, 0, 0), device=JobFacts.of(job).device if job else "any")


def _why_lost(replica: Replica, world: World) -> Why:
    if replica.deadline_ms <= world.now_ms:
        return Why(
            code="lease.past_deadline",
            sentence="it did not finish before its deadline.",
            next_step="It is offered again, to another worker first; nothing was paid for it.",
        )
    return Why(
        code="lease.silent",
        sentence="it fell silent.",
        evidence={"seconds_held": f"{(world.now_ms - replica.granted_ms) / 1000:.1f}"},
        next_step="It is offered again, to another worker first; nothing was paid for it.",
    )


def _open_phases(tx: Transaction) -> list[tuple[Round, str]]:
    """Rounds with a leased phase in which somebody works and nothing waits for a worker."""
    held = tx.find(Replica, state=[str(state) for state in LIVE])
    keys = sorted({(one.job_id, one.stage, one.round, one.phase) for one in held})
    found: list[tuple[Round, str]] = []
    for job_id, stage, number, phase in keys:
        round_, job = tx.get(Round, job_id, stage, number), tx.get(Job, job_id)
        if (
            round_ is None
            or job is None
            or round_.state in FINAL_ROUND
            or round_.phase != phase
            or phase in PEOPLE_PHASES
        ):
            continue
        # nobody is copied while something of the phase was not even tried; and the phase need not be read
        if tx.find(Replica, job_id=job_id, state=ReplicaState.READY, limit=1):
            continue
        found.append((round_, phase))
    return found


def _can_pay(tx: Transaction, shard: Shard) -> bool:
    """A spare copy must fit in what the round reserved for spares, or its owner added."""
    reserve = round_account(shard.job_id, shard.stage, shard.round)
    job = tx.get(Job, shard.job_id)
    return ledger.available(tx, reserve) + (job.extra_msat if job else 0) >= shard.price_msat + shard.fee_msat
