"""Replicas and shards: granted, committed, submitted, judged, lost, backed up, agreed upon.

A result that passes its checks is paid, whether or not it came first: validity pays. The first accepted result of a
shard is its canonical output, or, where keys must agree, the first of those that agree. Pure; called by
`machine.step`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from shardwork.errors import StaleLease
from shardwork.why import Why

from ..events import (
    BackupWanted,
    Change,
    LeaseGranted,
    LeaseLost,
    Note,
    Push,
    QuorumShrunk,
    ReferenceGone,
    ReserveExtended,
    ResultCommitted,
    ResultSubmitted,
    Slice,
    World,
)
from ..money.movements import FEES, Hold, Move, escrow_account, round_account, worker_account
from ..records import Purpose, Replica, ReplicaState, Shard, ShardState
from . import attempts
from .attempts import lease_id
from .endings import pause
from .moves import move
from .states import ENDED, FINAL_JOB, FINAL_ROUND, LIVE
from .verdicts import decide, history, hold_ids, refund_job, release_round, verdict_push, void

#: two evaluations of the same weights on different machines may differ by this much, relative (training.md: fp32 1e-3)
METRIC_TOLERANCE = 1e-3
#: and numbers derived from losses by this much
DERIVED_TOLERANCE = 0.05
#: two keys, and one that breaks their tie: a phase reserves one spare beside its quorum, so a fourth could not be paid
MOST_KEYS = 3


def granted(state: Slice, event: LeaseGranted, world: World) -> Change:
    shard, replica = state.shard(event.shard_id), state.replica(event.shard_id, event.number)
    leased = move(
        replica,
        ReplicaState.LEASED,
        epoch=replica.epoch + 1,
        worker_id=event.worker_id,
        offer=event.offer,
        offer_sha256=event.offer_sha256,
        granted_ms=world.now_ms,
        expires_ms=event.expires_ms,
        deadline_ms=event.deadline_ms,
        progress=0.0,
        loss=None,
        step="offered",
        output_root="",
        outputs_json="{}",
        metrics_json="{}",
        why_json="",
        donated=event.donated,
        parts_told=0,
    )
    lease = lease_id(leased)
    reserve = round_account(state.job.id, state.stage.name, state.round.number)
    pay, fee = hold_ids(lease)
    change = Change()
    if shard.state is ShardState.READY:
        change.rows.append(move(shard, ShardState.RUNNING))
    change.rows += [leased, history(shard, leased, ReplicaState.LEASED)]
    # a worker that gives its work is held nothing: the money stays in the round's reserve and flows back
    for hold, credit, msat, reason in (
        ()
        if event.donated
        else (
            (pay, worker_account(event.worker_id), shard.price_msat, "shard"),
            (fee, FEES, shard.fee_msat, "fee"),
        )
    ):
        if msat:
            change.movements.append(
                Hold(id=hold, debit=reserve, credit=credit, msat=msat, reason=reason, reference=lease)
            )
    change.pushes.append(Push(worker_id=event.worker_id, lease_id=lease, kind="offer", offer=event.offer))
    change.notes.append(attempts.granted(shard, leased))
    return change


def committed(state: Slice, event: ResultCommitted, world: World) -> Change:
    """Binds the worker to one output root; the same root again changes nothing."""
    replica = state.replica(event.shard_id, event.number)
    if replica.state is ReplicaState.COMMITTED:
        if replica.output_root != event.output_root:
            raise StaleLease(
                "lease.already_committed",
                "This lease is already bound to another result.",
                lease=lease_id(replica),
                next_step="Submit the result that was committed.",
            )
        return Change()
    return Change(rows=[move(replica, ReplicaState.COMMITTED, output_root=event.output_root, step="uploading")])


def submitted(state: Slice, event: ResultSubmitted, world: World) -> Change:
    replica, shard = state.replica(event.shard_id, event.number), state.shard(event.shard_id)
    change = Change(notes=[attempts.handed_in(shard, replica, event)])
    if event.refused is not None:
        return _rejected(state, shard, replica, event.refused, world, change, compute_ms=event.compute_ms)
    handed_in = move(
        replica,
        ReplicaState.SUBMITTED,
        outputs_json=json.dumps(dict(event.outputs), sort_keys=True),
        metrics_json=json.dumps(dict(event.metrics), sort_keys=True),
        progress=1.0,
        step="submitted",
    )
    totals = replace(
        state.round,
        bytes_up=state.round.bytes_up + event.bytes_up,
        bytes_down=state.round.bytes_down + event.bytes_down,
    )
    change.rows += [handed_in, totals]
    if event.metrics.get("memory_halvings", 0) > 0:
        change.notes.append(attempts.ran_out_of_memory(shard, replica, event.metrics))
    state = replace(
        state,
        round=totals,
        replicas=tuple(handed_in if _same(one, handed_in) else one for one in state.replicas),
    )
    return _judge(state, shard, handed_in, world, change, compute_ms=event.compute_ms)


def lost(state: Slice, event: LeaseLost, world: World) -> Change:
    """The lease ends without a result; the replica is offered again while attempts remain."""
    shard, replica = state.shard(event.shard_id), state.replica(event.shard_id, event.number)
    gone = move(replica, ReplicaState.EXPIRED, why_json=event.why.to_json())
    change = Change(rows=[history(shard, gone, ReplicaState.EXPIRED, now_ms=world.now_ms, why=event.why)])
    change.movements += void(shard, replica)
    change.pushes.append(verdict_push(gone, "revoke", event.why))
    change.notes.append(attempts.taken_back(shard, replica, event.why))
    return _offer_again(state, shard, gone, event.costs_an_attempt, event.why, world, change)


def backup(state: Slice, event: BackupWanted, world: World) -> Change:
    """A second copy of a slow shard, for another worker."""
    shard = state.shard(event.shard_id)
    copy = _new_replica(state, shard, Purpose.BACKUP, world)
    note = Note(
        kind="shard.backup",
        subject=shard.id,
        sentence=f"{shard.phase} shard {shard.position} is offered a second time: {event.why.sentence}",
        evidence=dict(event.why.evidence),
    )
    return Change(rows=[copy], notes=[note])


def quorum_shrunk(state: Slice, event: QuorumShrunk, world: World) -> Change:
    """One key is all there is: its result counts, and the job says so everywhere."""
    shard = replace(state.shard(event.shard_id), quorum=1, reference_only=False)
    job = replace(state.job, self_evaluated=True)
    change = Change(rows=[shard, job])
    change.notes.append(
        Note(
            kind="job.self_evaluated",
            subject=state.job.id,
            sentence=f"No second worker is there to confirm the {shard.phase} phase; the job is marked self-evaluated.",
        )
    )
    state = replace(state, job=job, shards=tuple(shard if one.id == shard.id else one for one in state.shards))
    waiting = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.SUBMITTED]
    if waiting:
        # a resumed shard is ready again while an older result still waits
        shard = move(shard, ShardState.RUNNING) if shard.state is ShardState.READY else shard
        return _judge(state, shard, waiting[0], world, change)
    spare = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.READY]
    for one in spare[1:]:
        change.rows.append(move(one, ReplicaState.EXPIRED))
    return change


def reference_gone(state: Slice, event: ReferenceGone, world: World) -> Change:
    """The shard is offered to everybody, and a second key must agree; the quote reserved for two."""
    shard = replace(state.shard(event.shard_id), quorum=2, reference_only=False)
    change = Change(rows=[shard])
    open_ = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.READY or one.state in LIVE]
    if len(open_) < shard.quorum:
        change.rows.append(_new_replica(state, shard, Purpose.AGREEMENT, world))
    if cost := shard.price_msat + shard.fee_msat:
        change.rows.append(replace(state.round, reserved_msat=state.round.reserved_msat + cost))
        change.movements.append(
            Move(
                id=f"reserve/{shard.id}/second-key",
                debit=escrow_account(state.job.id),
                credit=round_account(state.job.id, state.stage.name, state.round.number),
                msat=cost,
                reason="reserve",
                reference=state.job.id,
            )
        )
    change.notes.append(
        Note(
            kind="shard.reference_gone",
            subject=shard.id,
            sentence=f"No reference worker came for the {shard.phase} phase; two other workers must agree on it.",
        )
    )
    return change


# ---- inside ---------------------------------------------------------------------------------------------------------


def reserve_extended(state: Slice, event: ReserveExtended, world: World) -> Change:
    """What the job's owner added pays for what the round did not reserve."""
    replica = state.replica(event.shard_id, event.number)
    job = replace(state.job, extra_msat=state.job.extra_msat - event.msat)
    round_ = replace(state.round, reserved_msat=state.round.reserved_msat + event.msat)
    movement = Move(
        id=f"reserve/{lease_id(replica)}/top-up/{job.extra_msat}",
        debit=escrow_account(job.id),
        credit=round_account(job.id, state.stage.name, round_.number),
        msat=event.msat,
        reason="reserve",
        reference=job.id,
    )
    return Change(rows=[job, round_], movements=[movement])


def _judge(
    state: Slice, shard: Shard, replica: Replica, world: World, change: Change, *, compute_ms: int = 0
) -> Change:
    """Decides a submitted replica: accepted at once, or together with the keys that must agree with it."""
    if shard.state is ShardState.DONE:
        agrees = shard.quorum == 1 or _agree(state.replica(shard.id, shard.canonical), replica, shard.phase)
        if agrees:
            return _accepted(state, shard, replica, world, change, compute_ms=compute_ms)
        return _rejected(state, shard, replica, _disagrees(replica), world, change, compute_ms=compute_ms)
    handed_in = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.SUBMITTED]
    group = next(
        (members for one in handed_in if len(members := _agreeing(one, handed_in, shard.phase)) >= shard.quorum), None
    )
    if group is None:
        # kept until the others are in; the lease history learns the compute time when it is decided
        return _ask_another_key(state, shard, handed_in, world, change)
    for member in group:
        _accepted(state, shard, member, world, change, compute_ms=compute_ms if _same(member, replica) else 0)
    for other in handed_in:
        if not any(_same(other, member) for member in group):
            decide(shard, other, ReplicaState.REJECTED, world, change, why=_disagrees(other))
    done = move(shard, ShardState.DONE, canonical=group[0].number, done_ms=world.now_ms, why_json="")
    change.rows.append(done)
    for spare in state.replicas_of(shard.id):
        if spare.state is ReplicaState.READY:
            change.rows.append(move(spare, ReplicaState.EXPIRED))
    change.notes.append(
        Note(
            kind="shard.done",
            subject=shard.id,
            sentence=f"{shard.phase} shard {shard.position} is done.",
            evidence={"lease": lease_id(group[0]), "worker": group[0].worker_id, "copies": str(len(group))},
        )
    )
    return change


def _accepted(state: Slice, shard: Shard, replica: Replica, world: World, change: Change, *, compute_ms: int) -> Change:
    decide(shard, replica, ReplicaState.ACCEPTED, world, change, compute_ms=compute_ms)
    return _settle(state, lease_id(replica), change)


def _rejected(
    state: Slice, shard: Shard, replica: Replica, why: Why, world: World, change: Change, *, compute_ms: int
) -> Change:
    refused = decide(shard, replica, ReplicaState.REJECTED, world, change, why=why, compute_ms=compute_ms)
    if shard.state is ShardState.DONE:
        return _settle(state, lease_id(replica), change)
    return _offer_again(state, shard, refused, True, why, world, change)


def _offer_again(
    state: Slice, shard: Shard, gone: Replica, costs: bool, why: Why, world: World, change: Change
) -> Change:
    """Back to ready, unless the shard is done or its attempts are used up; then the job pauses with the reason."""
    if shard.state is ShardState.DONE or state.round.state in FINAL_ROUND or state.job.state in FINAL_JOB:
        change.rows.append(gone)
        return _settle(state, lease_id(gone), change)
    others = [one for one in state.replicas_of(shard.id) if not _same(one, gone)]
    if gone.purpose is Purpose.BACKUP and any(one.state not in ENDED for one in others):
        # the shard still has its own place; the sweeper makes another copy if it is still worth one
        change.rows.append(gone)
        return change
    left = shard.attempts_left - (1 if costs else 0)
    others_live = any(one.state in LIVE for one in others)
    if left > 0:
        change.rows.append(move(gone, ReplicaState.READY, worker_id="", offer=b"", step="", progress=0.0))
        is_running = others_live or any(one.state is ReplicaState.SUBMITTED for one in others)
        still = shard if is_running else move(shard, ShardState.READY)
        change.rows.append(replace(still, attempts_left=left, why_json=why.to_json()))
        change.notes.append(attempts.offered_again(shard, gone, left))
        return change
    change.rows.append(gone)
    if others_live:
        change.rows.append(replace(shard, attempts_left=0, why_json=why.to_json()))
        return change
    return _exhausted(state, shard, why, change)


def _exhausted(state: Slice, shard: Shard, why: Why, change: Change) -> Change:
    change.rows.append(move(shard, ShardState.EXHAUSTED, attempts_left=0, why_json=why.to_json()))
    advice = f"Its worker advised: {why.next_step} " if why.next_step else ""
    reason = Why(
        code="shard.exhausted",
        sentence=f"{shard.phase} shard {shard.position} failed on every attempt; the last reason was: {why.sentence}",
        evidence={"shard": shard.id, **why.evidence},
        next_step=f"{advice}Look at `shardwork job logs`, then resume the job for fresh attempts, or cancel it for a "
        "refund.",
    )
    return pause(state, reason, change)


def _ask_another_key(state: Slice, shard: Shard, handed_in: list[Replica], world: World, change: Change) -> Change:
    """When all asked keys answered and do not agree, one more is asked."""
    replicas = state.replicas_of(shard.id)
    if any(one.state in LIVE or one.state is ReplicaState.READY for one in replicas):
        return change
    if len(handed_in) < shard.quorum:
        # the other place failed on every attempt while this result was made
        alone = Why(code="shard.one_key", sentence="No second worker could confirm the result.")
        return _exhausted(state, shard, Why.from_json(shard.why_json) if shard.why_json else alone, change)
    if len(handed_in) < MOST_KEYS:
        change.rows.append(_new_replica(state, shard, Purpose.AGREEMENT, world))
        return change
    reason = Why(
        code="shard.no_agreement",
        sentence=f"{len(handed_in)} workers gave different results for the {shard.phase} phase.",
        evidence={"shard": shard.id},
        next_step="Resume the job to ask again, ask the operator for a reference worker, or cancel for a refund.",
    )
    return pause(state, reason, change)


def _settle(state: Slice, cause: str, change: Change) -> Change:
    """After a late verdict: what the round and the job no longer need flows back."""
    if state.round.state in FINAL_ROUND:
        change.movements.append(release_round(state, cause))
    if state.job.state in FINAL_JOB:
        change.movements.append(refund_job(state.job.id, state.job.owner, cause))
    return change


def _new_replica(state: Slice, shard: Shard, purpose: Purpose, world: World) -> Replica:
    return Replica(
        shard_id=shard.id,
        number=1 + max(one.number for one in state.replicas_of(shard.id)),
        job_id=shard.job_id,
        stage=shard.stage,
        round=shard.round,
        phase=shard.phase,
        purpose=purpose,
        state=ReplicaState.READY,
        created_ms=world.now_ms,
    )


def _agreeing(one: Replica, others: list[Replica], phase: str) -> list[Replica]:
    return [other for other in others if _agree(one, other, phase)]


def _agree(left: Replica, right: Replica, phase: str) -> bool:
    """Evaluations agree by their numbers; everything else by content (samples are prose, and left out)."""
    if _same(left, right):
        return True
    if left.worker_id == right.worker_id:
        return False
    if phase == "evaluate":
        return _close(json.loads(left.metrics_json), json.loads(right.metrics_json))
    mine, theirs = json.loads(left.outputs_json), json.loads(right.outputs_json)
    return all(mine[name] == theirs.get(name) for name in mine if name != "samples")


def _close(left: Mapping[str, float], right: Mapping[str, float]) -> bool:
    """The same names, and numbers near each other: whoever comes first must not add or bend one."""
    return left.keys() == right.keys() and all(_near(name, left[name], right[name]) for name in left)


def _near(name: str, one: float, other: float) -> bool:
    tolerance = METRIC_TOLERANCE if name.endswith("_loss") else DERIVED_TOLERANCE
    return abs(one - other) <= tolerance * max(abs(one), abs(other))


def _disagrees(replica: Replica) -> Why:
    return Why(
        code="result.disagrees",
        sentence="Other workers agreed on a different result.",
        evidence={"lease": lease_id(replica)},
    )


def _same(left: Replica, right: Replica) -> bool:
    return (left.shard_id, left.number) == (right.shard_id, right.number)
