"""Rows of work: jobs down to attempts, and how far each requester has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Record
from .states import JobState, Purpose, ReplicaState, RoundState, ShardState, StageState


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("owner", "submission_id"),)
    id: str
    owner: str
    submission_id: str
    name: str
    state: JobState
    spec_json: str
    #: {stage: StageFacts}
    facts_json: str
    #: {"<stage>.base_model": artifact id, …}
    inputs_json: str
    quote_json: str
    #: rate card at submit, frozen
    rates_json: str
    budget_msat: int
    #: empty or a Why
    why_json: str = ""
    self_evaluated: bool = False
    created_ms: int
    ended_ms: int = 0
    #: what its owner added later and no round has reserved yet
    extra_msat: int = 0
    #: when its time-out ends it; 0: never
    deadline_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage(Record):
    KEY: ClassVar[tuple[str, ...]] = ("job_id", "name")
    job_id: str
    name: str
    position: int
    recipe: str
    state: StageState
    planned_rounds: int
    #: StageSpec with everything `auto` frozen
    spec_json: str
    #: artifacts by name, as PlanInput.artifacts
    artifacts_json: str = "{}"
    #: numbers, as PlanInput.numbers
    numbers_json: str = "{}"
    #: {"<stage>.model": {"artifact_id", "kind", "bytes"}}
    outputs_json: str = "{}"
    #: when its time-out ends the job; 0: never
    deadline_ms: int = 0
    #: empty, or the Why of a stage that was skipped or ended before its planned rounds
    why_json: str = ""
    #: [Why, …]: what its recipe warns of, each kind once
    alarms_json: str = "[]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Record):
    KEY: ClassVar[tuple[str, ...]] = ("job_id", "stage", "number")
    job_id: str
    stage: str
    number: int
    #: setup, learn, map, publish
    kind: str
    state: RoundState
    phase: str
    #: outputs of the phases of this round so far: {"step-mean": artifact id, …}
    results_json: str = "{}"
    train_loss: float | None = None
    eval_loss: float | None = None
    outer: str = ""
    started_ms: int
    ended_ms: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    reserved_msat: int = 0
    #: shards of its phase that are not done
    shards_left: int = 0
    #: verdicts on results of its shards so far, and what the accepted ones cost
    accepted: int = 0
    rejected: int = 0
    paid_msat: int = 0
    fees_msat: int = 0
    #: what accepted results of workers that give their work would have cost
    donated_msat: int = 0
    #: what its recipe measured: {"reward": 0.4, "kl": 0.02, …}
    measures_json: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    job_id: str
    stage: str
    round: int
    phase: str
    position: int
    recipe: str
    state: ShardState
    order_json: str
    inputs_json: str
    seed: bytes
    work_units: int
    tokens: int = 0
    memory_bytes: int = 0
    #: what an accepted result earns its worker, and what the house takes on top
    price_msat: int
    fee_msat: int
    #: accepted results from different keys that must agree
    quorum: int = 1
    #: only workers that the operator marked `reference` may take it
    reference_only: bool = False
    #: attempts still allowed
    attempts_left: int
    #: replica whose output counts; -1 until done
    canonical: int = -1
    why_json: str = ""
    created_ms: int
    done_ms: int = 0
    #: "<shard>#<replica>" whose result it checks; empty for everything but audits
    audits: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica(Record):
    KEY: ClassVar[tuple[str, ...]] = ("shard_id", "number")
    shard_id: str
    number: int
    job_id: str
    stage: str
    round: int
    phase: str
    purpose: Purpose
    state: ReplicaState
    epoch: int = 0
    worker_id: str = ""
    #: the signed offer, exact envelope bytes
    offer: bytes = b""
    offer_sha256: str = ""
    granted_ms: int = 0
    #: a lease that shows no heartbeat until then is given to another
    expires_ms: int = 0
    #: a valid result handed in until then is paid
    deadline_ms: int = 0
    progress: float = 0.0
    loss: float | None = None
    step: str = ""
    output_root: str = ""
    outputs_json: str = "{}"
    metrics_json: str = "{}"
    why_json: str = ""
    created_ms: int = 0
    #: its worker gives the work: nothing is held and nothing paid
    donated: bool = False
    #: parts of its lease whose progress the log told of
    parts_told: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Record):
    """One attempt: history, never edited once ended."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    job_id: str
    shard_id: str
    replica: int
    epoch: int
    worker_id: str
    phase: str
    state: ReplicaState
    granted_ms: int
    ended_ms: int = 0
    paid_msat: int = 0
    compute_ms: int = 0
    why_json: str = ""
    #: size of its shard, from which its worker's speed is known
    work_units: int = 0
    #: what an accepted result would have earned whose worker gives its work
    donated_msat: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Share(Record):
    """How far a requester (empty job), a job of it, or everybody together (both empty) has come in the fair order."""

    KEY: ClassVar[tuple[str, ...]] = ("owner", "job_id")
    owner: str
    job_id: str
    #: work it was given so far, over its weight
    virtual: int = 0
    #: where those below it have come
    clock: int = 0
    #: its job has not ended
    open: bool = True
