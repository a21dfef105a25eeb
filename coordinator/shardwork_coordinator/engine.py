"""The engine: loads a slice, lets the machine step, and writes everything the step decided in one transaction.

Owns the glue between the pure machine and the store; decides nothing itself. Handlers, granting, the sweeper and the
outbox write with a function of the transaction; pushes, wake-ups and watchers follow after the commit.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from shardwork.clock import Clock
from shardwork.errors import InvalidInput, NotFound, StaleLease
from shardwork.feedback.quality import Standing, State, last_word
from shardwork.ids import LeaseId
from shardwork.jobs.spec import STAGE_OUTPUT, JobSpec, StageSpec, model_input
from shardwork.money import show
from shardwork.recipes import recipe
from shardwork.recipes.base import ASK_PHASE, AUDITED_PHASES, PEOPLE_PHASES, Content

from .events import (
    Change,
    Follow,
    MachineEvent,
    Note,
    PhaseDone,
    PublishDue,
    Push,
    Slice,
    StageSkipped,
    StageStarted,
    World,
)
from .failpoints import AFTER, BEFORE, hit
from .links import Links
from .machine import audits, step
from .machine.endings import succeed
from .machine.gates import why_skipped
from .machine.planning import spec_of
from .machine.states import LIVE
from .machine.versions import compared
from .money import ledger
from .queueing import standing
from .records import (
    Annotator,
    AnnotatorState,
    Artifact,
    ArtifactState,
    Event,
    Job,
    Lease,
    Outbox,
    OutboxState,
    Party,
    Record,
    Replica,
    ReplicaState,
    Round,
    RoundState,
    Shard,
    Stage,
    StageState,
    Vote,
    VoteState,
)
from .store.base import Store, Transaction
from .telemetry.instruments import Instruments

#: of tasks of people that have not ended
OPEN_TASK = (*LIVE, ReplicaState.SUBMITTED)
OPEN_VOTE = (VoteState.GIVEN, VoteState.CAST, VoteState.HELD)

R = TypeVar("R", Shard, Replica)
T = TypeVar("T")

LONGEST_LEASE_ID, HIGHEST_NUMBER = 200, 2**31


class Engine:
    """Carries decisions out. One per coordinator process."""

    def __init__(self, store: Store, links: Links, clock: Clock, instruments: Instruments | None = None) -> None:
        self.store, self.links, self.clock = store, links, clock
        self.instruments = instruments or Instruments()
        #: set after a commit that may have made work ready or effects pending
        self.work_ready, self.effects_pending = asyncio.Event(), asyncio.Event()
        #: replaced at each commit; watchers wait on the one they took
        self.committed = asyncio.Event()
        #: host:port of every coordinator of the cluster, this one first: what the join line names
        self.addresses: Callable[[], Sequence[str]] = tuple
        #: tells the other coordinators on this database of a commit, with pushes for workers that are attached there
        self.tell_others: Callable[[Collection[Push]], None] = lambda pushes: None

    def world(self) -> World:
        return self.links.world(self.clock.now_ms())

    def after_commit(self, pushes: Collection[Push]) -> None:
        """What follows a commit: pushes go out, sleepers wake, here and at the other coordinators."""
        others: Collection[Push] = ()
        if pushes:
            hit("effect:push", BEFORE)
            others = self.links.push(pushes)
            hit("effect:push", AFTER)
        self.wake()
        self.tell_others(others)

    def wake(self) -> None:
        """Somebody committed something, or a worker came, left or changed what it takes."""
        self.work_ready.set()
        self.effects_pending.set()
        self.committed.set()
        self.committed = asyncio.Event()

    def close(self) -> None:
        """Ends the streams of workers and of who watches a job."""
        self.links.close()
        self.wake()


def advance(tx: Transaction, state: Slice, event: MachineEvent, world: World) -> list[Push]:
    """Steps the machine and writes its change, then whatever follows from it in the same transaction."""
    change = step(state, event, world)
    pushes = write_change(tx, state.job.id, change, world)
    match change.follow:
        case Follow.CLOSE_PHASE:
            pushes += advance(tx, _slice_again(tx, state), PhaseDone(), world)
        case Follow.PUBLISH:
            carded = replace(world, card=_card(tx, state.job.id))
            pushes += advance(tx, _slice_again(tx, state), PublishDue(), carded)
        case _:
            pass
    return pushes


def write_change(tx: Transaction, job_id: str, change: Change, world: World) -> list[Push]:
    _store(tx, job_id, change, world.now_ms)
    pushes = list(change.pushes)
    if change.follow is Follow.NEXT_STAGE:
        pushes += start_next_stage(tx, job_id, world)
    if change.follow is Follow.KEEP_OUTPUTS:
        job = found(tx.get(Job, job_id), "job", job_id)
        _grant_outputs(tx, job, tx.find(Stage, job_id=job_id, order="position"), world.now_ms)
    return pushes


def write_note(tx: Transaction, job_id: str, note: Note, now_ms: int) -> None:
    tx.insert(
        Event(
            job_id=job_id,
            at_ms=now_ms,
            kind=note.kind,
            subject=note.subject,
            sentence=note.sentence,
            evidence_json=json.dumps(dict(note.evidence), sort_keys=True),
            detail=note.detail,
        )
    )


def start_next_stage(tx: Transaction, job_id: str, world: World) -> list[Push]:
    """Starts the first waiting stage with its inputs resolved, skips it where its gate is shut, or ends the job when
    there is none."""
    job = found(tx.get(Job, job_id), "job", job_id)
    stages = tx.find(Stage, job_id=job_id, order="position")
    _grant_outputs(tx, job, stages, world.now_ms)
    if (said := compared(stages, JobSpec.model_validate_json(job.spec_json))).rows:
        _store(tx, job_id, said, world.now_ms)
        stages = tx.find(Stage, job_id=job_id, order="position")
    waiting = next((stage for stage in stages if stage.state is StageState.WAITING), None)
    if waiting is None:
        return write_change(tx, job_id, succeed(job, world), world)
    placeholder = Round(
        job_id=job_id,
        stage=waiting.name,
        number=0,
        kind="setup",
        state=RoundState.OPEN,
        phase="",
        started_ms=world.now_ms,
    )
    state = Slice(job=job, stage=waiting, round=placeholder, shards=(), replicas=())
    earlier = [stage for stage in stages if stage.position < waiting.position]
    why = why_skipped(spec_of(state), JobSpec.model_validate_json(job.spec_json), earlier)
    if why is not None:
        return advance(tx, state, StageSkipped(why=why), world)
    started = StageStarted(artifacts=_stage_inputs(job, waiting, stages), numbers=_costs_of_votes(tx, job, waiting))
    return advance(tx, state, started, world)


# ---- slices ---------------------------------------------------------------------------------------------------------


def slice_of_round(tx: Transaction, round_: Round, phase: str | None = None) -> Slice:
    """The round with the shards of one phase (its current one by default); of what people are asked, open tasks."""
    if (phase or round_.phase) in PEOPLE_PHASES:
        return _slice_of_tasks(tx, round_)
    return Slice(
        job=found(tx.get(Job, round_.job_id), "job", round_.job_id),
        stage=found(tx.get(Stage, round_.job_id, round_.stage), "stage", round_.stage),
        round=round_,
        shards=tuple(_of_phase(tx, Shard, round_, phase or round_.phase, "position")),
        replicas=tuple(_of_phase(tx, Replica, round_, phase or round_.phase, "number")),
    )


def slice_of_replica(tx: Transaction, replica: Replica) -> Slice:
    """The replica's shard with all its replicas, and with those that audit it, or whom it audits: a step costs the same
    however many siblings the shard has."""
    shard = found(tx.get(Shard, replica.shard_id), "shard", replica.shard_id)
    if shard.phase in PEOPLE_PHASES:
        votes = tx.find(Vote, shard_id=replica.shard_id, replica=replica.number)
        return slice_of_task(tx, shard, found(votes[0] if votes else None, "vote", replica.shard_id))
    if shard.audits:
        audited, _ = audits.target(shard)
        shard = found(tx.get(Shard, audited), "shard", audited)
    shards = [shard]
    if shard.phase in AUDITED_PHASES:
        copies = tx.find(Replica, shard_id=shard.id)
        shards += tx.find(Shard, audits=[audits.about(one) for one in copies], order="position")
    return Slice(
        job=found(tx.get(Job, replica.job_id), "job", replica.job_id),
        stage=found(tx.get(Stage, replica.job_id, replica.stage), "stage", replica.stage),
        round=found(tx.get(Round, replica.job_id, replica.stage, replica.round), "round", replica.shard_id),
        shards=tuple(shards),
        replicas=tuple(one for each in shards for one in tx.find(Replica, shard_id=each.id, order="number")),
    )


def slice_of_task(tx: Transaction, shard: Shard, vote: Vote | None = None) -> Slice:
    """One task of one person: with everybody's of an item that is asked, because they share its places, and alone of
    one beside, which has none. The shard of a repeated item and the replica need not be stored yet. Without a vote: an
    item that is asked, and nobody's task."""
    alone: dict[str, Any] = {} if vote is None or shard.phase == ASK_PHASE else {"number": vote.replica}
    return Slice(
        job=found(tx.get(Job, shard.job_id), "job", shard.job_id),
        stage=found(tx.get(Stage, shard.job_id, shard.stage), "stage", shard.stage),
        round=found(tx.get(Round, shard.job_id, shard.stage, shard.round), "round", shard.id),
        shards=(shard,),
        replicas=tuple(tx.find(Replica, shard_id=shard.id, order="number", **alone)),
        votes=() if vote is None else (vote,),
    )


def _slice_of_tasks(tx: Transaction, round_: Round) -> Slice:
    """The round with every task that somebody holds, or that waits for a verdict."""
    key: dict[str, Any] = {"job_id": round_.job_id, "stage": round_.stage, "round": round_.number}
    replicas = [one for one in tx.find(Replica, **key, state=OPEN_TASK) if one.phase in PEOPLE_PHASES]
    open_ = {(one.shard_id, one.number) for one in replicas}
    votes = tx.find(Vote, job_id=round_.job_id, stage=round_.stage, state=OPEN_VOTE)
    judged = {one.worker_id for one in replicas if one.state is ReplicaState.SUBMITTED}
    key = {"job_id": round_.job_id, "stage": round_.stage, "party": sorted(judged)}
    tested = tx.find(Annotator, **key, state=AnnotatorState.PROBATION)
    return Slice(
        job=found(tx.get(Job, round_.job_id), "job", round_.job_id),
        stage=found(tx.get(Stage, round_.job_id, round_.stage), "stage", round_.stage),
        round=round_,
        shards=tuple(tx.find(Shard, id=sorted({one.shard_id for one in replicas}))),
        replicas=tuple(replicas),
        votes=tuple(one for one in votes if (one.shard_id, one.replica) in open_),
        doubted=frozenset(one.party for one in tested if last_word(Standing.of(one.evidence_json)) is State.STOPPED),
    )


def _slice_again(tx: Transaction, state: Slice) -> Slice:
    """The whole current phase of the slice's round, as it is written now."""
    key = state.round.job_id, state.round.stage, state.round.number
    return slice_of_round(tx, found(tx.get(Round, *key), "round", state.job.id))


def slice_of_job(tx: Transaction, job: Job) -> Slice:
    """The job's current round, with every replica anywhere in the job that a worker holds or that is ready."""
    stages = tx.find(Stage, job_id=job.id, order="position")
    stage = next((one for one in stages if one.state is StageState.RUNNING), stages[-1])
    rounds = tx.find(Round, job_id=job.id, stage=stage.name, order="number", descending=True, limit=1)
    current = slice_of_round(tx, rounds[0])
    others = tuple(
        one
        for one in tx.find(Replica, job_id=job.id, state=[*LIVE, "ready", "submitted"])
        if not any((one.shard_id, one.number) == (mine.shard_id, mine.number) for mine in current.replicas)
    )
    known = {shard.id for shard in current.shards}
    extra = {one.shard_id for one in others} - known
    shards = tuple(found(tx.get(Shard, one), "shard", one) for one in sorted(extra))
    return replace(current, shards=current.shards + shards, replicas=current.replicas + others)


def parse_lease(lease: str) -> LeaseId:
    """Raises InvalidInput "lease.bad_id", also for numbers that no row could hold."""
    try:
        identity = LeaseId.parse(lease) if len(lease) <= LONGEST_LEASE_ID else None
    except ValueError:
        identity = None
    if identity is None or max(identity.replica, identity.epoch) > HIGHEST_NUMBER:
        raise InvalidInput("lease.bad_id", "This is not a lease id.", lease=lease[:100])
    return identity


def live_replica(tx: Transaction, lease: str, worker_id: str) -> Replica:
    """The replica that this lease still holds. Raises StaleLease when its epoch is not the live one."""
    identity = parse_lease(lease)
    replica = tx.get(Replica, identity.shard, identity.replica)
    if (
        replica is None
        or replica.worker_id != worker_id
        or replica.epoch != identity.epoch
        or replica.state not in LIVE
        or _is_distrusted(tx, worker_id)
    ):
        raise StaleLease(
            "lease.stale",
            "This lease is no longer yours: it was given back, expired, or its job ended.",
            lease=lease,
            next_step="Drop the work; nothing of it is lost for the job.",
        )
    return replica


def _is_distrusted(tx: Transaction, worker_id: str) -> bool:
    """Its leases are about to be taken back: what it hands in meanwhile comes too late."""
    party = tx.get(Party, worker_id)
    return party is not None and party.standing in standing.DISTRUSTED


def found(record: T | None, what: str, name: str) -> T:
    if record is None:
        raise NotFound(f"{what}.not_found", f"There is no {what} {name!r}.")
    return record


def _of_phase(tx: Transaction, kind: type[R], round_: Round, phase: str, order: str) -> list[R]:
    return tx.find(kind, order=order, job_id=round_.job_id, stage=round_.stage, round=round_.number, phase=phase)


# ---- inside ---------------------------------------------------------------------------------------------------------


def _store(tx: Transaction, job_id: str, change: Change, now_ms: int) -> None:
    for row in _last_of_each(change.rows):
        tx.put(row)
    for movement in change.movements:
        ledger.apply(tx, movement, now_ms)
    for effect in change.effects:
        tx.put(
            Outbox(
                id=effect.id,
                kind=effect.kind,
                payload_json=json.dumps(dict(effect.payload), sort_keys=True),
                state=OutboxState.PENDING,
                created_ms=now_ms,
            )
        )
    for note in change.notes:
        write_note(tx, job_id, note, now_ms)


def _last_of_each(rows: list[Record]) -> list[Record]:
    """A step may write a row twice; only how it left it counts."""
    last: dict[tuple[object, ...], Record] = {}
    for row in rows:
        last[(type(row), *(getattr(row, column) for column in row.KEY))] = row
    return list(last.values())


def _stage_inputs(job: Job, stage: Stage, stages: list[Stage]) -> dict[str, str]:
    """What the stage reads, by the names its recipe knows: uploads of the job, or earlier stages' outputs."""
    spec = StageSpec.model_validate_json(stage.spec_json)
    uploads: dict[str, str] = json.loads(job.inputs_json)
    whole = JobSpec.model_validate_json(job.spec_json)
    outputs: dict[str, dict[str, str]] = {}
    for earlier in stages:
        made: dict[str, dict[str, str]] = json.loads(earlier.outputs_json)
        for called in whole.names_of(earlier.name):
            # of a loop's stage, the plain name is that of the latest one
            outputs |= {f"{called}.{name.partition('.')[2]}": output for name, output in made.items()}
    resolved: dict[str, str] = {}
    for key, field, value in (
        ("base", "base_model", [spec.base_model] if spec.base_model else []),
        ("parent", "continue_from", [spec.continue_from] if spec.continue_from else []),
        ("data", "data", spec.data_paths),
        ("eval_data", "eval_data", spec.eval_paths),
        *((model_input(role), f"models.{role}", [named]) for role, named in spec.models.items()),
    ):
        if value and all(STAGE_OUTPUT.match(one) for one in value):
            for place, one in enumerate(value):
                resolved[f"{key}-{place}" if place else key] = outputs[one]["artifact_id"]
        elif f"{stage.name}.{field}" in uploads:
            resolved[key] = uploads[f"{stage.name}.{field}"]
    return resolved


def _costs_of_votes(tx: Transaction, job: Job, stage: Stage) -> dict[str, float]:
    """For a stage that reads votes: what those of each earlier stage cost and took, of which its report tells."""
    spec = StageSpec.model_validate_json(stage.spec_json)
    if Content.VOTES not in recipe(spec.recipe).reads(spec):
        return {}
    whole = JobSpec.model_validate_json(job.spec_json)
    # of a loop's stage, the plain name is that of the latest one
    names: dict[str, str] = {}
    for one in whole.stages[: stage.position]:
        names |= dict.fromkeys(whole.names_of(one.name), one.name)
    costs: dict[str, float] = {}
    for place, value in enumerate(spec.data_paths):
        rounds = tx.find(Round, job_id=job.id, stage=names[value.partition(".")[0]])
        costs[f"spent_msat.{place}"] = float(sum(one.paid_msat + one.fees_msat for one in rounds))
        costs[f"took_ms.{place}"] = float(sum(max(one.ended_ms - one.started_ms, 0) for one in rounds))
    return costs


def _grant_outputs(tx: Transaction, job: Job, stages: list[Stage], now_ms: int) -> None:
    """Makes finished stages' outputs readable by the job's owner."""
    for stage in stages:
        for output in json.loads(stage.outputs_json).values():
            own = tx.get(Artifact, output["artifact_id"], job.owner)
            if own is None or own.state is not ArtifactState.STORED:
                known = tx.find(Artifact, id=output["artifact_id"], limit=1)
                tx.put(
                    Artifact(
                        id=output["artifact_id"],
                        owner=job.owner,
                        purpose=f"output of {job.id}",
                        state=ArtifactState.STORED,
                        bytes=known[0].bytes if known else 0,
                        leaves=known[0].leaves if known else 0,
                        created_ms=now_ms,
                    )
                )


def _card(tx: Transaction, job_id: str) -> tuple[tuple[str, str], ...]:
    leases = tx.find(Lease, job_id=job_id, state="accepted")
    paid = sum(lease.paid_msat for lease in leases)
    return (
        ("workers", str(len({lease.worker_id for lease in leases}))),
        ("accepted shards", str(len(leases))),
        ("paid to workers", show(paid)),
    )
