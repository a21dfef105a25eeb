"""Settling: an answer counts once it can't be taken back; what it tells of its person decides what becomes of all of
theirs.

In probation answers wait, unpaid. Who is found to look is paid for all of them at once, and from then on for each; who
is found not to look is paid for none, and others are asked in their place. Called by the handlers and by `sweeping`.
"""

from __future__ import annotations

from dataclasses import replace

from shardwork.recipes.base import ASK_PHASE
from shardwork.why import Why

from ..engine import advance, found, slice_of_task, write_note
from ..events import MachineEvent, Note, Push, TaskLeft, VoteJudged, World
from ..records import Annotator, AnnotatorState, Shard, Stage, Vote, VoteState
from ..store.base import Transaction
from . import places, trust

#: an answer may be taken back until the next one, or for so long
UNDO_MS = 10_000

STOPPED = Why(
    code="people.not_looking",
    sentence="Answers to items whose answer is known, or that were shown twice, were those of somebody who does not "
    "look; this task is closed for you and its held answers are not paid.",
    next_step="Choose another task, and read the guideline first.",
)
LEFT_EARLY = Why(
    code="people.left_early",
    sentence="You left before your answers could be told from guesses, and others are asked in your place.",
    next_step="Stay until your held answers are paid; the task says from how many on that is.",
)


def settle(tx: Transaction, vote: Vote, world: World, pushes: list[Push]) -> None:
    """The answer stays as it is: it is weighed, and decided as its person's standing says."""
    me = found(tx.get(Annotator, vote.job_id, vote.stage, vote.annotator), "annotator", vote.annotator)
    place = found(places.read(found(tx.get(Stage, vote.job_id, vote.stage), "stage", vote.stage)), "stage", vote.stage)
    known = trust.weighed(tx, trust.Standing.of(me.evidence_json), vote, place.params)
    me = replace(me, evidence_json=known.to_json())
    tx.put(me)
    state = trust.last(known) if me.nothing_left else trust.state_of(known)
    conclude(tx, me, state, world, pushes, newest=vote)


def conclude(
    tx: Transaction, me: Annotator, state: AnnotatorState, world: World, pushes: list[Push], *, newest: Vote | None
) -> None:
    """Writes the verdict on a person and carries it out on the answers that wait for it."""
    if state is not me.state:
        why = STOPPED if state is AnnotatorState.STOPPED else None
        tx.put(replace(me, state=state, why_json=why.to_json() if why else ""))
        write_note(tx, me.job_id, _note(me, state), world.now_ms)
    match state:
        case AnnotatorState.PROBATION:
            if newest is not None:
                judge(tx, newest, VoteJudged(verdict=VoteState.HELD), world, pushes)
        case AnnotatorState.CLEARED:
            for vote in waiting(tx, me, newest):
                judge(tx, vote, VoteJudged(verdict=VoteState.PAID), world, pushes)
        case AnnotatorState.STOPPED:
            _refuse(tx, me, STOPPED, world, pushes, newest)


def judge(tx: Transaction, vote: Vote, event: MachineEvent, world: World, pushes: list[Push]) -> None:
    """One step of the machine on one task, unless an earlier step of the same transaction ended it."""
    now = tx.get(Vote, vote.id)
    if now is None or now.state is not vote.state:
        return
    shard = found(tx.get(Shard, vote.shard_id), "shard", vote.shard_id)
    pushes += advance(tx, slice_of_task(tx, shard, now), event, world)


def waiting(tx: Transaction, me: Annotator, newest: Vote | None = None) -> list[Vote]:
    """Answers that wait for the verdict on their person; of those that may be taken back only `newest`."""
    held = tx.find(Vote, annotator=me.party, job_id=me.job_id, stage=me.stage, state=VoteState.HELD, order="number")
    return held if newest is None else [*held, newest]


def stop(tx: Transaction, me: Annotator, why: Why, world: World, pushes: list[Push]) -> None:
    """The operator trusts them no more: nothing of theirs counts that was not paid yet."""
    tx.put(replace(me, state=AnnotatorState.STOPPED, why_json=why.to_json()))
    for vote in tx.find(Vote, annotator=me.party, job_id=me.job_id, stage=me.stage, state=VoteState.CAST):
        judge(tx, vote, VoteJudged(verdict=VoteState.REJECTED, why=why), world, pushes)
    _refuse(tx, me, why, world, pushes, None)


def _refuse(tx: Transaction, me: Annotator, why: Why, world: World, pushes: list[Push], newest: Vote | None) -> None:
    for vote in waiting(tx, me, newest):
        judge(tx, vote, VoteJudged(verdict=VoteState.REJECTED, why=why), world, pushes)
    leave_all(tx, me, why, world, pushes)


def leave_all(tx: Transaction, me: Annotator, why: Why, world: World, pushes: list[Push]) -> None:
    """What they hold unanswered is free for others."""
    for vote in tx.find(Vote, annotator=me.party, job_id=me.job_id, stage=me.stage, state=VoteState.GIVEN):
        judge(tx, vote, TaskLeft(state=VoteState.EXPIRED, why=why), world, pushes)


def settle_open(tx: Transaction, party: str, job: str, stage: str, world: World, pushes: list[Push]) -> None:
    """All answers of a person in a stage that could still be taken back: another one came, or time passed."""
    for vote in tx.find(Vote, annotator=party, job_id=job, stage=stage, state=VoteState.CAST, order="number"):
        settle(tx, vote, world, pushes)


def lapse(tx: Transaction, me: Annotator, world: World, pushes: list[Push]) -> None:
    """They left in probation, and others wait for the places of their answers."""
    for vote in waiting(tx, me):
        if vote.phase == ASK_PHASE:
            judge(tx, vote, VoteJudged(verdict=VoteState.REJECTED, why=LEFT_EARLY), world, pushes)


def _note(me: Annotator, state: AnnotatorState) -> Note:
    words = {
        AnnotatorState.CLEARED: "is found to look: held answers are paid, and from now on each at once",
        AnnotatorState.STOPPED: "is stopped: answers were those of somebody who does not look, and none is paid",
        AnnotatorState.PROBATION: "is in probation again",
    }
    known = trust.Standing.of(me.evidence_json)
    return Note(
        kind="people.standing",
        subject=f"{me.job_id}/{me.stage}/{me.party}",
        sentence=f"Annotator {me.party} {words[state]}.",
        evidence={
            "hidden": f"{known.golds_right} of {known.golds} right",
            "repeated": f"{known.repeats_same} of {known.repeats} the same",
            "too_fast": str(known.hasty),
            "answers": str(me.votes),
            **({"by": str(known.cause)} if known.cause else {}),
        },
    )
