"""People's shards: a task is given, answered, taken back, left, judged; an item is done when enough people judged it.

A replica here belongs to one person for good, and its number is theirs, so that nobody judges an item twice. Places
are counted, not kept: a shard is READY while fewer people than its quorum hold it, wait for a verdict or were accepted.
Items shown again and items whose answer is known have no places and are never done. What ends a person's time is no
failed attempt of anybody. Pure; called by `machine.step`, `phases` and `endings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from shardwork.errors import Conflict
from shardwork.ids import derive_seed, shard_id
from shardwork.recipes.base import ASK_PHASE, PEOPLE_PHASES, PRACTICE_PHASE, REPEAT_PHASE
from shardwork.why import Why

from ..events import (
    Change,
    ItemShelved,
    LeaseLost,
    MachineEvent,
    Note,
    Slice,
    TaskGiven,
    TaskLeft,
    VoteCast,
    VoteChanged,
    VoteJudged,
    World,
)
from ..money.movements import FEES, Hold, PostHold, round_account, worker_account
from ..records import JobState, Purpose, Replica, ReplicaState, Shard, ShardState, Vote, VoteState
from .attempts import lease_id
from .moves import move
from .states import FINAL_ROUND, LIVE
from .verdicts import history, hold_ids, void

#: replicas that take one of their shard's places
_TAKEN = LIVE | {ReplicaState.SUBMITTED, ReplicaState.ACCEPTED}

CLOSED = Why(
    code="people.stage_over",
    sentence="The stage has all the judgements that it needs, or its job ended.",
    next_step="Nothing to do: choose another task.",
)

RAN_OUT = Why(
    code="people.ran_out",
    sentence="The time for this task ran out, and it goes to others.",
    next_step="Nothing to do: an answer within the hour counts while its place is free.",
)
SPOKE_AGAINST = Why(
    code="people.spoke_against",
    sentence="The task ended before your answers could be told from guesses, and those to items that test people were "
    "rather guesses.",
    next_step="Choose another task, and read the guideline first.",
)


def given(state: Slice, event: TaskGiven, world: World) -> Change:
    """Leases the slice's vote's shard to its person. Raises Conflict "people.no_place" and "people.closed"."""
    vote, shard = state.votes[0], state.shards[0]
    if state.job.state is not JobState.RUNNING or state.round.state in FINAL_ROUND or state.round.phase != ASK_PHASE:
        raise Conflict("people.closed", "This task is closed.", next_step="Choose another one.")
    known = [one for one in state.replicas if (one.shard_id, one.number) == (vote.shard_id, vote.replica)]
    if shard.state is ShardState.DONE or (shard.phase == ASK_PHASE and _places(state, shard) <= 0):
        raise Conflict("people.no_place", "Others have judged this item meanwhile.", next_step="Take the next one.")
    replica = known[0] if known else _replica(shard, vote, world)
    if replica.state is ReplicaState.EXPIRED:
        replica = move(replica, ReplicaState.READY)
    leased = move(
        replica,
        ReplicaState.LEASED,
        epoch=replica.epoch + 1,
        worker_id=vote.annotator,
        granted_ms=world.now_ms,
        expires_ms=event.expires_ms,
        deadline_ms=event.deadline_ms,
        why_json="",
    )
    change = Change(rows=[leased, replace(vote, state=VoteState.GIVEN, why_json="")])
    if shard.phase != PRACTICE_PHASE:
        change.rows.append(history(shard, leased, ReplicaState.LEASED))
    _hold(state, shard, leased, change)
    _place(state, shard, leased, change)
    return change


def cast(state: Slice, event: VoteCast, world: World) -> Change:
    replica, vote = _held(state)
    voted = replace(
        vote,
        state=VoteState.CAST,
        answer_json=event.answer_json,
        body_sha256=event.body_sha256,
        ms=event.ms,
        right=event.right,
        cast_ms=world.now_ms,
    )
    return Change(rows=[move(move(replica, ReplicaState.COMMITTED), ReplicaState.SUBMITTED, progress=1.0), voted])


def changed(state: Slice, event: VoteChanged, world: World) -> Change:
    """The answer is forgotten; pay stays held, and the time runs anew."""
    replica, vote = _held(state)
    again = move(replica, ReplicaState.LEASED, expires_ms=event.expires_ms, deadline_ms=event.deadline_ms, progress=0.0)
    back = replace(vote, state=VoteState.GIVEN, answer_json="", body_sha256="", ms=0, right=-1, cast_ms=0)
    return Change(rows=[again, back])


def judged(state: Slice, event: VoteJudged, world: World) -> Change:
    replica, vote = _held(state)
    if event.verdict is VoteState.HELD:
        return Change(rows=[replace(vote, state=VoteState.HELD)])
    change = Change()
    accepted = event.verdict is not VoteState.REJECTED
    _decide(state, vote, event.verdict, event.why, world, change)
    shard = state.shard(vote.shard_id)
    if shard.phase != ASK_PHASE or shard.state is ShardState.DONE:
        return change
    if not accepted:
        _free(shard, change)
        return change
    before = [one for one in state.replicas_of(shard.id) if one.state is ReplicaState.ACCEPTED]
    if len(before) + 1 >= shard.quorum:
        first = min([one.number for one in before] + [replica.number])
        change.rows.append(_done(shard, world, canonical=first))
    return change


def left(state: Slice, event: TaskLeft, world: World) -> Change:
    """The task ends without an answer; its place is free."""
    _, vote = _held(state)
    change = Change()
    _take_back(state, vote, event.state, event.why, world, change)
    shard = state.shard(vote.shard_id)
    if shard.phase == ASK_PHASE and shard.state is not ShardState.DONE:
        _free(shard, change)
    return change


def lost(state: Slice, event: LeaseLost, world: World) -> Change:
    """As any lease whose time ran out, or whose holder is trusted no more; what workers are told of it is not for
    people."""
    vote = state.vote(event.shard_id, event.number)
    return left(replace(state, votes=(vote,)), TaskLeft(state=VoteState.EXPIRED, why=RAN_OUT), world)


def shelved(state: Slice, event: ItemShelved, world: World) -> Change:
    shard = state.shards[0]
    if shard.state is ShardState.DONE or shard.phase != ASK_PHASE:
        return Change()
    running = move(shard, ShardState.RUNNING) if shard.state is ShardState.READY else shard
    done = _done(running, world, canonical=-1, why_json=event.why.to_json())
    notes = [Note.because("people.item_shelved", shard.id, event.why)] if event.is_told else []
    return Change(rows=[done], notes=notes)


_HANDLERS: Mapping[type, Callable[[Slice, Any, World], Change]] = {
    TaskGiven: given,
    VoteCast: cast,
    VoteChanged: changed,
    VoteJudged: judged,
    TaskLeft: left,
    LeaseLost: lost,
    ItemShelved: shelved,
}


def concerns(state: Slice, event: MachineEvent) -> bool:
    """Whether the event is about a task of a person, and not about a worker's lease."""
    return type(event) in _HANDLERS and bool(state.shards) and state.shards[0].phase in PEOPLE_PHASES


def stepped(state: Slice, event: MachineEvent, world: World) -> Change:
    return _HANDLERS[type(event)](state, event, world)


def close(state: Slice, world: World, change: Change) -> None:
    """Every item is done: tasks that people still hold are taken back; what they handed in is paid, as any late result,
    unless what is known of its person speaks against them."""
    for vote in state.votes:
        replica = state.replica(vote.shard_id, vote.replica)
        end(state, replica, CLOSED, world, change)


def end(state: Slice, replica: Replica, why: Why, world: World, change: Change) -> None:
    """The end of one replica's task with its stage or its job, whatever it waited for."""
    vote = state.vote(replica.shard_id, replica.number)
    if replica.state in LIVE:
        _take_back(state, vote, VoteState.EXPIRED, why, world, change)
    elif replica.state is ReplicaState.SUBMITTED:
        if vote.annotator in state.doubted:
            _decide(state, vote, VoteState.REJECTED, SPOKE_AGAINST, world, change)
        else:
            _decide(state, vote, VoteState.PAID, None, world, change)


def repeat_of(shard: Shard, world: World) -> Shard:
    """The same item, to be shown to somebody a second time."""
    key = shard.job_id, shard.stage, shard.round, REPEAT_PHASE, shard.position
    return replace(
        shard,
        id=shard_id(*key),
        phase=REPEAT_PHASE,
        state=ShardState.READY,
        seed=derive_seed(*key),
        quorum=1,
        canonical=-1,
        why_json="",
        created_ms=world.now_ms,
        done_ms=0,
    )


# ---- inside ---------------------------------------------------------------------------------------------------------


def _held(state: Slice) -> tuple[Replica, Vote]:
    vote = state.votes[0]
    return state.replica(vote.shard_id, vote.replica), vote


def _places(state: Slice, shard: Shard) -> int:
    return shard.quorum - sum(1 for one in state.replicas_of(shard.id) if one.state in _TAKEN)


def _replica(shard: Shard, vote: Vote, world: World) -> Replica:
    return Replica(
        shard_id=shard.id,
        number=vote.replica,
        job_id=shard.job_id,
        stage=shard.stage,
        round=shard.round,
        phase=shard.phase,
        purpose=Purpose.PRIMARY,
        state=ReplicaState.READY,
        created_ms=world.now_ms,
    )


def _hold(state: Slice, shard: Shard, replica: Replica, change: Change) -> None:
    lease = lease_id(replica)
    reserve = round_account(state.job.id, state.stage.name, state.round.number)
    pay, fee = hold_ids(lease)
    for hold, credit, msat, reason in (
        (pay, worker_account(replica.worker_id), shard.price_msat, "shard"),
        (fee, FEES, shard.fee_msat, "fee"),
    ):
        if msat:
            change.movements.append(
                Hold(id=hold, debit=reserve, credit=credit, msat=msat, reason=reason, reference=lease)
            )


def _place(state: Slice, shard: Shard, leased: Replica, change: Change) -> None:
    """The shard's last place may be taken now; a shard beside the phase is written when it is first used."""
    if shard.phase != ASK_PHASE:
        change.rows.append(shard)
    elif _places(state, shard) == 1:
        change.rows.append(move(shard, ShardState.RUNNING))


def _free(shard: Shard, change: Change) -> None:
    if shard.state is ShardState.RUNNING:
        change.rows.append(move(shard, ShardState.READY))


def _decide(state: Slice, vote: Vote, verdict: VoteState, why: Why | None, world: World, change: Change) -> None:
    """The verdict's rows and money."""
    replica = state.replica(vote.shard_id, vote.replica)
    shard, accepted = state.shard(vote.shard_id), verdict is not VoteState.REJECTED
    final = ReplicaState.ACCEPTED if accepted else ReplicaState.REJECTED
    told = why.to_json() if why else ""
    decided = move(replica, final, why_json=told)
    change.rows += [decided, replace(vote, state=verdict, decided_ms=world.now_ms, why_json=told)]
    if shard.phase == PRACTICE_PHASE:
        return
    paid = shard.price_msat if accepted else 0
    took_ms = max(vote.cast_ms - replica.granted_ms, 0)
    change.rows.append(history(shard, decided, final, now_ms=world.now_ms, why=why, paid_msat=paid, compute_ms=took_ms))
    if accepted:
        pay, fee = hold_ids(lease_id(replica))
        held = ((pay, shard.price_msat), (fee, shard.fee_msat))
        change.movements += [PostHold(hold_id=hold, msat=msat) for hold, msat in held if msat]
    else:
        change.movements += void(shard, replica)


def _take_back(state: Slice, vote: Vote, ended: VoteState, why: Why, world: World, change: Change) -> None:
    shard, replica = state.shard(vote.shard_id), state.replica(vote.shard_id, vote.replica)
    gone = move(replica, ReplicaState.EXPIRED, why_json=why.to_json())
    change.rows += [gone, replace(vote, state=ended, decided_ms=world.now_ms, why_json=why.to_json())]
    if shard.phase != PRACTICE_PHASE:
        change.rows.append(history(shard, gone, ReplicaState.EXPIRED, now_ms=world.now_ms, why=why))
        change.movements += void(shard, replica)


def _done(shard: Shard, world: World, *, canonical: int, why_json: str = "") -> Shard:
    return move(shard, ShardState.DONE, canonical=canonical, done_ms=world.now_ms, why_json=why_json)
