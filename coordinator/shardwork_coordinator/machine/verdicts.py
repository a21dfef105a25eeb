"""Verdicts: what a decision on a replica writes: its row, its history, its money and its push.

The lowest layer of the machine: `endings`, `phases` and `leases` build on it. Pure.
"""

from __future__ import annotations

from shardwork.why import Why

from ..events import Change, Push, Slice, World
from ..money.movements import MoveAll, PostHold, VoidHold, escrow_account, round_account, user_account
from ..records import Lease, Replica, ReplicaState, Shard
from . import attempts
from .attempts import lease_id
from .moves import move


def hold_ids(lease: str) -> tuple[str, str]:
    """(pay, fee) hold ids of a lease."""
    return f"pay/{lease}", f"fee/{lease}"


def decide(
    shard: Shard,
    replica: Replica,
    verdict: ReplicaState,
    world: World,
    change: Change,
    *,
    why: Why | None = None,
    compute_ms: int = 0,
) -> Replica:
    """Writes the verdict on a replica with its money, history and push."""
    judged = move(replica, verdict, why_json=why.to_json() if why else "")
    paid = shard.price_msat if verdict is ReplicaState.ACCEPTED and not replica.donated else 0
    # a row written earlier in this change is superseded: the last one put is the one that stays
    change.rows.append(judged)
    change.rows.append(
        history(shard, judged, verdict, now_ms=world.now_ms, why=why, paid_msat=paid, compute_ms=compute_ms)
    )
    if verdict is ReplicaState.ACCEPTED:
        change.movements += [PostHold(hold_id=hold, msat=msat) for hold, msat in _held(shard, replica)]
        change.notes.append(attempts.accepted(shard, replica, paid))
    else:
        change.movements += void(shard, replica)
        change.notes.append(attempts.refused(shard, replica, why))
    change.pushes.append(verdict_push(judged, str(verdict), why, paid_msat=paid))
    return judged


def give_up(shard: Shard, replica: Replica, why: Why, world: World, change: Change) -> None:
    """The job ended: a running lease is taken back unpaid and nobody is to blame; a result that was handed in and only
    waited for a second key passed its checks, so it is paid."""
    if replica.state is ReplicaState.SUBMITTED:
        decide(shard, replica, ReplicaState.ACCEPTED, world, change)
        return
    gone = move(replica, ReplicaState.EXPIRED, why_json=why.to_json())
    change.rows += [gone, history(shard, gone, ReplicaState.EXPIRED, now_ms=world.now_ms, why=why)]
    change.movements += void(shard, replica)
    change.pushes.append(verdict_push(gone, "revoke", why))
    change.notes.append(attempts.taken_back(shard, replica, why, detail=True))


def release_round(state: Slice, cause: str) -> MoveAll:
    """What the round reserved and does not need goes back to the job's escrow."""
    job, stage, number = state.job.id, state.stage.name, state.round.number
    return MoveAll(
        id=f"release/{job}/{stage}/r{number}/{cause}",
        debit=round_account(job, stage, number),
        credit=escrow_account(job),
        reason="release",
        reference=job,
    )


def refund_job(job: str, owner: str, cause: str) -> MoveAll:
    """What is left in escrow goes back to the requester."""
    return MoveAll(
        id=f"refund/{job}/{cause}",
        debit=escrow_account(job),
        credit=user_account(owner),
        reason="refund",
        reference=job,
    )


def void(shard: Shard, replica: Replica) -> list[VoidHold]:
    return [VoidHold(hold_id=hold) for hold, _ in _held(shard, replica)]


def _held(shard: Shard, replica: Replica) -> list[tuple[str, int]]:
    """(hold id, msat) of pay and fee; nothing for a worker that gives its work."""
    pay, fee = hold_ids(lease_id(replica))
    amounts = ((pay, shard.price_msat), (fee, shard.fee_msat))
    return [] if replica.donated else [(hold, msat) for hold, msat in amounts if msat]


def history(
    shard: Shard,
    replica: Replica,
    verdict: ReplicaState,
    *,
    now_ms: int = 0,
    why: Why | None = None,
    paid_msat: int = 0,
    compute_ms: int = 0,
) -> Lease:
    return Lease(
        id=lease_id(replica),
        job_id=replica.job_id,
        shard_id=replica.shard_id,
        replica=replica.number,
        epoch=replica.epoch,
        worker_id=replica.worker_id,
        phase=shard.phase,
        state=verdict,
        granted_ms=replica.granted_ms,
        ended_ms=now_ms,
        paid_msat=paid_msat,
        compute_ms=compute_ms,
        why_json=why.to_json() if why else "",
        work_units=shard.work_units,
        donated_msat=shard.price_msat if replica.donated and verdict is ReplicaState.ACCEPTED else 0,
    )


def verdict_push(replica: Replica, kind: str, why: Why | None, *, paid_msat: int = 0) -> Push:
    return Push(worker_id=replica.worker_id, lease_id=lease_id(replica), kind=kind, paid_msat=paid_msat, why=why)
