"""What a job's owner asks about stages that people answer. The figures are `people.progress`'s. Called by `jobs`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from shardwork.errors import NotFound
from shardwork.recipes import recipe
from shardwork.recipes.base import StageType
from shardwork.v1 import jobs_pb2

from ..engine import Engine
from ..people import places
from ..people.items import Items, Longer
from ..people.progress import people_progress
from ..records import Job, Stage
from ..store.base import Transaction
from . import steering
from .auth import Caller


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
