"""The enums of every state that a row may be in; `machine` alone assigns those of work."""

from __future__ import annotations

from enum import StrEnum


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


class VoteState(StrEnum):
    """Of a task that somebody was given."""

    GIVEN = "given"
    #: answered, and may still be taken back
    CAST = "cast"
    #: waits for the verdict on its person
    HELD = "held"
    PAID = "paid"
    REJECTED = "rejected"
    #: one of the first few, unpaid
    PRACTICE = "practice"
    SKIPPED = "skipped"
    REPORTED = "reported"
    EXPIRED = "expired"


class AnnotatorState(StrEnum):
    """Whether somebody's votes count in a stage."""

    PROBATION = "probation"
    CLEARED = "cleared"
    STOPPED = "stopped"


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


class OutboxState(StrEnum):
    PENDING = "pending"
    DONE = "done"


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
