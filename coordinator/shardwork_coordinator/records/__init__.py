"""Records: every row the coordinator keeps, as frozen dataclasses, and the enums of their states.

Owns shapes and keys; `store` persists them, `machine` alone assigns states, `ledger` alone writes money. Each class
names its key and its unique sets in `KEY` and `UNIQUE`; both stores and the SQL tables follow them. JSON columns hold
text.
"""

from __future__ import annotations

from .base import Record
from .cluster import Attachment, Cluster, Coordinator, Mark
from .kept import Answer, Artifact, Event, OfferedModel, Outbox
from .money import Account, DepositRow, PaymentLine, Payout, Transfer
from .people import ApiFile, ApiKey, AuditEntry, Party, PolicyChange, WebSession, WebUser
from .states import (
    AnnotatorState,
    ArtifactState,
    DepositState,
    JobState,
    OutboxState,
    PayoutState,
    Purpose,
    ReplicaState,
    RoundState,
    ShardState,
    StageState,
    Standing,
    TransferKind,
    VoteState,
    WebRole,
)
from .votes import Annotator, Vote
from .work import Job, Lease, Replica, Round, Shard, Share, Stage

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
    Annotator,
    Vote,
)

__all__ = [
    "RECORDS",
    "Account",
    "Annotator",
    "AnnotatorState",
    "Answer",
    "ApiFile",
    "ApiKey",
    "Artifact",
    "ArtifactState",
    "Attachment",
    "AuditEntry",
    "Cluster",
    "Coordinator",
    "DepositRow",
    "DepositState",
    "Event",
    "Job",
    "JobState",
    "Lease",
    "Mark",
    "OfferedModel",
    "Outbox",
    "OutboxState",
    "Party",
    "PaymentLine",
    "Payout",
    "PayoutState",
    "PolicyChange",
    "Purpose",
    "Record",
    "Replica",
    "ReplicaState",
    "Round",
    "RoundState",
    "Shard",
    "ShardState",
    "Share",
    "Stage",
    "StageState",
    "Standing",
    "Transfer",
    "TransferKind",
    "Vote",
    "VoteState",
    "WebRole",
    "WebSession",
    "WebUser",
]
