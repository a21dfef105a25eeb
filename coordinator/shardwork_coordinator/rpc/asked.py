"""What a job's owner asks about stages that people answer, and how such a stage is ended early. The figures are
`people.progress`'s, the end is `people.sweeping`'s. Called by `jobs`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from shardwork.errors import Conflict, NotFound
from shardwork.recipes import recipe
from shardwork.recipes.base import StageType
from shardwork.v1 import jobs_pb2

from ..engine import Engine, write_note
from ..events import Note
from ..people import places
from ..people.gathering import has_answers
from ..people.items import Items, Longer
from ..people.progress import people_progress
from ..records import Event, Job, Stage, StageState
from ..store.base import Transaction
from . import steering
from .auth import Caller

#: event of an end that somebody asked for
CLOSED = "people.closed"


async def get_people_progress(
    request: jobs_pb2.GetPeopleProgressRequest, caller: Caller, engine: Engine, items: Items | None
) -> jobs_pb2.GetPeopleProgressResponse:
    """Of one stage or of all that ask people. Raises NotFound "people.no_such_stage"."""
    now_ms = engine.clock.now_ms()

    def places_of(tx: Transaction) -> dict[str, str]:
        return places.items_of(tx, steering.own_job(tx, request.job_id, caller).id)

    # texts of items are no rows: which of two is longer is read before everything else
    longer: Longer = await items.longer(await engine.store.read(places_of)) if items else {}

    def look(tx: Transaction) -> jobs_pb2.GetPeopleProgressResponse:
        job = steering.own_job(tx, request.job_id, caller)
        told = [_progress(tx, one, now_ms, longer.get(one.name, ())) for one in _wanted(tx, job, request.stage)]
        return jobs_pb2.GetPeopleProgressResponse(job_id=job.id, stages=told)

    return await engine.store.read(look)


async def close_people(
    request: jobs_pb2.ClosePeopleRequest, caller: Caller, engine: Engine
) -> jobs_pb2.ClosePeopleResponse:
    """Its owner, or the operator, wants no more answers."""
    now_ms = engine.clock.now_ms()
    await engine.store.write(
        lambda tx: end_asking(tx, steering.own_job(tx, request.job_id, caller), request.stage, "requester", now_ms)
    )
    engine.after_commit(())
    return jobs_pb2.ClosePeopleResponse(job=await steering.view_of(request.job_id, caller, engine))


def end_asking(tx: Transaction, job: Job, name: str, by: str, now_ms: int) -> None:
    """The stage's time is over from now on; the sweeper does the rest. `name` empty: the one that asks now.

    Raises NotFound "people.no_such_stage", Conflict "job.final", "people.not_asking" and "people.no_answers".
    """
    stages = _wanted(tx, job, name)
    asking = [one for one in stages if one.state is StageState.RUNNING and places.open_round(tx, job.id, one.name)]
    ended = {one.subject for one in tx.find(Event, job_id=job.id, kind=CLOSED)}
    # asked again because the first answer was lost, and maybe all is done since then
    if ended & {one.name for one in asking or stages}:
        return
    steering.check_lives(job)
    stage = _closable(tx, stages, asking)
    tx.put(replace(stage, deadline_ms=now_ms))
    sentence = f"The {by} ended the asking of stage {stage.name}; it goes on with the answers that it has."
    write_note(tx, job.id, Note(kind=CLOSED, subject=stage.name, sentence=sentence), now_ms)


def _closable(tx: Transaction, stages: Sequence[Stage], asking: Sequence[Stage]) -> Stage:
    if not asking:
        raise Conflict(
            "people.not_asking",
            "No such stage of this job asks people now.",
            next_step="`shardwork job show` tells where each stage is.",
            stages=", ".join(f"{one.name}: {one.state}" for one in stages),
        )
    stage = asking[0]
    if not has_answers(tx, stage.job_id, stage.name):
        raise Conflict(
            "people.no_answers",
            f"Nobody has answered in stage {stage.name!r} yet: it would have nothing to go on with.",
            next_step="Send people its link, or end the job with `shardwork job cancel`, which refunds the rest.",
            stage=stage.name,
        )
    return stage


def _wanted(tx: Transaction, job: Job, name: str) -> list[Stage]:
    stages = [one for one in tx.find(Stage, job_id=job.id, order="position") if _asks_people(one)]
    found = [one for one in stages if name in ("", one.name)]
    if not found:
        names = ", ".join(one.name for one in stages)
        raise NotFound(
            "people.no_such_stage",
            "No such stage of the job asks people.",
            next_step=f"Stages that do: {names}." if names else "Name a job with a stage of recipe people.",
            job=job.id,
            stage=name[:40],
        )
    return found


def _asks_people(stage: Stage) -> bool:
    return recipe(stage.recipe).stage_type is StageType.PEOPLE


def _progress(tx: Transaction, stage: Stage, now_ms: int, longer: Sequence[int]) -> jobs_pb2.PeopleProgress:
    figures = people_progress(tx, stage, now_ms, longer)
    text = json.dumps(figures, sort_keys=True) if figures else ""
    return jobs_pb2.PeopleProgress(stage=stage.name, state=str(stage.state), figures_json=text)
