"""Commit -> Draw -> Submit for each lease, and giving one back.

The lease's epoch, the offer and the root are verified in the same transaction that records the result; what a result
means is `machine`. Called by `work`.
"""

from __future__ import annotations

import asyncio

from shardwork import wire, work
from shardwork.errors import Conflict, InvalidInput, StaleLease
from shardwork.ids import LeaseId
from shardwork.recipes import recipe
from shardwork.recipes.base import Reported
from shardwork.v1 import work_pb2
from shardwork.why import Why

from ..engine import advance, found, live_replica, parse_lease, slice_of_replica
from ..events import LeaseLost, Push, ResultCommitted, ResultSubmitted
from ..machine.attempts import lease_id
from ..machine.states import LIVE
from ..queueing.history import BLAMELESS
from ..records import Artifact, ArtifactState, Lease, Replica, ReplicaState, Shard
from ..store.base import Transaction
from .attach import WorkDesk
from .auth import Caller
from .said import check_names, reason

#: one row at a time did not fit: the worker gets nothing of that size any more
OUT_OF_MEMORY = "trainer.out_of_memory"
#: bytes that one shard may claim to have moved; only shown, but summed up in a column of 64 bits
MOST_BYTES = 1 << 50
#: so often may one worker give the same shard back for free
FREE_RELEASES = 3
REFUSED = Why(code="result.refused", sentence="The result was refused.")


async def commit_result(
    request: work_pb2.CommitResultRequest, caller: Caller, desk: WorkDesk
) -> work_pb2.CommitResultResponse:
    """Binds the lease to an output root. The draw is empty until audits exist."""
    commitment = work.open_commitment(request.envelope, caller.public_key)
    world = desk.engine.world()

    def work_(tx: Transaction) -> list[Push]:
        replica = live_replica(tx, commitment.lease_id, caller.party_id)
        _check_offer(replica, commitment.lease_sha256)
        event = ResultCommitted(
            shard_id=replica.shard_id, number=replica.number, output_root=commitment.output_root.hex()
        )
        return advance(tx, slice_of_replica(tx, replica), event, world)

    desk.engine.after_commit(await desk.engine.store.write(work_))
    return work_pb2.CommitResultResponse()


async def submit_result(
    request: work_pb2.SubmitResultRequest, caller: Caller, desk: WorkDesk
) -> work_pb2.SubmitResultResponse:
    """Judges a committed result; a retry gets the first verdict again."""
    submission = work.open_submission(request.envelope, caller.public_key)
    check_names(submission)
    parse_lease(submission.lease_id)
    root = work.submission_root(submission).hex()
    outputs = {output.name: output.artifact_id for output in submission.outputs}
    reported = await _reported(submission, desk) if await _may_submit(submission, caller, desk) else None
    world = desk.engine.world()

    def work_(tx: Transaction) -> tuple[list[Push], work_pb2.SubmitResultResponse]:
        if _is_decided(tx, submission, caller, root):
            return [], _answer(tx, submission.lease_id, desk)
        replica = live_replica(tx, submission.lease_id, caller.party_id)
        _check_offer(replica, submission.lease_sha256)
        if replica.output_root != root:
            raise Conflict(
                "result.not_committed", "This is not the result that was committed.", lease=submission.lease_id
            )
        shard = tx.get(Shard, replica.shard_id)
        if shard is None or reported is None:
            raise StaleLease("lease.stale", "This lease is no longer yours.", lease=submission.lease_id)
        _check_uploaded(tx, outputs, caller)
        finding = recipe(shard.recipe).check(shard.phase, shard.order_json, reported)
        event = ResultSubmitted(
            shard_id=shard.id,
            number=replica.number,
            outputs=outputs,
            metrics=reported.metrics,
            compute_ms=min(submission.compute_ms, max(world.now_ms - replica.granted_ms, 0)),
            bytes_up=min(submission.bytes_up, MOST_BYTES),
            bytes_down=min(submission.bytes_down, MOST_BYTES),
            refused=finding.why,
        )
        pushes = advance(tx, slice_of_replica(tx, replica), event, world)
        return pushes, _answer(tx, submission.lease_id, desk)

    pushes, answer = await desk.engine.store.write(work_)
    # the caller has its answer; nobody else is told of it by this stream
    desk.engine.after_commit([push for push in pushes if push.lease_id != submission.lease_id])
    return answer


async def release_lease(
    request: work_pb2.ReleaseLeaseRequest, caller: Caller, desk: WorkDesk
) -> work_pb2.ReleaseLeaseResponse:
    """Gives a lease back. A worker that paused or stopped costs the shard no attempt; a failure does."""
    why = reason(request.why)
    world = desk.engine.world()

    def work_(tx: Transaction) -> list[Push]:
        replica = live_replica(tx, request.lease_id, caller.party_id)
        before = tx.count(Lease, "state", shard_id=replica.shard_id, worker_id=caller.party_id, state="expired")
        blameless = why.code.startswith(BLAMELESS) and sum(before.values()) < FREE_RELEASES
        event = LeaseLost(shard_id=replica.shard_id, number=replica.number, why=why, costs_an_attempt=not blameless)
        return advance(tx, slice_of_replica(tx, replica), event, world)

    pushes = await desk.engine.store.write(work_)
    if why.code == OUT_OF_MEMORY:
        desk.engine.links.note_out_of_memory(caller.party_id, await _memory_of(request.lease_id, desk))
    desk.engine.after_commit([push for push in pushes if push.lease_id != request.lease_id])
    return work_pb2.ReleaseLeaseResponse()


async def _memory_of(lease: str, desk: WorkDesk) -> int:
    """What the lease's shard was estimated to need."""
    shard = await desk.engine.store.read(lambda tx: tx.get(Shard, parse_lease(lease).shard))
    return shard.memory_bytes if shard else 0


def _check_offer(replica: Replica, lease_sha256: bytes) -> None:
    if replica.offer_sha256 != lease_sha256.hex():
        raise InvalidInput(
            "result.wrong_offer",
            "The result is bound to another offer than the one this lease was given by.",
            lease=lease_id(replica),
        )


def _check_uploaded(tx: Transaction, outputs: dict[str, str], caller: Caller) -> None:
    for name, artifact in outputs.items():
        row = tx.get(Artifact, artifact, caller.party_id)
        if row is None or row.state is not ArtifactState.STORED:
            raise Conflict(
                "result.not_uploaded",
                f"Output {name!r} is not stored yet.",
                artifact=artifact,
                next_step="Upload it, then submit again.",
            )


async def _may_submit(submission: work_pb2.Submission, caller: Caller, desk: WorkDesk) -> bool:
    """Whether the outputs are worth reading: only the lease's holder, only what it uploaded."""

    def look(tx: Transaction) -> bool:
        identity = LeaseId.parse(submission.lease_id)
        replica = tx.get(Replica, identity.shard, identity.replica)
        if replica is None or replica.worker_id != caller.party_id or replica.state not in LIVE:
            return False
        _check_uploaded(tx, {output.name: output.artifact_id for output in submission.outputs}, caller)
        return True

    return await desk.engine.store.read(look)


async def _reported(submission: work_pb2.Submission, desk: WorkDesk) -> Reported:
    manifests = {
        output.name: await asyncio.to_thread(desk.artifacts.manifest, output.artifact_id)
        for output in submission.outputs
    }
    return Reported(
        outputs={output.name: output.artifact_id for output in submission.outputs},
        output_bytes={name: manifest.total_bytes for name, manifest in manifests.items()},
        output_files={
            name: {entry.path: entry.size for entry in manifest.files} for name, manifest in manifests.items()
        },
        metrics={metric.name: metric.value for metric in submission.metrics},
    )


def _is_decided(tx: Transaction, submission: work_pb2.Submission, caller: Caller, root: str) -> bool:
    """Whether this very result was judged, or waits for others, already: a retry whose first answer was lost."""
    lease = tx.get(Lease, submission.lease_id)
    if lease is None or lease.worker_id != caller.party_id:
        return False
    # a refused result's replica may be another worker's by now
    if lease.state is ReplicaState.REJECTED:
        return True
    replica = tx.get(Replica, lease.shard_id, lease.replica)
    same = replica is not None and replica.epoch == lease.epoch and replica.output_root == root
    return same and replica is not None and replica.state in (ReplicaState.ACCEPTED, ReplicaState.SUBMITTED)


def _answer(tx: Transaction, lease_id: str, desk: WorkDesk) -> work_pb2.SubmitResultResponse:
    lease = found(tx.get(Lease, lease_id), "lease", lease_id)
    if lease.state is ReplicaState.ACCEPTED:
        return work_pb2.SubmitResultResponse(state="accepted", paid_msat=lease.paid_msat)
    if lease.state is ReplicaState.REJECTED:
        return work_pb2.SubmitResultResponse(
            state="rejected", why=wire.why_to_proto(Why.from_json(lease.why_json) if lease.why_json else REFUSED)
        )
    waiting = Why(
        code="result.waits_for_agreement",
        sentence="The result passed its checks and waits for a second worker to agree; then it is paid.",
        evidence={"without_a_second_after_s": f"{desk.settings.agreement_grace_s:g}"},
        next_step="Nothing to do: without a second worker it is decided after that time, else when that one is done.",
    )
    return work_pb2.SubmitResultResponse(state="submitted", why=wire.why_to_proto(waiting))
