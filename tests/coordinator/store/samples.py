"""Records for tests, short to write."""

from __future__ import annotations

from shardwork_coordinator.records import (
    Artifact,
    ArtifactState,
    Event,
    Lease,
    Party,
    Payout,
    PayoutState,
    Purpose,
    Replica,
    ReplicaState,
    Transfer,
    TransferKind,
)


def party(name: str, *, key: bytes | None = None, reference: bool = False, seen: int = 0) -> Party:
    return Party(
        id=name,
        public_key=name.encode() if key is None else key,
        roles="worker",
        name=name,
        reference=reference,
        created_ms=0,
        last_seen_ms=seen,
    )


def event(job: str = "job", *, kind: str = "job.created", sequence: int = 0) -> Event:
    return Event(sequence=sequence, job_id=job, at_ms=1, kind=kind, subject=job, sentence="It happened.")


def lease(name: str, *, ended_ms: int = 0) -> Lease:
    return Lease(
        id=name,
        job_id="job",
        shard_id="shard",
        replica=0,
        epoch=1,
        worker_id="w",
        phase="learn",
        state=ReplicaState.LEASED,
        granted_ms=1,
        ended_ms=ended_ms,
    )


def replica(number: int, *, state: ReplicaState = ReplicaState.READY, loss: float | None = None) -> Replica:
    return Replica(
        shard_id="shard",
        number=number,
        job_id="job",
        stage="tune",
        round=1,
        phase="learn",
        purpose=Purpose.PRIMARY,
        state=state,
        loss=loss,
    )


def transfer(name: str, sequence: int, *, msat: int = 5, resolves: str | None = None) -> Transfer:
    return Transfer(
        id=name,
        sequence=sequence,
        kind=TransferKind.POST if resolves else TransferKind.POSTED,
        debit="external:simulated",
        credit="user:a",
        msat=msat,
        resolves=resolves,
        reason="deposit",
        reference="d",
        at_ms=0,
    )


def artifact(name: str, owner: str) -> Artifact:
    return Artifact(id=name, owner=owner, purpose="input", state=ArtifactState.STORED, bytes=1, leaves=1, created_ms=0)


def payout(name: str, *, payment_hash: str | None = None) -> Payout:
    return Payout(
        id=name,
        owner="w",
        address="w@simulated",
        msat=1000,
        fee_limit_msat=2000,
        state=PayoutState.CREATED,
        payment_hash=payment_hash,
        created_ms=0,
        updated_ms=0,
    )
