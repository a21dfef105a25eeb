"""Offering: the tasks that there are, and the next one of one of them. Functions of (call, desk)."""

from __future__ import annotations

from typing import Any

from shardwork.errors import InvalidInput
from shardwork.why import Why

from ..events import Push
from ..records import Annotator, AnnotatorState, Job, JobState, Party, Stage
from ..store.base import Transaction
from . import figures, places
from .desk import PeopleDesk
from .giving import STOPPED_HERE, Giver, Next
from .items import Index
from .showing import task
from .signing import Call, annotator

#: listed at once
MOST_TASKS = 200


async def tasks(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Every stage whose people are asked; those for invited people only to them.

    Who has not joined yet may look: what is asked and paid is read before anything is begun.
    """

    def look(tx: Transaction) -> dict[str, Any]:
        if tx.get(Party, call.party) is not None:
            annotator(tx, call)
        found = [_listed(tx, job, stage, call.party, desk) for job, stage in places.running(tx)[:MOST_TASKS]]
        return {"tasks": [one for one in found if one is not None], "me": figures.of_person(tx, call.party)}

    return await desk.engine.store.read(look)


async def next_task(call: Call, desk: PeopleDesk) -> dict[str, Any]:
    """Raises NotFound "people.unknown"."""
    job, stage = call.body.get("job"), call.body.get("stage")
    if not isinstance(job, str) or not isinstance(stage, str) or "\0" in job + stage:
        raise InvalidInput("people.no_stage", "The call names no task.", next_step="Choose a task from the list.")
    place = await desk.engine.store.read(lambda tx: desk.places.of(tx, job, stage))
    index = await desk.items.index(place.items)
    given = await desk.commit(lambda tx, pushes: _given(tx, call, desk, place, index, pushes))
    if given.vote is None:
        return {"task": None, "why": _words(given.why), "progress": figures.in_stage(given.me, place)}
    item = await desk.items.item(place.items, given.vote.position)
    return {
        "task": task(given.vote, item, place, given.expires_ms),
        "progress": figures.in_stage(given.me, place),
    }


def _given(
    tx: Transaction, call: Call, desk: PeopleDesk, place: places.Place, index: Index, pushes: list[Push]
) -> Next:
    annotator(tx, call)
    giver = Giver(tx=tx, desk=desk, place=place, index=index, world=desk.engine.world(), pushes=pushes)
    return giver.next(call.party)


def _listed(tx: Transaction, job: Job, stage: Stage, party: str, desk: PeopleDesk) -> dict[str, Any] | None:
    place = places.read(stage)
    if place is None or job.state not in (JobState.RUNNING, JobState.PAUSED):
        return None
    me = tx.get(Annotator, job.id, stage.name, party)
    if place.params.invitation and me is None:
        return None
    round_ = places.open_round(tx, job.id, stage.name)
    why = places.why_shut(tx, job.id, stage.name)
    if me is not None and me.state is AnnotatorState.STOPPED:
        why = STOPPED_HERE
    return {
        "job": job.id,
        "stage": stage.name,
        "title": place.params.title,
        "kind": place.params.kind,
        "guideline": place.params.guideline,
        "pay_msat": place.pay_msat,
        "asset": desk.asset,
        "seconds": place.seconds,
        "left": round_.shards_left if round_ else 0,
        "mine": figures.in_stage(me, place),
        "open": why is None,
        "why": _words(why),
    }


def _words(why: Why | None) -> dict[str, str] | None:
    return {"code": why.code, "sentence": why.sentence, "next_step": why.next_step} if why else None
