"""Jobs pause, resume, succeed, fail and are cancelled; what was valid stays paid and the rest flows back.

Pure; called by `machine.step`, by the other rules, and by `engine` when the last stage is done.
"""

from __future__ import annotations

import json
from dataclasses import replace

from shardwork.money import show
from shardwork.recipes.base import PEOPLE_PHASES
from shardwork.why import Why

from ..events import (
    Change,
    Follow,
    JobCancelled,
    JobPaused,
    JobResumed,
    Note,
    Slice,
    TimedOut,
    ToppedUp,
    World,
)
from ..money.movements import Move, MoveAll, escrow_account, round_account, user_account
from ..records import Job, JobState, Replica, ReplicaState, RoundState, Shard, ShardState, Stage, StageState
from . import people
from .moves import move
from .states import FINAL_JOB, FINAL_ROUND, LIVE
from .verdicts import decide, give_up, refund_job

#: of the reason of a job that paused for want of money and goes on by itself when there is more
BUDGET_SPENT = "budget.spent"
#: attempts a shard gets when its requester resumes the job
FRESH_ATTEMPTS = 4


def paused(state: Slice, event: JobPaused, world: World) -> Change:
    if state.job.state is JobState.PAUSED:
        return Change()
    return pause(state, event.why, Change())


def pause(state: Slice, why: Why, change: Change) -> Change:
    """No new leases; those that run go on and are paid."""
    if state.job.state is not JobState.RUNNING:
        return change
    change.rows.append(move(_written_job(state, change), JobState.PAUSED, why_json=why.to_json()))
    change.notes.append(Note.because("job.paused", state.job.id, why))
    return change


def resumed(state: Slice, event: JobResumed, world: World) -> Change:
    """Leases are given again; exhausted shards get fresh attempts."""
    if state.job.state is JobState.RUNNING:
        return Change()
    change = Change(rows=[move(state.job, JobState.RUNNING, why_json="")])
    for shard in state.shards:
        if shard.state is ShardState.EXHAUSTED:
            change.rows += _fresh_attempts(state, shard)
        elif shard.state is ShardState.RUNNING and shard.phase not in PEOPLE_PHASES and _is_in_dispute(state, shard):
            _ask_afresh(state, shard, world, change)
    change.notes.append(Note(kind="job.running", subject=state.job.id, sentence="The job goes on."))
    return change


def cancelled(state: Slice, event: JobCancelled, world: World) -> Change:
    """The slice holds every live replica of the job here, whatever its phase."""
    why = Why(
        code="job.cancelled",
        sentence="The requester cancelled the job.",
        next_step="What was valid is paid and the rest refunded; `shardwork job report ID` has the sums.",
    )
    return _end(state, JobState.CANCELLED, why, world, Change())


def timed_out(state: Slice, event: TimedOut, world: World) -> Change:
    """As a cancelled job: what was handed in and passed its checks is paid, leases that run are taken back, the rest
    is refunded; the best checkpoint so far is the owner's."""
    if state.job.state in FINAL_JOB:
        return Change()
    return _end(state, JobState.FAILED, event.why, world, Change())


def topped_up(state: Slice, event: ToppedUp, world: World) -> Change:
    """More from its owner's balance. It is used when a round's reserve does not cover a spare copy or another try."""
    job = replace(
        state.job, budget_msat=state.job.budget_msat + event.msat, extra_msat=state.job.extra_msat + event.msat
    )
    move_ = Move(
        id=event.transfer,
        debit=user_account(job.owner),
        credit=escrow_account(job.id),
        msat=event.msat,
        reason="escrow",
        reference=job.id,
    )
    sentence = f"The requester added {show(event.msat)} to the budget."
    note = Note(kind="job.topped_up", subject=job.id, sentence=sentence, evidence={"msat": str(event.msat)})
    change = Change(rows=[job], movements=[move_], notes=[note])
    if job.state is JobState.PAUSED and job.why_json and Why.from_json(job.why_json).code == BUDGET_SPENT:
        change.rows.append(move(job, JobState.RUNNING, why_json=""))
        change.notes.append(Note(kind="job.running", subject=job.id, sentence="The job goes on: it was topped up."))
    return change


def fail(state: Slice, why: Why, world: World, change: Change) -> Change:
    return _end(state, JobState.FAILED, why, world, change)


def succeed(job: Job, world: World) -> Change:
    """The last stage is done: what is left in escrow goes back."""
    job = move(job, JobState.SUCCEEDED, ended_ms=world.now_ms, why_json="", extra_msat=0)
    change = Change(rows=[job], movements=[refund_job(job.id, job.owner, "end")])
    change.notes.append(Note(kind="job.succeeded", subject=job.id, sentence="The job succeeded."))
    return change


def _end(state: Slice, final: JobState, why: Why, world: World, change: Change) -> Change:
    job = _written_job(state, change)
    job = move(job, final, ended_ms=world.now_ms, why_json=why.to_json(), extra_msat=0)
    change.rows.append(job)
    change.follow = Follow.KEEP_OUTPUTS
    if state.round.state not in FINAL_ROUND:
        change.rows.append(move(state.round, RoundState.ABANDONED, ended_ms=world.now_ms))
    if state.stage.state is StageState.RUNNING:
        ended = StageState.CANCELLED if final is JobState.CANCELLED else StageState.FAILED
        change.rows.append(move(_written_stage(state, change), ended, outputs_json=_kept(state, change)))
    ended_ = Why(
        code=f"job.{final}",
        sentence=f"The job ended: {why.sentence}",
        evidence=why.evidence,
        next_step="Drop the work; it is nobody's fault and counts against nobody.",
    )
    for replica in state.replicas:
        if replica.state in LIVE or replica.state in (ReplicaState.READY, ReplicaState.SUBMITTED):
            _take_back(state, replica, ended_, world, change)
    touched = {(one.stage, one.round) for one in state.replicas} | {(state.stage.name, state.round.number)}
    for stage, number in sorted(touched):
        change.movements.append(
            MoveAll(
                id=f"release/{job.id}/{stage}/r{number}/{final}",
                debit=round_account(job.id, stage, number),
                credit=escrow_account(job.id),
                reason="release",
                reference=job.id,
            )
        )
    change.movements.append(refund_job(job.id, job.owner, "end"))
    change.notes.append(Note.because(f"job.{final}", job.id, why))
    return change


def _kept(state: Slice, change: Change) -> str:
    """The stage's outputs with its best checkpoint, which a stage that did not come to its end gives all the same."""
    stage = _written_stage(state, change)
    outputs: dict[str, dict[str, str]] = json.loads(stage.outputs_json)
    best = json.loads(stage.artifacts_json).get("best_checkpoint")
    if best is not None:
        outputs[f"{stage.name}.checkpoint"] = {"artifact_id": best, "kind": "checkpoint"}
    return json.dumps(outputs, sort_keys=True)


def _take_back(state: Slice, replica: Replica, why: Why, world: World, change: Change) -> None:
    shard = state.shard(replica.shard_id)
    if shard.phase in PEOPLE_PHASES:
        people.end(state, replica, why, world, change)
        return
    if replica.state is ReplicaState.READY:
        change.rows.append(move(replica, ReplicaState.EXPIRED))
        return
    give_up(shard, replica, why, world, change)


def _fresh_attempts(state: Slice, shard: Shard) -> list[Shard | Replica]:
    """As many places as its quorum still needs, beside results that wait and places that are open."""
    rows: list[Shard | Replica] = [move(shard, ShardState.READY, attempts_left=FRESH_ATTEMPTS, why_json="")]
    replicas = state.replicas_of(shard.id)
    ended = [one for one in replicas if one.state in (ReplicaState.EXPIRED, ReplicaState.REJECTED)]
    wanted = max(shard.quorum - (len(replicas) - len(ended)), 0)
    rows += [_open_again(one) for one in ended[:wanted]]
    return rows


def _is_in_dispute(state: Slice, shard: Shard) -> bool:
    """Every key that was asked answered, and no two agree. A result that waits for its audit is in none."""
    if shard.quorum == 1:
        return False
    replicas = state.replicas_of(shard.id)
    open_ones = [one for one in replicas if one.state in LIVE or one.state is ReplicaState.READY]
    return not open_ones and any(one.state is ReplicaState.SUBMITTED for one in replicas)


def _ask_afresh(state: Slice, shard: Shard, world: World, change: Change) -> None:
    """Results that did not agree are refused, and a new quorum is asked: nobody can tell which of them was right."""
    why = Why(
        code="result.no_agreement",
        sentence="No two workers agreed, so the phase was asked afresh.",
        next_step="Nothing to do: a new quorum of keys is asked.",
    )
    disputed = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.SUBMITTED]
    refused = [decide(shard, one, ReplicaState.REJECTED, world, change, why=why) for one in disputed]
    change.rows += [_open_again(one) for one in refused[: shard.quorum]]
    change.rows.append(move(move(shard, ShardState.EXHAUSTED), ShardState.READY, attempts_left=FRESH_ATTEMPTS))


def _open_again(replica: Replica) -> Replica:
    return move(replica, ReplicaState.READY, worker_id="", offer=b"", step="", progress=0.0)


def _written_stage(state: Slice, change: Change) -> Stage:
    """The stage as this change last wrote it."""
    written = [row for row in change.rows if isinstance(row, Stage) and row.name == state.stage.name]
    return written[-1] if written else state.stage


def _written_job(state: Slice, change: Change) -> Job:
    """The job as this change last wrote it."""
    written = [row for row in change.rows if isinstance(row, Job)]
    return written[-1] if written else state.job
