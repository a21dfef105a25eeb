"""People answer a whole stage through the real routes; they are paid, and their votes become rows."""

from __future__ import annotations

from pathlib import Path

from shardwork_coordinator.records import JobState, Shard, ShardState
from shardwork_coordinator.store import Store
from shardwork_coordinator.views import job_view

from .stand import Stand, person, rows, standing


async def test_a_stage_is_answered_paid_and_becomes_preferences(stand: Stand) -> None:
    await stand.submit(consensus="majority")
    anna, bert = person(stand, 1), person(stand, 2)
    for one in (anna, bert):
        await one.join(payout="ann@example.org")
        assert await one.work() > 6
    await stand.later()
    await stand.later()
    shards = await stand.all(Shard, phase="ask")
    assert {one.state for one in shards} == {ShardState.DONE}
    await stand.effects()
    job = await stand.job()
    assert job.state is JobState.SUCCEEDED, job.why_json
    await stand.check_books()
    rows = await stand.artifact("rows", "preferences.jsonl")
    assert len(rows) == 6
    assert all(row["chosen"].startswith("a long") and row["confidence"] == 1.0 for row in rows)
    votes = await stand.artifact("votes", "votes.jsonl")
    assert len(votes) == 12
    assert {vote["annotator"] for vote in votes} == {anna.id, bert.id}
    # what only tests people is no part of the job's work
    told = await stand.engine.store.read(lambda tx: job_view(tx, job, []))
    assert dict(told.shards) == {"done": 6}


async def test_every_store_keeps_a_stage_alike(tmp_path: Path, store: Store) -> None:
    async with standing(tmp_path, store) as stand:
        await stand.submit(rows(4, 20), overlap=1)
        anna = person(stand, 1)
        await anna.join()
        given = (await anna.next())["task"]
        await anna.ok("skip", lease=given["lease"])
        await anna.work()
        await stand.later()
        await stand.effects()
        assert (await stand.job()).state is JobState.SUCCEEDED
        assert len((await anna.get("history")).json()["votes"]) > 10
        await stand.check_books()
