"""Quota: how much of the disk one party may fill with content that no job and no result needs.

Keys are free, so what a key sends costs disk before it is of use to anybody. Loose is what a party has staged or stored
lately and what is neither an input of a job of its own nor an output that it handed in; it may hold so much of it, and
more while it holds leases, by what their shards may need. `expiry` deletes what stays loose. Rows only; called inside
transactions by `rpc.artifacts` and `expiry`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from shardwork.artifact import Manifest
from shardwork.errors import LimitExceeded

from ..records import Artifact, ArtifactState, Job, JobState, Replica, ReplicaState, Shard, Stage
from ..store.base import Transaction
from .retention import HELD, Ages

#: the purpose of everything that was not sent for a lease
INPUT = "input"
#: a folder, a manifest and a row cost something also for one byte
LEAST_BYTES = 1 << 20
#: a shard's outputs need at most this many times the memory that its plan names: weights and both moments in full
#: precision beside the shard's own copy
OUTPUTS_PER_MEMORY = 4
LEASED = (ReplicaState.LEASED, ReplicaState.COMMITTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactLimits:
    """What one coordinator takes in."""

    #: largest artifact
    artifact_max_bytes: int = 64 << 30
    #: upload streams at the same time, of all parties and of one
    uploads_max: int = 32
    uploads_of_one_max: int = 8
    #: calls of the artifacts service that one party may have open
    calls_of_one_max: int = 32
    #: a stream that moves next to nothing for so long is ended
    idle_s: float = 60.0
    #: never filled by uploads, so that the database can still be written; and as much again is kept for leases
    reserve_bytes: int = 1 << 30
    #: loose content of one party
    loose_max_bytes: int = 32 << 30
    #: unfinished uploads of one party
    staged_max: int = 64
    #: everything that one party stores: its uploads, and outputs of its jobs
    owner_max_bytes: int = 512 << 30
    #: loose content and unfinished uploads are deleted after this time
    keep_s: float = 24 * 3600.0
    #: what jobs keep
    ages: Ages = field(default_factory=Ages)


def check_quota(tx: Transaction, manifest: Manifest, owner: str, limits: ArtifactLimits, now_ms: int) -> None:
    """Raises LimitExceeded "artifact.too_many_staged" or "artifact.over_quota" when this upload would be too much."""
    since_ms = now_ms - int(limits.keep_s * 1000)
    recent = tx.find(
        Artifact, owner=owner, state=[ArtifactState.STAGING, ArtifactState.STORED], order="created_ms", after=since_ms
    )
    others = [row for row in recent if row.id != manifest.id]
    _check_staged(others, limits)
    limit = limits.loose_max_bytes + lease_bytes(tx, owner)
    new = _charge(manifest.total_bytes)
    if sum(_charge(row.bytes) for row in others) + new <= limit:
        return
    # dearer, and most parties never come here
    claimed = claims(tx, owner, since_ms - int(limits.keep_s * 1000))
    loose = sum(_charge(row.bytes) for row in others if row.id not in claimed)
    if loose + new > limit:
        raise LimitExceeded(
            "artifact.over_quota",
            "You would hold too much content that no job and no result of yours uses.",
            next_step="Submit the jobs that use it, wait until it expires, or ask the operator for a larger "
            "upload_quota_gib.",
            this_bytes=new,
            unused_bytes=loose,
            limit_bytes=limit,
            expires_after_hours=f"{limits.keep_s / 3600:g}",
        )


def check_total(tx: Transaction, manifest: Manifest, owner: str, limits: ArtifactLimits) -> None:
    """Raises LimitExceeded "artifact.over_total_quota" when the party would store too much. What it computed for
    others' jobs is not counted: `check_quota` bounds that by its leases."""
    rows = tx.find(Artifact, owner=owner, state=ArtifactState.STORED)
    stored = sum(_charge(row.bytes) for row in rows if row.id != manifest.id and is_charged(row))
    if stored + _charge(manifest.total_bytes) <= limits.owner_max_bytes:
        return
    raise LimitExceeded(
        "artifact.over_total_quota",
        "You would store more on this coordinator than one party may.",
        next_step="Delete what you no longer need (`shardwork artifact list`, `shardwork artifact delete ID`), or ask "
        "the operator for a larger owner_quota_gib.",
        this_bytes=manifest.total_bytes,
        stored_bytes=stored,
        limit_bytes=limits.owner_max_bytes,
    )


def is_charged(row: Artifact) -> bool:
    """Whether a row counts against its owner's total: uploads, and outputs of its jobs. Mirrored hub
    models are shared, and what was computed under a lease is its job's."""
    return row.purpose == INPUT or row.purpose.startswith("output of ")


def claims(tx: Transaction, owner: str, since_ms: int = -1) -> set[str]:
    """Ids that the party's jobs read or made, and that its results name. `since_ms`: no results of older leases."""
    claimed: set[str] = set()
    for job in tx.find(Job, owner=owner):
        # what a job made stays its owner's, however the job ended
        for stage in tx.find(Stage, job_id=job.id):
            claimed |= {output["artifact_id"] for output in json.loads(stage.outputs_json).values()}
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            claimed |= set(json.loads(job.inputs_json).values())
    for replica in tx.find(Replica, worker_id=owner, state=HELD, order="granted_ms", after=since_ms):
        claimed |= set(json.loads(replica.outputs_json).values())
    return claimed


def lease_bytes(tx: Transaction, owner: str) -> int:
    """What the outputs of the leases that the party holds may need; 0 when it holds none."""
    shards = (tx.get(Shard, replica.shard_id) for replica in tx.find(Replica, worker_id=owner, state=LEASED))
    return sum(max(LEAST_BYTES, OUTPUTS_PER_MEMORY * shard.memory_bytes) for shard in shards if shard is not None)


def _check_staged(others: list[Artifact], limits: ArtifactLimits) -> None:
    staged = sum(1 for row in others if row.state is ArtifactState.STAGING)
    if staged >= limits.staged_max:
        raise LimitExceeded(
            "artifact.too_many_staged",
            "You have too many unfinished uploads.",
            next_step="Finish some of them, or wait until they expire.",
            unfinished=staged,
            limit=limits.staged_max,
            expires_after_hours=f"{limits.keep_s / 3600:g}",
        )


def _charge(size_bytes: int) -> int:
    return max(size_bytes, LEAST_BYTES)
