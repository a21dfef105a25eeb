"""A stage of recipe consensus after one that asks people: it needs no worker, and its report knows what people cost."""

from __future__ import annotations

import asyncio
import json

from shardwork.jobs.spec import StageSpec
from shardwork.recipes import recipe
from shardwork.recipes.base import StageFacts
from shardwork_coordinator.records import JobState, Round, Stage, StageState

from .stand import JOB, STAGE, Stand, person


async def test_votes_of_people_become_rows_and_a_report_without_a_worker(stand: Stand) -> None:
    agreed = StageSpec(name="agreed", recipe="consensus", data=[f"{STAGE}.votes"], params={"rule": "majority"})
    stand.then = (recipe("consensus").freeze(agreed, StageFacts()),)
    await stand.submit()
    anna, bert = person(stand, 1), person(stand, 2)
    for one in (anna, bert):
        await one.join()
        assert await one.work() > 6
    for _ in range(2):
        await stand.later()
    for _ in range(2):
        await stand.effects()
    assert (await stand.job()).state is JobState.SUCCEEDED, (await stand.job()).why_json
    await stand.check_books()
    (stage,) = await stand.all(Stage, job_id=JOB, name="agreed")
    assert stage.state is StageState.DONE
    outputs = {name: one["artifact_id"] for name, one in json.loads(stage.outputs_json).items()}
    assert set(outputs) == {"agreed.rows", "agreed.votes", "agreed.report"}
    (round_,) = await stand.all(Round, job_id=JOB, stage="agreed")
    assert json.loads(round_.measures_json)["rows"] == 6.0
    into = stand.folder / "report"
    await asyncio.to_thread(stand.desk.items._contents.materialise, outputs["agreed.report"], into)  # pyright: ignore[reportPrivateUsage]
    report = json.loads((into / "report.json").read_text())
    (people,) = (side for side in report["sides"] if side["name"] == "people")
    asked = await stand.all(Round, job_id=JOB, stage=STAGE)
    assert people["cost_msat"] == sum(one.paid_msat + one.fees_msat for one in asked) > 0
    assert people["took_ms"] == sum(one.ended_ms - one.started_ms for one in asked) > 0
    assert people["ms_per_vote"] == 5000 and report["agreement"]["people_alpha"]["value"] == 1.0
    assert len(report["annotators"]) == 2 and report["unknown"] == 0 and report["rows"] == 6
