"""Voting: an answer, taken back, a task left aside or reported. Functions of (call, desk); each is one transaction.

An answer that comes twice is one answer; one that comes after its task ran out counts so long as its place is free.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shardwork.errors import Conflict, InvalidInput, NotFound
from shardwork.ids import sha256_hex
from shardwork.recipes.base import PRACTICE_PHASE, REPEAT_PHASE
from shardwork.why import Why

from ..engine import advance, found, slice_of_task, write_note
from ..events import ItemShelved, Note, Push, TaskGiven, TaskLeft, VoteCast, VoteChanged, VoteJudged, World
from ..records import Annotator, AnnotatorState, Replica, Round, Shard, Vote, VoteState
from ..store.base import Transaction
from . import answers, figures, settling, trust
from .desk import PeopleDesk
from .giving import DEADLINE_MS, EXPIRES_MS, covered
from .items import Item
from .places import Place
from .showing import task
from .signing import Call, annotator

#: people known to look who must say that an item can't be judged before nobody else is asked
REPORTS = 3
MOST_REASON = 500
ANSWERED = (VoteState.CAST, VoteState.HELD, VoteState.PAID, VoteState.REJECTED, VoteState.PRACTICE)

TOO_LATE_WHY = Why(code="people.task_over", sentence="The time for this task is over.", next_step="Take the next one.")


async def vote(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Raises NotFound "people.no_task", Conflict "people.answered", "people.task_over" and "people.no_place",
    InvalidInput "people.bad_answer"."""
    lease = _lease(call)
    place, row = await desk.engine.store.read(lambda tx: _looked_up(tx, lease, call, desk))
    item = await desk.items.item(place.items, row.position)
    shown = [int(one) for one in row.shown.split(",")]
    answer = answers.read(call.body, place.params, shown)
    cast = VoteCast(
        answer_json=answer.to_json(),
        body_sha256=sha256_hex(answer.to_json().encode()),
        ms=answers.milliseconds(call.body),
        right=trust.rightness(answer.value, item.gold, made=item.made),
    )

    def work(tx: Transaction, pushes: list[Push]) -> dict[str, Any] | Why:
        annotator(tx, call)
        mine = _own(tx, lease, call)
        if mine.state not in ANSWERED:
            if not _cast(tx, mine, cast, desk.engine.world(), pushes):
                # no error yet: it would undo the verdict
                return settling.STOPPED
        elif mine.body_sha256 != cast.body_sha256:
            raise Conflict("people.answered", "You have answered this otherwise.", next_step="Take it back first.")
        return _told(tx, lease, item, place)

    answered = await desk.commit(work)
    if isinstance(answered, Why):
        raise Conflict.from_why(answered)
    return answered


async def undo(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """The task again. Raises Conflict "people.settled"."""
    lease = _lease(call)
    place, row = await desk.engine.store.read(lambda tx: _looked_up(tx, lease, call, desk))
    item = await desk.items.item(place.items, row.position)

    def work(tx: Transaction, pushes: list[Push]) -> dict[str, Any]:
        annotator(tx, call)
        mine, world = _own(tx, lease, call), desk.engine.world()
        if mine.state is VoteState.CAST:
            event = VoteChanged(expires_ms=world.now_ms + EXPIRES_MS, deadline_ms=world.now_ms + DEADLINE_MS)
            pushes += advance(tx, _slice(tx, mine), event, world)
            _count(tx, mine, world, -1)
        elif mine.state is not VoteState.GIVEN:
            raise Conflict("people.settled", "This answer counts already.", next_step="Only the newest can be undone.")
        again = _own(tx, lease, call)
        expires_ms = found(tx.get(Replica, again.shard_id, again.replica), "task", lease).expires_ms
        return {"task": task(again, item, place, expires_ms)}

    return await desk.commit(work)


async def skip(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    why = Why(code="people.skipped", sentence="Its annotator left it to others.", next_step="Nothing to do.")
    return await _leave(call, desk, VoteState.SKIPPED, why)


async def report(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Something is wrong with the item; when several people say so, nobody else is asked."""
    reason = call.body.get("reason", "")
    if not isinstance(reason, str) or not 1 <= len(reason.strip()) <= MOST_REASON:
        raise InvalidInput(
            "people.bad_reason",
            f"A report says why, in 1 to {MOST_REASON} letters.",
            next_step="Say what is wrong with the item.",
        )
    text = " ".join(reason.split())
    why = Why(code="people.reported", sentence="Its annotator reported it.", evidence={"reason": text})
    return await _leave(call, desk, VoteState.REPORTED, why)


# ---- inside -------------------------------------------------------------------------------------------------------


async def _leave(call: Call, desk: PeopleDesk, state: VoteState, why: Why) -> dict[str, Any]:
    lease = _lease(call)

    def work(tx: Transaction, pushes: list[Push]) -> dict[str, Any]:
        annotator(tx, call)
        mine, world = _own(tx, lease, call), desk.engine.world()
        if mine.state is VoteState.GIVEN:
            pushes += advance(tx, _slice(tx, mine), TaskLeft(state=state, why=why), world)
            if state is VoteState.REPORTED:
                _reported(tx, mine, why, world, pushes)
        elif mine.state in ANSWERED:
            raise Conflict("people.answered", "You have answered this.", next_step="Take the answer back first.")
        return {"me": figures.of_person(tx, call.party)}

    return await desk.commit(work)


def _reported(tx: Transaction, vote: Vote, why: Why, world: World, pushes: list[Push]) -> None:
    """Told in the job's log, where its owner reads what people say of an item."""
    note = Note(
        kind="people.item_reported",
        subject=vote.shard_id,
        sentence=f"Somebody reported item {vote.position}: {why.evidence['reason']}",
        evidence={"item": str(vote.position), "phase": vote.phase},
    )
    write_note(tx, vote.job_id, note, world.now_ms)
    reports = tx.find(Vote, shard_id=vote.shard_id, state=VoteState.REPORTED)
    # keys are free: only who is known to look can keep an item from being asked
    people = [tx.get(Annotator, one.job_id, one.stage, one.annotator) for one in reports]
    if sum(one is not None and one.state is AnnotatorState.CLEARED for one in people) >= REPORTS:
        shelved = Why(
            code="people.item_shelved",
            sentence=f"{len(reports)} people said that item {vote.position} can't be judged: nobody else is asked.",
            evidence={"item": str(vote.position)},
        )
        pushes += advance(tx, _slice(tx, reports[0]), ItemShelved(why=shelved), world)


def _cast(tx: Transaction, vote: Vote, event: VoteCast, world: World, pushes: list[Push]) -> bool:
    """False when the answer before, which counts now, showed that they do not look."""
    if vote.state is VoteState.EXPIRED:
        vote = _taken_up_again(tx, vote, world, pushes)
    elif vote.state is not VoteState.GIVEN:
        raise Conflict.from_why(TOO_LATE_WHY)
    settling.settle_open(tx, vote.annotator, vote.job_id, vote.stage, world, pushes)
    vote = found(tx.get(Vote, vote.id), "task", vote.id)
    if vote.state is not VoteState.GIVEN:
        return False
    if vote.phase == REPEAT_PHASE:
        event = replace(event, right=_as_before(tx, vote, event))
    pushes += advance(tx, _slice(tx, vote), event, world)
    _count(tx, vote, world, 1)
    if vote.phase == PRACTICE_PHASE:
        cast = found(tx.get(Vote, vote.id), "task", vote.id)
        settling.judge(tx, cast, VoteJudged(verdict=VoteState.PRACTICE), world, pushes)
    return True


def _taken_up_again(tx: Transaction, vote: Vote, world: World, pushes: list[Push]) -> Vote:
    """Its time ran out, but not the time in which an answer to it is taken: it is given again, if nobody has it."""
    replica = found(tx.get(Replica, vote.shard_id, vote.replica), "task", vote.id)
    me = found(tx.get(Annotator, vote.job_id, vote.stage, vote.annotator), "annotator", vote.annotator)
    if replica.deadline_ms <= world.now_ms or me.state is AnnotatorState.STOPPED:
        raise Conflict.from_why(TOO_LATE_WHY)
    shard = found(tx.get(Shard, vote.shard_id), "shard", vote.shard_id)
    round_ = found(tx.get(Round, shard.job_id, shard.stage, shard.round), "round", shard.id)
    if not covered(tx, shard, round_, world):
        raise Conflict.from_why(TOO_LATE_WHY)
    event = TaskGiven(expires_ms=world.now_ms + EXPIRES_MS, deadline_ms=replica.deadline_ms)
    pushes += advance(tx, _slice(tx, vote), event, world)
    return found(tx.get(Vote, vote.id), "task", vote.id)


def _as_before(tx: Transaction, vote: Vote, event: VoteCast) -> int:
    """Whether a repeated item was judged as the first time, when its answers stood the other way around."""
    firsts = tx.find(Vote, annotator=vote.annotator, job_id=vote.job_id, stage=vote.stage, position=vote.position)
    first = next((one for one in firsts if one.phase == "ask" and one.answer_json), None)
    return -1 if first is None else trust.sameness(first.answer_json, event.answer_json)


def _count(tx: Transaction, vote: Vote, world: World, step: int) -> None:
    me = found(tx.get(Annotator, vote.job_id, vote.stage, vote.annotator), "annotator", vote.annotator)
    practised = me.practised + (step if vote.phase == PRACTICE_PHASE else 0)
    tx.put(replace(me, votes=me.votes + step, practised=practised, last_ms=world.now_ms))


def _told(tx: Transaction, lease: str, item: Item, place: Place) -> dict[str, Any]:
    """What the page shows after an answer, also when it came a second time."""
    now = found(tx.get(Vote, lease), "task", lease)
    me = tx.get(Annotator, now.job_id, now.stage, now.annotator)
    cleared = me is not None and me.state is AnnotatorState.CLEARED
    answer: dict[str, Any] = {
        "state": "held" if now.state is VoteState.CAST else str(now.state),
        "me": figures.of_person(tx, now.annotator),
        "mine": figures.in_stage(me, place),
        # until then it can be taken back; null: it counts already
        "undo_until_ms": now.cast_ms + settling.UNDO_MS if now.state is VoteState.CAST else None,
        "paid_at_ms": now.cast_ms + settling.UNDO_MS if now.state is VoteState.CAST and cleared else None,
    }
    if now.state is VoteState.PRACTICE and item.gold is not None:
        shown = [int(one) for one in now.shown.split(",")]
        answer["practice"] = {"right": now.right == 1, "sentence": _feedback(item.gold, now.right == 1, shown)}
    return answer


def _feedback(gold: dict[str, Any], right: bool, shown: list[int]) -> str:
    """What the known answer is, in words of the order in which the item was shown."""
    if right:
        return "Whoever asks would answer the same."
    if gold.get("winner") in ("a", "b"):
        place = shown.index("ab".index(gold["winner"])) + 1
        return f"Answer {place} is the better one."
    words = {"tie": "Both answers are equally good.", "both_bad": "Both answers are bad."}
    if gold.get("winner") in words:
        return words[gold["winner"]]
    if "ranking" in gold:
        order = ", ".join(str(shown.index(one) + 1) for one in gold["ranking"])
        return f"The order, the best first, is {order}."
    if "scores" in gold:
        return "The points are " + ", ".join(f"{name} {value}" for name, value in gold["scores"].items()) + "."
    verdicts = {"keep": "The text is good as it is.", "discard": "The text is to be thrown away."}
    return verdicts.get(gold.get("verdict", ""), "The text is to be mended.")


def _slice(tx: Transaction, vote: Vote) -> Any:
    return slice_of_task(tx, found(tx.get(Shard, vote.shard_id), "shard", vote.shard_id), vote)


def _lease(call: Call) -> str:
    lease = call.body.get("lease")
    if not isinstance(lease, str) or not 0 < len(lease) <= 64:
        raise InvalidInput("people.no_lease", "The call names no task.", next_step="Reload the page.")
    return lease


def _looked_up(tx: Transaction, lease: str, call: Call, desk: PeopleDesk) -> tuple[Place, Vote]:
    row = _own(tx, lease, call)
    return desk.places.of(tx, row.job_id, row.stage), row


def _own(tx: Transaction, lease: str, call: Call) -> Vote:
    """One answer for what is unknown and what is somebody else's."""
    row = tx.get(Vote, lease)
    if row is None or row.annotator != call.party:
        raise NotFound("people.no_task", "You have no such task.", next_step="Take the next one.")
    return row
