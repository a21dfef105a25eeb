"""Retention: what a job keeps, for whom, and until when.

A live job keeps everything that it reads and made; only the deltas of rounds that ended long ago go. A job that ended
keeps its inputs and what it made on the way for some days, and its outputs for longer or until their owner deletes
them. Reads rows, decides nothing else: `expiry` deletes what no need covers, `rpc.artifacts` tells owners.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from ..records import (
    ApiFile,
    Artifact,
    ArtifactState,
    Job,
    JobState,
    OfferedModel,
    Replica,
    ReplicaState,
    Round,
    RoundState,
    Stage,
)
from ..store.base import Transaction

DAY_MS = 24 * 3600 * 1000
#: whose content is the operator's: what the executor made, and models mirrored from a hub
HOUSE = "house"
#: later than any date
FOR_EVER = 2**62
#: the purpose of what was mirrored from a hub begins so
HUB = "hub:"
ENDED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)
ENDED_ROUND = (RoundState.MERGED, RoundState.ROLLED_BACK, RoundState.ABANDONED)
#: replicas whose outputs are, or may become, a result
HELD = (ReplicaState.LEASED, ReplicaState.COMMITTED, ReplicaState.SUBMITTED, ReplicaState.ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ages:
    """How long what nobody works on is kept."""

    #: inputs and intermediate results of a job after its end, deltas of a live job after their round's, hub models
    #: after their last use
    keep_days: float = 7.0
    #: outputs of a job after its end; 0: until their owner deletes them
    keep_outputs_days: float = 90.0

    @property
    def keep_ms(self) -> int:
        return int(self.keep_days * DAY_MS)

    def outputs_until(self, ended_ms: int) -> int:
        return ended_ms + int(self.keep_outputs_days * DAY_MS) if self.keep_outputs_days else FOR_EVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One content that one party's row keeps."""

    artifact_id: str
    #: whose row keeps it
    owner: str
    #: "input", "output" or "intermediate"
    kind: str
    job_id: str
    #: unix milliseconds; FOR_EVER while the job lives, and for outputs that only their owner deletes
    until_ms: int


def needs(tx: Transaction, job: Job, ages: Ages, only: str = "") -> Iterator[Need]:
    """Everything that one job keeps, or only why it keeps one content; some of it may be over already."""
    return (need for need in _needs(tx, job, ages, only) if not only or need.artifact_id == only)


def _needs(tx: Transaction, job: Job, ages: Ages, only: str) -> Iterator[Need]:
    ended = job.state in ENDED
    stages = tx.find(Stage, job_id=job.id)
    yield from _outputs(tx, job, stages, ages)
    middle_ms = job.ended_ms + ages.keep_ms if ended else FOR_EVER
    for artifact_id in json.loads(job.inputs_json).values():
        for owner in (job.owner, HOUSE):
            yield Need(artifact_id=artifact_id, owner=owner, kind="input", job_id=job.id, until_ms=middle_ms)
    for artifact_id in {one for stage in stages for one in json.loads(stage.artifacts_json).values()}:
        for owner in (job.owner, HOUSE):
            yield Need(artifact_id=artifact_id, owner=owner, kind="intermediate", job_id=job.id, until_ms=middle_ms)
    over: dict[tuple[str, int], int] = {}
    for round_ in tx.find(Round, job_id=job.id):
        over[round_.stage, round_.number] = _round_until(round_, middle_ms, ages)
        for name, artifact_id in json.loads(round_.results_json).items():
            until_ms = over[round_.stage, round_.number] if name.startswith("delta-") else middle_ms
            yield Need(artifact_id=artifact_id, owner=HOUSE, kind="intermediate", job_id=job.id, until_ms=until_ms)
    wanted = ("stage", "round", "phase", "worker_id", "outputs_json")
    for stage, number, phase, worker_id, outputs in tx.pick(Replica, wanted, job_id=job.id, state=HELD):
        if only not in outputs:
            continue
        # all but deltas may be read by any later phase
        until_ms = over.get((stage, number), middle_ms) if phase == "learn" else middle_ms
        for artifact_id in json.loads(outputs).values():
            yield Need(artifact_id=artifact_id, owner=worker_id, kind="intermediate", job_id=job.id, until_ms=until_ms)


def offered(tx: Transaction) -> set[tuple[str, str]]:
    """(artifact, owner) of the models that the operator offers, and of their facts."""
    rows = tx.find(OfferedModel, withdrawn=False)
    ids = (one for row in rows for one in (row.artifact_id, json.loads(row.facts_json)["facts_artifact_id"]))
    return {(one, HOUSE) for one in ids}


def named(tx: Transaction, now_ms: int, ages: Ages) -> set[tuple[str, str]]:
    """(artifact, owner) of files that were handed in over HTTP, so long as their names are good."""
    rows = tx.find(ApiFile, deleted=False, order="created_ms", after=now_ms - ages.keep_ms)
    return {(row.artifact_id, row.owner) for row in rows}


def output_until(tx: Transaction, job: Job, artifact_id: str, ages: Ages) -> int:
    """Until when one output of the job is kept; 0 when its owner deleted it, or it is gone."""
    row = tx.get(Artifact, artifact_id, job.owner)
    if row is None or row.state is not ArtifactState.STORED:
        return 0
    return ages.outputs_until(job.ended_ms) if job.state in ENDED else FOR_EVER


def is_over(job: Job, ages: Ages, now_ms: int) -> bool:
    """Whether nothing but outputs of this job can still be kept, so that the rest need not be read."""
    return job.state in ENDED and job.ended_ms + ages.keep_ms <= now_ms


def outputs_only(tx: Transaction, job: Job, ages: Ages) -> Iterator[Need]:
    """As `needs`, for a job that `is_over`."""
    return _outputs(tx, job, tx.find(Stage, job_id=job.id), ages)


def _outputs(tx: Transaction, job: Job, stages: list[Stage], ages: Ages) -> Iterator[Need]:
    for stage in stages:
        for output in json.loads(stage.outputs_json).values():
            artifact_id = output["artifact_id"]
            until_ms = output_until(tx, job, artifact_id, ages) if job.state in ENDED else FOR_EVER
            yield Need(artifact_id=artifact_id, owner=job.owner, kind="output", job_id=job.id, until_ms=until_ms)


def _round_until(round_: Round, middle_ms: int, ages: Ages) -> int:
    """Deltas of a round are read until it ends, and never again."""
    if round_.state not in ENDED_ROUND:
        return middle_ms
    return min(middle_ms, round_.ended_ms + ages.keep_ms)
