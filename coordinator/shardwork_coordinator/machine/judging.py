"""Judging: what a result that was handed in is worth, alone, beside others that must agree, and after an audit.

A result that passes its checks is paid, whether or not it came first: validity pays. The first accepted result of a
shard is its canonical output, or, where keys must agree, the first of those that agree. A result that another worker
must check a sample of waits, unpaid, for what `audits` makes of it. Pure; called by `leases`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from shardwork.recipes import recipe
from shardwork.recipes.base import AUDIT_PHASE
from shardwork.why import Why

from ..events import Change, Note, Slice, World
from ..money.pricing import WITNESSES
from ..records import Purpose, Replica, ReplicaState, Shard, ShardState
from . import attempts, audits
from .attempts import lease_id
from .endings import pause
from .moves import move
from .states import ENDED, FINAL_JOB, FINAL_ROUND, LIVE
from .verdicts import decide, refund_job, release_round

#: two evaluations of the same weights on different machines may differ by this much, relative (training.md: fp32 1e-3)
METRIC_TOLERANCE = 1e-3
#: and numbers derived from losses by this much
DERIVED_TOLERANCE = 0.05
#: two keys, and one that breaks their tie: a phase reserves one spare beside its quorum, so a fourth could not be paid
MOST_KEYS = 3


def judge(state: Slice, shard: Shard, replica: Replica, world: World, change: Change, *, compute_ms: int = 0) -> Change:
    """Decides a submitted replica: accepted at once, or together with the keys that must agree with it, or later, when
    another worker has checked a sample of it."""
    if shard.phase == AUDIT_PHASE:
        return _audit_judged(state, shard, replica, world, change)
    if shard.state is not ShardState.DONE and audits.opened(state, shard, replica, world, change):
        return change
    return _conclude(state, shard, replica, world, change, compute_ms=compute_ms)


def _conclude(
    state: Slice, shard: Shard, replica: Replica, world: World, change: Change, *, compute_ms: int = 0
) -> Change:
    """The verdict on a result that nothing more has to be asked about."""
    if shard.state is ShardState.DONE:
        first = state.replica(shard.id, shard.canonical)
        agrees = _alike(shard, first, replica) if shard.quorum == 1 else _agree(first, replica, shard.phase)
        if agrees:
            return _accepted(state, shard, replica, world, change, compute_ms=compute_ms)
        return rejected(state, shard, replica, _disagrees(replica), world, change, compute_ms=compute_ms)
    handed_in = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.SUBMITTED]
    if shard.quorum == 1:
        # others that still wait for an audit are measured by the one that was borne out
        group: list[Replica] | None = [
            replica,
            *(one for one in handed_in if not same(one, replica) and _alike(shard, replica, one)),
        ]
    else:
        group = next(
            (members for one in handed_in if len(members := _agreeing(one, handed_in, shard.phase)) >= shard.quorum),
            None,
        )
    if group is None:
        # kept until the others are in; the lease history learns the compute time when it is decided
        return _ask_another_key(state, shard, handed_in, world, change)
    for member in group:
        _accepted(state, shard, member, world, change, compute_ms=compute_ms if same(member, replica) else 0)
    for other in handed_in:
        if not any(same(other, member) for member in group):
            decide(shard, other, ReplicaState.REJECTED, world, change, why=_disagrees(other))
    # a resumed shard is ready again while an older result still waits
    shard = move(shard, ShardState.RUNNING) if shard.state is ShardState.READY else shard
    done = move(shard, ShardState.DONE, canonical=group[0].number, done_ms=world.now_ms, why_json="")
    change.rows.append(done)
    for spare in state.replicas_of(shard.id):
        if spare.state is ReplicaState.READY:
            change.rows.append(move(spare, ReplicaState.EXPIRED))
    for audit in audits.others(state, shard, group[0]):
        _drop_audit(state, audit, world, change)
    change.notes.append(
        Note(
            kind="shard.done",
            subject=shard.id,
            sentence=f"{attempts.called(shard)} is done.",
            evidence={"lease": lease_id(group[0]), "worker": group[0].worker_id, "copies": str(len(group))},
        )
    )
    return change


def _accepted(state: Slice, shard: Shard, replica: Replica, world: World, change: Change, *, compute_ms: int) -> Change:
    decide(shard, replica, ReplicaState.ACCEPTED, world, change, compute_ms=compute_ms)
    return _settle(state, lease_id(replica), change)


def rejected(
    state: Slice, shard: Shard, replica: Replica, why: Why, world: World, change: Change, *, compute_ms: int
) -> Change:
    refused = decide(shard, replica, ReplicaState.REJECTED, world, change, why=why, compute_ms=compute_ms)
    if shard.state is ShardState.DONE:
        return _settle(state, lease_id(replica), change)
    return offer_again(state, shard, refused, True, why, world, change)


def offer_again(
    state: Slice, shard: Shard, gone: Replica, costs: bool, why: Why, world: World, change: Change
) -> Change:
    """Back to ready, unless the shard is done or its attempts are used up; then the job pauses with the reason."""
    if _is_moot(state, shard) and shard.state is not ShardState.DONE:
        change.rows.append(gone)
        if any(one.state in LIVE for one in state.replicas_of(shard.id) if not same(one, gone)):
            return _settle(state, lease_id(gone), change)
        return _close_audit(state, shard, [], [], world, change)
    if shard.state is ShardState.DONE or state.round.state in FINAL_ROUND or state.job.state in FINAL_JOB:
        change.rows.append(gone)
        return _settle(state, lease_id(gone), change)
    others = [one for one in state.replicas_of(shard.id) if not same(one, gone)]
    if gone.purpose is Purpose.BACKUP and any(one.state not in ENDED for one in others):
        # the shard still has its own place; the sweeper makes another copy if it is still worth one
        change.rows.append(gone)
        return change
    left = shard.attempts_left - (1 if costs else 0)
    others_live = any(one.state in LIVE for one in others)
    if left > 0:
        change.rows.append(move(gone, ReplicaState.READY, worker_id="", offer=b"", step="", progress=0.0))
        is_running = others_live or any(one.state is ReplicaState.SUBMITTED for one in others)
        # one that was resumed while an older result waited for its audit is ready already
        still = shard if is_running or shard.state is ShardState.READY else move(shard, ShardState.READY)
        change.rows.append(replace(still, attempts_left=left, why_json=why.to_json()))
        change.notes.append(attempts.offered_again(shard, gone, left))
        return change
    change.rows.append(gone)
    if others_live:
        change.rows.append(replace(shard, attempts_left=0, why_json=why.to_json()))
        return change
    return _exhausted(state, shard, why, world, change)


def _audit_judged(state: Slice, audit: Shard, replica: Replica, world: World, change: Change) -> Change:
    """What another worker found decides the result that waits for it; one that finds fault is believed when a second
    one finds it as well, or when nobody else is there to ask."""
    shard, result = audits.audited(state, audit)
    handed_in = [one for one in state.replicas_of(audit.id) if one.state is ReplicaState.SUBMITTED]
    if result.state is not ReplicaState.SUBMITTED:
        # its job ended, and what waited was paid: the work was done in good faith
        return _close_audit(state, audit, handed_in, [], world, change)
    faults = {one.number: audits.fault(audit, result, one) for one in handed_in}
    content = [one for one in handed_in if faults[one.number] is None]
    against = [one for one in handed_in if faults[one.number] is not None]
    if content:
        _close_audit(state, audit, content, against, world, change)
        return _conclude(state, shard, result, world, change)
    why = faults[against[0].number]
    assert why is not None
    if len(against) < WITNESSES and world.workers > WITNESSES:
        change.rows.append(new_replica(state, audit, Purpose.AGREEMENT, world))
        return change
    _close_audit(state, audit, against, [], world, change)
    return rejected(state, shard, result, why, world, change, compute_ms=0)


def audit_alone(state: Slice, audit: Shard, world: World) -> Change:
    """Nobody else can check the result: one who found fault is believed, else the result counts unchecked, and the job
    says so everywhere."""
    change = Change()
    if audit.state is ShardState.DONE:
        return change
    shard, result = audits.audited(state, audit)
    against = [one for one in state.replicas_of(audit.id) if one.state is ReplicaState.SUBMITTED]
    if result.state is not ReplicaState.SUBMITTED or against:
        why = audits.fault(audit, result, against[0]) if against else None
        _close_audit(state, audit, against, [], world, change)
        if result.state is ReplicaState.SUBMITTED and why is not None:
            return rejected(state, shard, result, why, world, change, compute_ms=0)
        return change
    job = replace(state.job, self_evaluated=True)
    change.rows.append(job)
    change.notes.append(audits.unchecked(job, shard))
    _close_audit(state, audit, [], [], world, change)
    return _conclude(replace(state, job=job), shard, result, world, change)


def _close_audit(
    state: Slice, audit: Shard, content: list[Replica], others: list[Replica], world: World, change: Change
) -> Change:
    """The audit is over: whose word counted is paid, the others are not, and nobody else is asked."""
    for one in content:
        decide(audit, one, ReplicaState.ACCEPTED, world, change)
    for one in others:
        decide(audit, one, ReplicaState.REJECTED, world, change, why=_disagrees(one))
    for spare in state.replicas_of(audit.id):
        if spare.state is ReplicaState.READY:
            change.rows.append(move(spare, ReplicaState.EXPIRED))
    running = move(audit, ShardState.RUNNING) if audit.state is ShardState.READY else audit
    canonical = content[0].number if content else -1
    change.rows.append(move(running, ShardState.DONE, canonical=canonical, done_ms=world.now_ms, why_json=""))
    return _settle(state, f"{audit.id}/closed", change)


def _drop_audit(state: Slice, audit: Shard, world: World, change: Change) -> None:
    """What it was to check has been decided otherwise: who has checked is paid, who checks may finish, nobody else is
    asked."""
    places = state.replicas_of(audit.id)
    heard = [one for one in places if one.state is ReplicaState.SUBMITTED]
    if not any(one.state in LIVE for one in places):
        _close_audit(state, audit, heard, [], world, change)
        return
    for one in heard:
        decide(audit, one, ReplicaState.ACCEPTED, world, change)
    for one in places:
        if one.state is ReplicaState.READY:
            change.rows.append(move(one, ReplicaState.EXPIRED))


def _is_moot(state: Slice, shard: Shard) -> bool:
    """An audit of what no longer waits for it."""
    return shard.phase == AUDIT_PHASE and audits.audited(state, shard)[1].state is not ReplicaState.SUBMITTED


def _exhausted(state: Slice, shard: Shard, why: Why, world: World, change: Change) -> Change:
    if shard.phase == AUDIT_PHASE:
        return _uncheckable(state, shard, why, world, change)
    change.rows.append(move(shard, ShardState.EXHAUSTED, attempts_left=0, why_json=why.to_json()))
    advice = f"Its worker advised: {why.next_step} " if why.next_step else ""
    reason = Why(
        code="shard.exhausted",
        sentence=f"{attempts.called(shard)} failed on every attempt; the last reason was: {why.sentence}",
        evidence={"shard": shard.id, **why.evidence},
        next_step=f"{advice}Look at `shardwork job logs`, then resume the job for fresh attempts, or cancel it for a "
        "refund.",
    )
    return pause(state, reason, change)


def _uncheckable(state: Slice, audit: Shard, why: Why, world: World, change: Change) -> Change:
    """Nobody else could check the result: it is made again, by somebody else."""
    shard, result = audits.audited(state, audit)
    against = [one for one in state.replicas_of(audit.id) if one.state is ReplicaState.SUBMITTED]
    found = audits.fault(audit, result, against[0]) if against else None
    _close_audit(state, audit, against, [], world, change)
    return rejected(state, shard, result, found or audits.uncheckable(why), world, change, compute_ms=0)


def _ask_another_key(state: Slice, shard: Shard, handed_in: list[Replica], world: World, change: Change) -> Change:
    """When all asked keys answered and do not agree, one more is asked."""
    replicas = state.replicas_of(shard.id)
    if any(one.state in LIVE or one.state is ReplicaState.READY for one in replicas):
        return change
    if len(handed_in) < shard.quorum:
        # the other place failed on every attempt while this result was made
        alone = Why(code="shard.one_key", sentence="No second worker could confirm the result.")
        return _exhausted(state, shard, Why.from_json(shard.why_json) if shard.why_json else alone, world, change)
    if len(handed_in) < MOST_KEYS:
        change.rows.append(new_replica(state, shard, Purpose.AGREEMENT, world))
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


def new_replica(state: Slice, shard: Shard, purpose: Purpose, world: World) -> Replica:
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


def _alike(shard: Shard, first: Replica, late: Replica) -> bool:
    """Whether a copy that came late does what the first one did, as far as its recipe can tell by their numbers."""
    return recipe(shard.recipe).alike(
        shard.phase, shard.order_json, json.loads(first.metrics_json), json.loads(late.metrics_json)
    )


def _agreeing(one: Replica, others: list[Replica], phase: str) -> list[Replica]:
    return [other for other in others if _agree(one, other, phase)]


def _agree(left: Replica, right: Replica, phase: str) -> bool:
    """Evaluations agree by their numbers; everything else by content (samples are prose, and left out)."""
    if same(left, right):
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


def same(left: Replica, right: Replica) -> bool:
    return (left.shard_id, left.number) == (right.shard_id, right.number)
