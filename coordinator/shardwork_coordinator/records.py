"""Records: every row the coordinator keeps, as frozen dataclasses, and the enums of their states.

Owns shapes and keys; `store` persists them, `machine` alone assigns states, `ledger` alone writes money. Each class
names its key and its unique sets in `KEY` and `UNIQUE`; both stores and the SQL tables follow them. JSON columns hold
text.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class JobState(StrEnum):
    DRAFT = "draft"
    FUNDED = "funded"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StageState(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: its gate stayed shut, or what it reads was never made
    SKIPPED = "skipped"


class RoundState(StrEnum):
    OPEN = "open"
    JUDGING = "judging"
    MERGING = "merging"
    EVALUATING = "evaluating"
    MERGED = "merged"
    ROLLED_BACK = "rolled_back"
    ABANDONED = "abandoned"


class ShardState(StrEnum):
    READY = "ready"
    RUNNING = "running"
    DONE = "done"
    EXHAUSTED = "exhausted"


class ReplicaState(StrEnum):
    READY = "ready"
    LEASED = "leased"
    COMMITTED = "committed"
    SUBMITTED = "submitted"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"


class Purpose(StrEnum):
    """Why a replica exists."""

    PRIMARY = "primary"
    #: a second copy because the first is slow
    BACKUP = "backup"
    #: a second key that must agree (init, evaluate, publish without a reference worker)
    AGREEMENT = "agreement"


class ArtifactState(StrEnum):
    STAGING = "staging"
    STORED = "stored"


class TransferKind(StrEnum):
    #: final at once
    POSTED = "posted"
    #: holds the amount until it is posted or voided
    PENDING = "pending"
    #: resolves a pending transfer, moving at most its amount
    POST = "post"
    VOID = "void"


class DepositState(StrEnum):
    OPEN = "open"
    SETTLED = "settled"
    EXPIRED = "expired"


class PayoutState(StrEnum):
    CREATED = "created"
    BOUND = "bound"
    SENT = "sent"
    SETTLED = "settled"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Standing(StrEnum):
    """What the operator lets a worker do. A banned one has its key revoked as well."""

    NORMAL = "normal"
    #: finishes what it holds and gets nothing new
    DRAINED = "drained"
    #: what it holds goes to others, it gets nothing new, and its earnings stay where they are
    QUARANTINED = "quarantined"
    BANNED = "banned"


class WebRole(StrEnum):
    """Of somebody who signs in to the dashboard."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class OutboxState(StrEnum):
    PENDING = "pending"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Base of all rows. KEY names the primary key, UNIQUE further sets of columns that may occur once."""

    KEY: ClassVar[tuple[str, ...]] = ()
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Party(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("public_key",),)
    id: str
    public_key: bytes
    #: comma-separated roles this key enrolled for: "requester,worker"
    roles: str
    name: str
    payout_address: str = ""
    reference: bool = False
    revoked: bool = False
    software_version: str = ""
    created_ms: int
    last_seen_ms: int
    standing: Standing = Standing.NORMAL
    #: empty, or why the operator gave it another standing
    standing_why_json: str = ""
    #: its owner wants it on the public page
    listed: bool = False


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact(Record):
    """One upload of one content by one owner; the bytes are shared by id, the right to read is not."""

    KEY: ClassVar[tuple[str, ...]] = ("id", "owner")
    id: str
    owner: str
    #: "input", a lease id, or "executor"
    purpose: str
    state: ArtifactState
    bytes: int
    leaves: int
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Record):
    """What people and scripts follow; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("sequence",)
    #: assigned by the store on insert when 0
    sequence: int = 0
    job_id: str
    at_ms: int
    kind: str
    subject: str
    sentence: str
    evidence_json: str = "{}"
    #: of one attempt at a shard: told by the job's log, left out of its events
    detail: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outbox(Record):
    """An effect that must happen at least once after its transaction committed."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    kind: str
    payload_json: str
    state: OutboxState
    created_ms: int
    attempts: int = 0
    why_json: str = ""
    #: the coordinator that carries it out; nobody yet when empty
    holder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """The first answer to an idempotent call, given again to every retry."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    request_sha256: str
    response: bytes
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account(Record):
    """Four numbers. `floor` accounts may not fall below zero; only `external:*` and `house:*` float."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Record):
    """One movement from one account (debit) to one other (credit); append-only, caller's id."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: POST and VOID name the pending transfer here; a pending transfer resolves at most once
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("resolves",), ("sequence",))
    id: str
    #: assigned by the ledger, strictly rising
    sequence: int
    kind: TransferKind
    debit: str
    credit: str
    msat: int
    #: id of the pending transfer that a POST or VOID resolves; None otherwise
    resolves: str | None = None
    #: deposit, escrow, reserve, shard, fee, release, refund, payout
    reason: str
    #: job, shard or payout it belongs to
    reference: str
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DepositRow(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("payment_hash",), ("owner", "idempotency_key"))
    id: str
    owner: str
    idempotency_key: str
    msat: int
    invoice: str
    payment_hash: str
    state: DepositState
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Payout(Record):
    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("payment_hash",),)
    id: str
    owner: str
    address: str
    msat: int
    fee_limit_msat: int
    state: PayoutState
    invoice: str = ""
    #: None until an invoice is bound
    payment_hash: str | None = None
    preimage: str = ""
    attempts: int = 0
    why_json: str = ""
    created_ms: int
    updated_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentLine(Record):
    """One line of the simulated payment node's journal, where coordinators share one."""

    KEY: ClassVar[tuple[str, ...]] = ("number",)
    number: int
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster(Record):
    """What all coordinators on one database must share; one row, written by the first."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    #: fingerprints: of the authority's certificate, the signing key and the operator's key
    ca_sha256: str
    coordinator_key: str
    operator_key: str
    #: written into the artifact store, so that another store is not taken for it
    storage_id: str
    created_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coordinator(Record):
    """One run of a coordinator's process."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    #: host:port by which workers and clients reach it
    address: str
    started_ms: int
    #: it lives while this is young; 0 once it ended
    heartbeat_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment(Record):
    """Where a worker is attached, or was last, and what it offers."""

    KEY: ClassVar[tuple[str, ...]] = ("worker_id",)
    worker_id: str
    #: a Coordinator's id; empty while it is attached nowhere
    coordinator: str
    #: what it said at its arrival, a serialised Hello
    hello: bytes
    minimum_msat: int
    accepting: bool
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Record):
    """The last commit of one writer's connection, for the next connection to look at."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    number: int
    at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebUser(Record):
    """Somebody who may sign in to the dashboard."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    role: WebRole
    #: argon2id, with its parameters and salt
    password_hash: str
    #: shared secret of one-time codes, base32; empty: none are asked for
    totp_secret: str = ""
    #: the last time step whose code was used: none is taken twice
    totp_step: int = 0
    created_ms: int
    disabled: bool = False
    #: wrong passwords since the last right one, and until when none is tried
    failures: int = 0
    locked_until_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WebSession(Record):
    """Somebody who signed in. The browser holds the secret, this row its digest."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: SHA-256 of the secret
    id: str
    user: str
    #: what every form of this session carries
    csrf: str
    created_ms: int
    seen_ms: int
    #: 0 once it was ended
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Record):
    """A secret by which a requester's program calls the HTTP API in its name."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    UNIQUE: ClassVar[tuple[tuple[str, ...], ...]] = (("secret_sha256",),)
    id: str
    owner: str
    name: str
    secret_sha256: str
    created_ms: int
    last_used_ms: int = 0
    #: 0: never
    expires_ms: int = 0
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFile(Record):
    """A file handed in through the HTTP API: a name for a stored artifact of its owner."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    id: str
    owner: str
    artifact_id: str
    filename: str
    purpose: str
    bytes: int
    created_ms: int
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedModel(Record):
    """A base model that the operator put into the store for everybody."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    artifact_id: str
    bytes: int
    #: parameters, family, longest input, licence
    facts_json: str
    created_ms: int
    withdrawn: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry(Record):
    """Something that a person did as operator; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: sorts by time
    id: str
    at_ms: int
    #: a user of the dashboard, or "command line"
    actor: str
    #: "worker.quarantine", "job.cancel", ...
    action: str
    subject: str
    sentence: str
    #: what the actor gave as reason
    reason: str = ""
    evidence_json: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange(Record):
    """A new value of one rule of the house; the newest of a name counts; append-only."""

    KEY: ClassVar[tuple[str, ...]] = ("id",)
    #: sorts by time
    id: str
    at_ms: int
    actor: str
    name: str
    old_json: str
    new_json: str
    reason: str = ""


#: every table, in creation order
RECORDS: tuple[type[Record], ...] = (
    Party,
    Job,
    Stage,
    Round,
    Shard,
    Replica,
    Lease,
    Share,
    Artifact,
    Event,
    Outbox,
    Answer,
    Account,
    Transfer,
    DepositRow,
    Payout,
    PaymentLine,
    Cluster,
    Coordinator,
    Attachment,
    Mark,
    WebUser,
    WebSession,
    ApiKey,
    ApiFile,
    OfferedModel,
    AuditEntry,
    PolicyChange,
)
