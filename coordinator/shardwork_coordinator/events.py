"""Events and changes: what goes into the state machine and what comes out, as data.

Pure. Handlers, the sweeper and the outbox make events; `machine.step` answers with a Change; `engine` carries it out in
one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shardwork.why import Why

from .money.movements import Movement
from .records import Job, Record, Replica, Round, Shard, Stage, Vote, VoteState


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one step may see: a round, and the shards and replicas that its event concerns; never a whole job.

    One shard with its replicas for what a worker does, all of a phase for what ends it.
    """

    job: Job
    stage: Stage
    round: Round
    shards: tuple[Shard, ...]
    replicas: tuple[Replica, ...]
    #: of people's shards: the tasks that are open or not decided
    votes: tuple[Vote, ...] = ()
    #: people in probation of whom what is known speaks rather against them
    doubted: frozenset[str] = frozenset()

    #: the same rows by their keys, once somebody asks: what ends a phase asks for thousands
    _shards: dict[str, Shard] = field(default_factory=dict[str, Shard], init=False, compare=False)
    _copies: dict[str, tuple[Replica, ...]] = field(
        default_factory=dict[str, tuple[Replica, ...]], init=False, compare=False
    )
    _votes: dict[tuple[str, int], Vote] = field(default_factory=dict[tuple[str, int], Vote], init=False, compare=False)

    def shard(self, shard_id: str) -> Shard:
        if not self._shards:
            self._shards.update((one.id, one) for one in self.shards)
        return self._shards[shard_id]

    def replica(self, shard_id: str, number: int) -> Replica:
        return next(one for one in self.replicas_of(shard_id) if one.number == number)

    def vote(self, shard_id: str, number: int) -> Vote:
        if not self._votes:
            self._votes.update(((one.shard_id, one.replica), one) for one in self.votes)
        return self._votes[shard_id, number]

    def replicas_of(self, shard_id: str) -> tuple[Replica, ...]:
        if not self._copies:
            for one in self.replicas:
                self._copies[one.shard_id] = (*self._copies.get(one.shard_id, ()), one)
        return self._copies.get(shard_id, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a step may know beside its slice, measured by the caller."""

    now_ms: int
    #: distinct keys that are attached, accept work and can train
    workers: int = 0
    #: those of them that the operator marked `reference`
    references: int = 0
    #: facts about the job so far for the model card: workers, cost; only when a stage is about to publish
    card: tuple[tuple[str, str], ...] = ()
    #: chance that nobody could know before, for which rows of a result are checked
    draw: bytes = b""


# ---- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """The stage's turn has come; the slice's round is its set-up round, not stored yet."""

    #: what its inputs resolved to: {"base": id, "data": id, "eval_data": id}
    artifacts: Mapping[str, str]
    #: what is known of them, for its plans
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSkipped:
    """The stage's turn has come, and it is not to run; the slice's round is never stored."""

    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGranted:
    shard_id: str
    number: int
    worker_id: str
    offer: bytes
    offer_sha256: str
    expires_ms: int
    deadline_ms: int
    #: the worker takes no pay
    donated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultCommitted:
    shard_id: str
    number: int
    output_root: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSubmitted:
    """A result whose envelope, root and digests held. `refused` is what the recipe's check found, if anything."""

    shard_id: str
    number: int
    outputs: Mapping[str, str]
    metrics: Mapping[str, float]
    compute_ms: int
    bytes_up: int
    bytes_down: int
    refused: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseLost:
    """No heartbeat, released by its worker, or past its deadline."""

    shard_id: str
    number: int
    why: Why
    #: False when nobody is to blame (a worker that paused)
    costs_an_attempt: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupWanted:
    shard_id: str
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumShrunk:
    """No second key is there to agree: the job goes on, marked self-evaluated."""

    shard_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceGone:
    """The reference worker that a shard was kept for does not come back: two keys must agree instead."""

    shard_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseDone:
    """Every shard of a leased phase is done; the slice holds them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishDue:
    """The last round of learning ended; `World.card` is filled in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorFinished:
    phase: str
    outputs: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorFailed:
    phase: str
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPaused:
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResumed:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut:
    """The job's time, or its running stage's, is over."""

    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class ToppedUp:
    msat: int
    #: id of the ledger's transfer: the same call again is the same movement
    transfer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveExtended:
    """A replica is ready that the round's reserve does not cover, and the job's owner added enough."""

    shard_id: str
    number: int
    msat: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGiven:
    """Somebody asked for a task and gets this one; the slice's vote is it."""

    expires_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteCast:
    """An answer to the slice's vote, in the item's own order; it may be taken back until it is judged."""

    answer_json: str
    body_sha256: str
    ms: int
    #: what it tells of its person: 1 right, 0 wrong, -1 nothing
    right: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteChanged:
    """Its person takes the answer back and has the task again."""

    expires_ms: int
    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteJudged:
    """HELD until its person is known better, PAID, REJECTED, or PRACTICE."""

    verdict: VoteState
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLeft:
    """SKIPPED, REPORTED or EXPIRED: without an answer, and nobody is to blame."""

    state: VoteState
    why: Why


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemShelved:
    """Nobody else is asked about the slice's item: several people said that it can't be judged, or the time is over."""

    why: Why
    #: whether the job's events tell of this one item
    is_told: bool = True


MachineEvent = (
    StageStarted
    | StageSkipped
    | LeaseGranted
    | ResultCommitted
    | ResultSubmitted
    | LeaseLost
    | BackupWanted
    | QuorumShrunk
    | ReferenceGone
    | PhaseDone
    | PublishDue
    | ExecutorFinished
    | ExecutorFailed
    | JobPaused
    | JobResumed
    | JobCancelled
    | TimedOut
    | ToppedUp
    | ReserveExtended
    | TaskGiven
    | VoteCast
    | VoteChanged
    | VoteJudged
    | TaskLeft
    | ItemShelved
)


# ---- changes --------------------------------------------------------------------------------------------------------


class EffectKind(StrEnum):
    #: run an executor phase; its answer comes back as ExecutorFinished or ExecutorFailed
    EXECUTE = "execute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Must happen at least once after the commit; kept in the outbox until it did."""

    id: str
    kind: EffectKind
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Tells an attached worker; lost with its stream, and then made up for by the state at reconnection."""

    worker_id: str
    lease_id: str
    #: "offer", "revoke" or a replica's final state
    kind: str
    offer: bytes = b""
    paid_msat: int = 0
    why: Why | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A line for those who watch the job, or, as a detail, only for those who read its log."""

    kind: str
    subject: str
    sentence: str
    evidence: Mapping[str, str] = field(default_factory=dict[str, str])
    detail: bool = False

    @classmethod
    def because(cls, kind: str, subject: str, why: Why) -> Note:
        """A reason as a line, its code among the evidence."""
        return cls(kind=kind, subject=subject, sentence=why.sentence, evidence={**why.evidence, "code": why.code})


class Follow(StrEnum):
    """What the engine does next, inside the same transaction, because it needs rows outside the slice."""

    NEXT_STAGE = "next_stage"
    #: the last shard of the phase is done: PhaseDone, with all of them
    CLOSE_PHASE = "close_phase"
    #: PublishDue, with what the model card says of workers and cost
    PUBLISH = "publish"
    #: the job ended before its time: what its stages have is its owner's
    KEEP_OUTPUTS = "keep_outputs"


@dataclass(slots=True, kw_only=True)
class Change:
    """Everything one step decided. Rows, movements, effects and notes commit together; pushes go out afterwards."""

    rows: list[Record] = field(default_factory=list[Record])
    movements: list[Movement] = field(default_factory=list[Movement])
    effects: list[Effect] = field(default_factory=list[Effect])
    pushes: list[Push] = field(default_factory=list[Push])
    notes: list[Note] = field(default_factory=list[Note])
    follow: Follow | None = None
