"""Replicas and shards: granted, committed, submitted, lost, backed up, freed of a second key.

What a result is worth is `judging`. Pure; called by `machine.step`.
"""

from __future__ import annotations

import json
from dataclasses import replace

from shardwork.errors import StaleLease
from shardwork.recipes.base import AUDIT_PHASE

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
from ..records import Purpose, ReplicaState, ShardState
from . import attempts
from .attempts import lease_id
from .judging import audit_alone, judge, new_replica, offer_again, rejected, same
from .moves import move
from .states import LIVE
from .verdicts import history, hold_ids, verdict_push, void


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
        return rejected(state, shard, replica, event.refused, world, change, compute_ms=event.compute_ms)
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
        replicas=tuple(handed_in if same(one, handed_in) else one for one in state.replicas),
    )
    return judge(state, shard, handed_in, world, change, compute_ms=event.compute_ms)


def lost(state: Slice, event: LeaseLost, world: World) -> Change:
    """The lease ends without a result; the replica is offered again while attempts remain."""
    shard, replica = state.shard(event.shard_id), state.replica(event.shard_id, event.number)
    gone = move(replica, ReplicaState.EXPIRED, why_json=event.why.to_json())
    change = Change(rows=[history(shard, gone, ReplicaState.EXPIRED, now_ms=world.now_ms, why=event.why)])
    change.movements += void(shard, replica)
    change.pushes.append(verdict_push(gone, "revoke", event.why))
    change.notes.append(attempts.taken_back(shard, replica, event.why))
    return offer_again(state, shard, gone, event.costs_an_attempt, event.why, world, change)


def backup(state: Slice, event: BackupWanted, world: World) -> Change:
    """A second copy of a slow shard, for another worker."""
    shard = state.shard(event.shard_id)
    copy = new_replica(state, shard, Purpose.BACKUP, world)
    note = Note(
        kind="shard.backup",
        subject=shard.id,
        sentence=f"{attempts.called(shard)} is offered a second time: {event.why.sentence}",
        evidence=dict(event.why.evidence),
    )
    return Change(rows=[copy], notes=[note])


def quorum_shrunk(state: Slice, event: QuorumShrunk, world: World) -> Change:
    """One key is all there is: its result counts, and the job says so everywhere."""
    if state.shard(event.shard_id).phase == AUDIT_PHASE:
        return audit_alone(state, state.shard(event.shard_id), world)
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
        return judge(state, shard, waiting[0], world, change)
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
        change.rows.append(new_replica(state, shard, Purpose.AGREEMENT, world))
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
